// Matrix products: Gemm, MatMul.
#include <algorithm>
#include <cmath>
#include <utility>

#include "latchkey/error.hpp"
#include "model/format.hpp"
#include "model/importer.hpp"

namespace latchkey::model {

fconv importer::dense(const value& x, const constant& w, bool transposed) {
  const bool tokens = !x.axes.empty() && channels_last(x);
  if (!x.axes.empty() && !tokens) {
    fail(format("multiplies {}", view_text(x)),
         "bring the channels to the end (Transpose), and heads together (Reshape)");
  }
  if (!tokens && x.dims.size() != 1) {
    fail(format("needs two dimensions, has {}", x.dims.size() + 1),
         "flatten the images before it (Flatten, axis = 1), or use tokens, N x T x C");
  }
  if (w.dims.size() != 2) {
    fail(format("weights of shape {} are not a matrix", list_text(w.dims)),
         "use one matrix of weights for all images");
  }
  const std::int64_t k = w.dims[transposed ? 1 : 0];
  const std::int64_t outs = w.dims[transposed ? 0 : 1];
  const ftensor& in = tensor(x);
  const std::size_t ins = tokens ? static_cast<std::size_t>(in.c) : in.size();
  if (k != static_cast<std::int64_t>(ins) || outs < 1) {
    damaged(format("weights {} do not fit {} inputs", list_text(w.dims), ins));
  }
  if (outs > kMaxDim) fail("has too many outputs", "split the layer");
  fconv op;
  if (tokens) {
    op.out_channels = static_cast<int>(outs);
    op.in_channels = in.c;
    return op;
  }
  op.fully_connected = true;
  op.out_channels = static_cast<int>(outs);
  op.in_channels = in.c;
  op.kernel_h = in.h;
  op.kernel_w = in.w;
  return op;
}

value importer::emit_dense(const value& x, fconv op) {
  const int outs = op.out_channels;
  if (x.axes.empty()) return emit({x.tensor}, std::move(op), {outs});
  const ftensor in = tensor(x);
  check_size({outs, in.h, in.w});
  return seen_as(emit({x.tensor}, std::move(op), {outs, in.h, in.w}), x);
}

void importer::gemm() {
  const value x = activation(0, true, kViews);
  const auto w = weights(1);
  if (!x.axes.empty() && x.rank() != 2) {
    fail(format("multiplies {}", view_text(x)),
         "use MatMul, or two dimensions, T x C, of one image");
  }
  if (integer("transA", 0) != 0) {
    fail("transA is set: rows would no longer be images", "use transA = 0");
  }
  const bool transposed = integer("transB", 0) != 0;
  const float alpha = real("alpha", 1.0F);
  const float beta = real("beta", 1.0F);
  fconv op = dense(x, *w, transposed);
  const auto outs = static_cast<std::size_t>(op.out_channels);
  const std::size_t k = w->values.size() / outs;
  op.weights = rows_of<float>(finite(w->values, "the weights"), k, outs, transposed);
  if (alpha != 1.0F) {
    for (float& v : op.weights) v = finite(v * alpha, "alpha * weights");
  }
  op.bias.assign(outs, 0.0F);
  if (has(2)) {
    const auto c = weights(2);
    const bool one = c->values.size() == 1;
    const bool row = c->values.size() == outs && !c->dims.empty() &&
                     c->dims.back() == static_cast<std::int64_t>(outs) && c->dims.size() <= 2;
    if (!one && !row) {
      fail(format("a bias of shape {} differs between images", list_text(c->dims)),
           "use one bias per output");
    }
    for (std::size_t o = 0; o < outs; ++o) {
      op.bias[o] = finite(c->values[one ? 0 : o] * beta, "beta * bias");
    }
  }
  if (w->q && alpha == 1.0F) integers_of(*w, op, k, transposed);
  result(emit_dense(x, std::move(op)));
}

void importer::integers_of(const constant& w, fconv& op, std::size_t k, bool transposed) {
  const auto outs = static_cast<std::size_t>(op.out_channels);
  const int axis = transposed ? 0 : 1;
  if (w.q->scale.size() != 1 && (w.q->axis != axis || w.q->scale.size() != outs)) return;
  integer_weights q;
  q.values = rows_of<std::int8_t>(w.q->integers, k, outs, transposed);
  q.scale = spread(w.q->scale, outs);
  op.integers = std::move(q);
}

void importer::matmul() {
  if (has(1) && !lookup(node_->input(1), "tensor").data) {
    product();
    return;
  }
  const value x = activation(0, true, kViews);
  const auto w = weights(1);
  fconv op = dense(x, *w, false);
  const auto outs = static_cast<std::size_t>(op.out_channels);
  const std::size_t k = w->values.size() / outs;
  op.weights = rows_of<float>(finite(w->values, "the weights"), k, outs, false);
  op.bias.assign(outs, 0.0F);
  if (w->q) integers_of(*w, op, k, false);
  result(emit_dense(x, std::move(op)));
}

}  // namespace latchkey::model
