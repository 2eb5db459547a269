#include "host_parts.hpp"

#include <fmt/format.h>

#include <cstring>

#include "latchkey/error.hpp"

namespace latchkey {

HostParts::Input HostParts::prepare(std::span<const std::uint8_t> images, std::size_t count,
                                    const ImageFormat& format) const {
  const fallback::host_graph& g = *head_;
  const auto values = static_cast<std::size_t>(fallback::elements(g.input_dims));
  const bool bytes = format.type == ImageFormat::Type::u8;
  const std::size_t image_bytes = values * (bytes ? 1 : 4);
  if (format.order != ImageFormat::Order::nchw) {
    throw error(errc::usage,
                fmt::format("input '{}' goes through the model's own first operators on the host: "
                            "give the images as the model's input lies, {}",
                            g.input, fallback::text(g.input_dims)));
  }
  if (count == 0 || images.size() != count * image_bytes) {
    throw error(
        errc::usage,
        fmt::format("input '{}' takes {} values = {} bytes per image; {} bytes were given "
                    "for {} images",
                    g.input, fallback::text(g.input_dims), image_bytes, images.size(), count));
  }
  Input out{{}, {ImageFormat::Type::f32}, {}};
  for (std::size_t i = 0; i < count; ++i) {
    fallback::tensor t{g.input_type, g.input_dims, std::vector<double>(values)};
    for (std::size_t j = 0; j < values; ++j) {
      const std::uint8_t* at = &images[i * image_bytes + j * (bytes ? 1 : 4)];
      float f = 0;
      if (bytes) {
        // Integers are what they are; a real value follows from the format.
        f = g.input_type == fallback::element::f32
                ? static_cast<float>(*at) * format.mul + format.add
                : static_cast<float>(*at);
      } else {
        std::memcpy(&f, at, 4);
      }
      t.values[j] = static_cast<double>(f);
    }
    const auto result = fallback::run(g, std::move(t));
    for (const double v : result.at(0).values) {
      const auto f = static_cast<float>(v);
      const std::size_t at = out.held.size();
      out.held.resize(at + 4);
      std::memcpy(&out.held[at], &f, 4);
    }
  }
  out.images = out.held;
  return out;
}

std::vector<OutputTensor> HostParts::finish(std::span<const std::uint8_t> records,
                                            std::size_t count) const {
  const fallback::host_graph& g = *tail_;
  const std::size_t plane = std::size_t{output_.layout.h} * output_.layout.w;
  const std::size_t channels = output_.layout.c;
  std::vector<OutputTensor> out(g.outputs.size());
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint8_t* record = &records[i * plane * channels];
    fallback::tensor t{g.input_type, g.input_dims, std::vector<double>(plane * channels)};
    for (std::size_t c = 0; c < channels; ++c) {
      for (std::size_t p = 0; p < plane; ++p) {
        const int q = record[p * channels + c];
        t.values[output_.channels_last ? p * channels + c : c * plane + p] =
            output_.type == compiler::element::f32
                ? static_cast<double>(output_.scale * static_cast<float>(q - output_.zero_point))
                : q - (output_.type == compiler::element::i8 ? 128 : 0);
      }
    }
    auto results = fallback::run(g, std::move(t));
    for (std::size_t o = 0; o < out.size(); ++o) {
      const fallback::tensor& r = results[o];
      OutputTensor& to = out[o];
      if (i == 0) {
        to.name = g.outputs[o];
        to.type = fallback::name_of(r.type);
        to.shape = r.dims;
        if (to.shape.empty() || to.shape[0] != 1) to.shape.insert(to.shape.begin(), 1);
        to.shape[0] = static_cast<std::int64_t>(count);
      }
      for (const double v : r.values) to.values.push_back(static_cast<float>(v));
    }
  }
  return out;
}

}  // namespace latchkey
