#include "model/partition.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>

#include "latchkey/error.hpp"
#include "model/host_node.hpp"
#include "model/importer.hpp"

namespace latchkey::model {
namespace {

using nodes = std::set<int>;

class partitioner {
 public:
  partitioner(const pb::ModelProto& model, const std::string& file) : model_(model), file_(file) {
    const pb::GraphProto& g = model_.graph();
    for (int i = 0; i < g.node_size(); ++i) {
      for (const std::string& o : g.node(i).output()) writer_[o] = i;
      for (const std::string& in : g.node(i).input()) readers_[in].push_back(i);
    }
    std::set<std::string> stored;
    for (const auto& t : g.initializer()) stored.insert(t.name());
    for (const auto& in : g.input()) {
      if (stored.count(in.name()) == 0) inputs_.push_back(&in);
    }
    for (const auto& set : model_.opset_import()) {
      if (set.domain().empty() || set.domain() == "ai.onnx") {
        opset_ = static_cast<int>(std::clamp<std::int64_t>(set.version(), 0, 1000000));
      }
    }
  }

  network run() {
    if (inputs_.size() != 1 || model_.graph().output_size() < 1) {
      throw error(errc::unsupported_model,
                  format("{}: {} inputs and {} outputs; a model with parts on the host has one "
                         "input and at least one output",
                         file_, inputs_.size(), model_.graph().output_size()));
    }
    constants_ = importer(model_, file_, options_).fold_all();
    for (const auto& o : model_.graph().output()) {
      if (writer_.count(o.name()) == 0) {
        throw error(errc::bad_file, format("{}: output '{}' is given by no node; the file is "
                                           "damaged",
                                           file_, o.name()));
      }
      for (const int n : with_ancestors(writer_.at(o.name()))) live_.insert(n);
    }
    for (;;) {
      network out;
      settle_tail();
      if (!head_.empty()) out.head = head();
      importer on_card(card(out.head), file_, options_, constants_);
      try {
        out.card = on_card.run();
      } catch (const unsupported_nodes& e) {
        constants_.merge(on_card.known_constants());  // what follows from a head's shapes
        move(e);
        continue;
      }
      if (!tail_.empty()) out.tail = tail(out.card.output);
      if (!fixed_batch()) check_batch(out);
      return out;
    }
  }

 private:
  const pb::NodeProto& node(int n) const { return model_.graph().node(n); }

  bool on_host(int n) const {
    const auto& d = node(n).domain();
    return (d.empty() || d == "ai.onnx") &&
           (fallback::supports(node(n).op_type()) || mean_of_bins(n));
  }
  /// The value is known: nobody computes it.
  bool constant(int n) const {
    return node(n).output_size() > 0 && constants_.count(node(n).output(0)) > 0;
  }
  /// A convolution that gives the mean of 0, 1, 2, ... by their probabilities: its weights tell
  /// nothing of the training.
  bool mean_of_bins(int n) const {
    const pb::NodeProto& p = node(n);
    if (p.op_type() != "Conv" || p.input_size() != 2) return false;
    const auto w = constants_.find(p.input(1));
    if (w == constants_.end()) return false;
    const auto& bins = w->second->values;
    for (std::size_t i = 0; i < bins.size(); ++i) {
      if (bins[i] != static_cast<double>(i)) return false;
    }
    const auto plain = [](const pb::AttributeProto& a) {
      const std::int64_t usual = a.name() == "pads" ? 0 : 1;
      return a.name() != "auto_pad" &&
             std::count(a.ints().begin(), a.ints().end(), usual) == a.ints_size();
    };
    return w->second->dims == std::vector<std::int64_t>{1, std::ssize(bins), 1, 1} &&
           std::all_of(p.attribute().begin(), p.attribute().end(), plain);
  }

  template <typename Next>
  nodes closure(int from, Next next) const {
    nodes seen{from};
    std::vector<int> reached{from};
    while (!reached.empty()) {
      const int n = reached.back();
      reached.pop_back();
      next(n, [&](int m) {
        if (!constant(m) && seen.insert(m).second) reached.push_back(m);
      });
    }
    return seen;
  }
  nodes with_ancestors(int n) const {
    return closure(n, [&](int m, auto visit) {
      for (const std::string& in : node(m).input()) {
        if (const auto w = writer_.find(in); w != writer_.end()) visit(w->second);
      }
    });
  }
  nodes with_descendants(int n) const {
    return closure(n, [&](int m, auto visit) {
      for (const std::string& o : node(m).output()) {
        if (const auto r = readers_.find(o); r != readers_.end()) {
          for (const int reader : r->second) {
            if (live_.count(reader) > 0) visit(reader);
          }
        }
      }
    });
  }
  bool all_on_host(const nodes& set) const {
    return std::all_of(set.begin(), set.end(), [&](int n) { return on_host(n); });
  }

  /// Moves what the importer refused to the host, or refuses it for good.
  void move(const unsupported_nodes& refused) {
    std::vector<unsupported_nodes::item> final;
    for (const auto& item : refused.items()) {
      const int n = card_nodes_.at(static_cast<std::size_t>(item.node));
      if (head_.count(n) > 0 || tail_.count(n) > 0) continue;  // Moved with one before it.
      const nodes before = with_ancestors(n);
      const nodes behind = with_descendants(n);
      if (!on_host(n)) {
        final.push_back({n, item.message + "; nor does the host run it"});
      } else if (all_on_host(before) && !all_on_host(behind)) {
        head_.insert(before.begin(), before.end());
      } else if (all_on_host(behind) && !all_on_host(before)) {
        tail_.insert(behind.begin(), behind.end());
      } else if (all_on_host(behind)) {
        final.push_back({n, item.message + "; and no layer is left for the card"});
      } else {
        final.push_back(
            {n, item.message +
                    "; it cannot go to the host, because layers before and behind it run on the "
                    "card: their intermediate activations never leave the chip"});
      }
    }
    if (!final.empty()) throw unsupported_nodes(file_, std::move(final));
  }

  /// Tensors that the card computes and that the tail or the model's user reads.
  std::set<std::string> card_results() const {
    std::set<std::string> out;
    const auto from_card = [&](const std::string& name) {
      const auto w = writer_.find(name);
      return !name.empty() && constants_.count(name) == 0 &&
             (w == writer_.end() || tail_.count(w->second) == 0);
    };
    for (const int n : tail_) {
      for (const std::string& in : node(n).input()) {
        if (from_card(in)) out.insert(in);
      }
    }
    for (const auto& o : model_.graph().output()) {
      if (from_card(o.name())) out.insert(o.name());
    }
    return out;
  }

  /// Grows the tail until the card has one result.
  void settle_tail() {
    for (;;) {
      const auto results = card_results();
      if (results.size() == 1) {
        result_ = *results.begin();
        if (writer_.count(result_) == 0 || head_.count(writer_.at(result_)) > 0) {
          throw error(errc::unsupported_model,
                      format("{}: no layer is left for the card: '{}' goes from the head to the "
                             "tail; run this model on the host alone",
                             file_, result_));
        }
        return;
      }
      int last = -1;
      for (const std::string& name : results) {
        if (const auto w = writer_.find(name); w != writer_.end()) last = std::max(last, w->second);
      }
      if (last < 0 || !on_host(last) || head_.count(last) > 0) {
        std::string names;
        for (const std::string& name : results) names += (names.empty() ? "'" : ", '") + name + "'";
        throw error(errc::unsupported_model,
                    format("{}: {} tensors would leave the card ({}), exactly one can; cut the "
                           "model so that every output follows from one tensor, or compile one "
                           "model for each",
                           file_, results.size(), names));
      }
      tail_.insert(last);
    }
  }

  bool fixed_batch() const {
    const auto& shape = inputs_[0]->type().tensor_type().shape();
    return shape.dim_size() > 0 && shape.dim(0).has_dim_value() && shape.dim(0).dim_value() == 1;
  }

  /// The value of a name for kBatches[batch] images; none if it is not known.
  std::optional<fallback::tensor> known(const std::string& name, std::size_t batch) const {
    const auto found = constants_.find(name);
    if (found == constants_.end()) return {};
    const struct constant& c = *found->second;
    fallback::tensor t{element_of(c.type, format("{}: constant '{}'", file_, name)), c.dims,
                       c.by_batch.empty() ? c.values : c.by_batch[batch]};
    for (const double v : t.values) {
      if (!std::isfinite(v)) {
        throw error(errc::unsupported_model,
                    format("{}: constant '{}' of the part that runs on the host holds {}; train "
                           "or export the model again",
                           file_, name, v));
      }
    }
    return t;
  }

  fallback::host_graph part(const nodes& which, const std::string& input,
                            std::size_t batch = 0) const {
    fallback::host_graph g;
    g.opset = opset_;
    g.input = input;
    for (const int n : which) {
      for (const std::string& in : node(n).input()) {
        if (auto c = known(in, batch)) g.constants.insert_or_assign(in, *std::move(c));
      }
      fallback::node f = host_node(node(n), n, file_);
      if (mean_of_bins(n)) {
        const std::string products = f.outputs[0] + " products";
        g.nodes.push_back({f.name, "Mul", std::exchange(f.inputs, {products}), {products}});
        f.op = "ReduceSum";
        f.attributes = {{"axes", {1}}};
      }
      g.nodes.push_back(std::move(f));
    }
    return g;
  }

  /// Runs a host part on zeros, which finds everything that the executor refuses.
  void prove(const fallback::host_graph& g) const {
    if (g.nodes.size() > fallback::kMaxNodes) {
      throw error(errc::unsupported_model, format("{}: {} nodes would run on the host, at most {} "
                                                  "can",
                                                  file_, g.nodes.size(), fallback::kMaxNodes));
    }
    try {
      fallback::report(g);
    } catch (const error& e) {
      throw error(errc::unsupported_model, format("{}: on the host: {}", file_, e.what()));
    }
  }

  fallback::host_graph head() const {
    const pb::ValueInfoProto& in = *inputs_[0];
    fallback::host_graph g = part(head_, in.name());
    const auto& type = in.type().tensor_type();
    g.input_type = element_of(type.elem_type(), format("{}: input '{}'", file_, in.name()));
    g.input_dims = {1};
    for (int i = 1; i < type.shape().dim_size(); ++i) {
      const auto& d = type.shape().dim(i);
      if (!d.has_dim_value() || d.dim_value() < 1 || d.dim_value() > kMaxDim) {
        throw error(errc::unsupported_model,
                    format("{}: input '{}': dimension {} is open, only the batch may be; export "
                           "the model with a fixed size",
                           file_, in.name(), i));
      }
      g.input_dims.push_back(d.dim_value());
    }
    // What the card reads: one tensor of the head, and not the input itself.
    std::set<std::string> read;
    for (const int n : live_) {
      if (head_.count(n) > 0 || tail_.count(n) > 0 || constant(n)) continue;
      for (const std::string& i : node(n).input()) {
        const auto w = writer_.find(i);
        if (i == in.name() || (w != writer_.end() && head_.count(w->second) > 0)) read.insert(i);
      }
    }
    if (read.size() != 1) {
      throw error(errc::unsupported_model,
                  format("{}: the card would read {} tensors from the host, exactly one can be; "
                         "let all layers start from one tensor",
                         file_, read.size()));
    }
    for (const int n : tail_) {
      for (const std::string& i : node(n).input()) {
        const auto w = writer_.find(i);
        if (i == in.name() || (w != writer_.end() && head_.count(w->second) > 0)) {
          throw error(errc::unsupported_model,
                      format("{}: {} reads '{}' of the head past the card; a tail reads the card's "
                             "output only",
                             file_, describe(n), i));
        }
      }
    }
    g.outputs = {*read.begin()};
    prove(g);
    return g;
  }

  std::string describe(int n) const {
    return format("node '{}' ({})", node(n).name(), node(n).op_type());
  }

  fallback::host_graph tail(const io_spec& from) const {
    fallback::host_graph g = part(tail_, result_);
    g.input_type = element_of(from.type);
    g.input_dims = {1};
    g.input_dims.insert(g.input_dims.end(), from.dims.begin(), from.dims.end());
    for (const auto& o : model_.graph().output()) g.outputs.push_back(o.name());
    prove(g);
    return g;
  }

  /// The model without head and tail, kept until the next call.
  const pb::ModelProto& card(const std::optional<fallback::host_graph>& head) {
    card_ = model_;
    card_nodes_.clear();
    pb::GraphProto& g = *card_.mutable_graph();
    g.clear_node();
    for (int i = 0; i < model_.graph().node_size(); ++i) {
      if (head_.count(i) > 0 || tail_.count(i) > 0 || constant(i)) continue;
      *g.add_node() = node(i);
      card_nodes_.push_back(i);
    }
    g.clear_output();
    g.add_output()->set_name(result_);
    if (!head) return card_;
    const fallback::tensor t = fallback::run(*head, fallback::zeros(*head)).at(0);
    if (t.type != fallback::element::f32) {
      throw error(errc::unsupported_model,
                  format("{}: the host would hand '{}' of type {} to the card; end the first "
                         "operators with a Cast to float32",
                         file_, head->outputs[0], fallback::name_of(t.type)));
    }
    for (auto& in : *g.mutable_input()) {
      if (in.name() != inputs_[0]->name()) continue;
      const auto batch = in.type().tensor_type().shape().dim(0);
      in.set_name(head->outputs[0]);
      auto& type = *in.mutable_type()->mutable_tensor_type();
      type.set_elem_type(pb::TensorProto::FLOAT);
      type.clear_shape();
      *type.mutable_shape()->add_dim() = batch;
      for (std::size_t i = 1; i < t.dims.size(); ++i) {
        type.mutable_shape()->add_dim()->set_dim_value(t.dims[i]);
      }
    }
    return card_;
  }

  /// Two images together must give what they give one by one, or the batch is not a batch.
  void check_batch(const network& out) const {
    static_assert(kBatches[1] == 2);
    for (const auto& [g, which] : {std::pair{out.head ? &*out.head : nullptr, &head_},
                                   std::pair{out.tail ? &*out.tail : nullptr, &tail_}}) {
      if (!g) continue;
      bool apart = true;
      try {
        std::mt19937 rng(1);
        fallback::host_graph of_two = *g;
        of_two.constants = part(*which, g->input, 1).constants;
        fallback::tensor both = fallback::zeros(of_two, 2);
        for (double& v : both.values) v = static_cast<double>(1 + rng() % 100);
        const auto half = static_cast<std::ptrdiff_t>(both.values.size() / 2);
        const auto together = fallback::run(of_two, both);
        std::vector<std::vector<fallback::tensor>> single;
        for (const std::ptrdiff_t i : {std::ptrdiff_t{0}, half}) {
          fallback::tensor one = fallback::zeros(*g);
          one.values.assign(both.values.begin() + i, both.values.begin() + i + half);
          single.push_back(fallback::run(*g, std::move(one)));
        }
        for (std::size_t o = 0; o < together.size(); ++o) {
          std::vector<double> joined = single[0][o].values;
          joined.insert(joined.end(), single[1][o].values.begin(), single[1][o].values.end());
          const auto& dims = together[o].dims;
          apart = apart && joined == together[o].values && !dims.empty() && dims[0] == 2;
        }
      } catch (const error&) {
        apart = false;
      }
      if (!apart) {
        throw error(errc::unsupported_model,
                    format("{}: the part on the host from '{}' mixes the images of a batch or "
                           "holds its size; export the model with a batch of 1",
                           file_, g->input));
      }
    }
  }

  const pb::ModelProto& model_;
  std::string file_;
  pb::ModelProto card_;
  std::vector<int> card_nodes_;  ///< Index in the model of each node of card_.
  std::unordered_map<std::string, int> writer_;
  std::unordered_map<std::string, std::vector<int>> readers_;
  importer::constants constants_;
  import_options options_{{}, {}, true};
  std::vector<const pb::ValueInfoProto*> inputs_;
  int opset_ = 0;
  nodes live_, head_, tail_;
  std::string result_;  ///< What the card writes.
};

network split(const std::string& bytes, const std::string& name, const import_options& given) {
  pb::ModelProto model;
  parse(bytes, model);  // import_onnx() has read it before.
  // Sizes that the file leaves open: those of the one input that is no weight.
  for (auto& input : *model.mutable_graph()->mutable_input()) {
    const auto& weights = model.graph().initializer();
    if (std::any_of(weights.begin(), weights.end(),
                    [&](const auto& w) { return w.name() == input.name(); })) {
      continue;
    }
    auto& shape = *input.mutable_type()->mutable_tensor_type()->mutable_shape();
    if (shape.dim_size() != static_cast<int>(given.input_shape.size()) + 1) continue;
    for (int i = 1; i < shape.dim_size(); ++i) {
      shape.mutable_dim(i)->set_dim_value(given.input_shape[static_cast<std::size_t>(i) - 1]);
    }
  }
  return partitioner(model, name).run();
}

}  // namespace

network import_network(const std::string& bytes, const std::string& name, bool host_fallback,
                       const import_options& given) {
  import_options options = given;
  options.exact_output = host_fallback;
  try {
    return {import_onnx(bytes, name, options), {}, {}};
  } catch (const error& e) {
    if (e.code() != errc::unsupported_model) throw;
    if (host_fallback) return split(bytes, name, given);
    std::string on_host;
    try {
      const network n = split(bytes, name, given);
      for (const auto* g : {n.head ? &*n.head : nullptr, n.tail ? &*n.tail : nullptr}) {
        if (!g) continue;
        for (const auto& f : g->nodes) on_host += (on_host.empty() ? "" : ", ") + f.op;
      }
    } catch (const error&) {
      throw e;  // Nor would the option help.
    }
    throw error(e.code(),
                format("{}; or let the host run {} in float: --host-fallback", e.what(), on_host));
  }
}

network import_network(const std::filesystem::path& file, bool host_fallback,
                       const import_options& options) {
  return import_network(read_file(file), file.string(), host_fallback, options);
}

std::vector<float> run_head(const fallback::host_graph& head, std::span<const float> image) {
  fallback::tensor t{head.input_type, head.input_dims, {image.begin(), image.end()}};
  const auto out = fallback::run(head, std::move(t));
  return {out.at(0).values.begin(), out.at(0).values.end()};
}

std::vector<fallback::tensor> run_tail(const fallback::host_graph& tail,
                                       std::span<const float> output) {
  return fallback::run(tail, {tail.input_type, tail.input_dims, {output.begin(), output.end()}});
}

}  // namespace latchkey::model
