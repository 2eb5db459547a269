#include "compiler/program.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "latchkey/error.hpp"

namespace latchkey::compiler {
namespace {

using nlohmann::json;

constexpr std::uint32_t word_bytes = spec::beat_bytes;
constexpr std::size_t preamble_bytes = 32;
constexpr std::size_t digest_bytes = 32;
constexpr char magic[] = "LKMP";

[[noreturn]] void bad(const std::string& what, const std::string& message) {
  throw error(errc::bad_file, what + ": " + message);
}

/// A field of a JSON object, checked for type and range.
template <typename T>
T get(const json& object, const char* key, const std::string& what,
      T lo = std::numeric_limits<T>::min(), T hi = std::numeric_limits<T>::max()) {
  const auto it = object.find(key);
  if (it == object.end()) bad(what, std::string("field '") + key + "' is missing");
  if (it->is_number_unsigned()) {
    if (const auto v = it->get<std::uint64_t>(); v <= static_cast<std::uint64_t>(hi)) {
      if (lo <= 0 || v >= static_cast<std::uint64_t>(lo)) return static_cast<T>(v);
    }
  } else if (it->is_number_integer() && std::numeric_limits<T>::is_signed) {
    if (const auto v = it->get<std::int64_t>(); v >= static_cast<std::int64_t>(lo))
      return static_cast<T>(v);
  }
  bad(what, std::string("field '") + key + "' is not a whole number from " + std::to_string(lo) +
                " to " + std::to_string(hi));
}

std::string get_string(const json& object, const char* key, const std::string& what) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_string())
    bad(what, std::string("field '") + key + "' is missing or not a text");
  return it->get<std::string>();
}

const json& get_object(const json& object, const char* key, const std::string& what) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_object())
    bad(what, std::string("field '") + key + "' is missing or not an object");
  return *it;
}

const json& get_array(const json& object, const char* key, const std::string& what) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_array())
    bad(what, std::string("field '") + key + "' is missing or not a list");
  return *it;
}

std::vector<std::int64_t> get_shape(const json& object, const std::string& what) {
  std::vector<std::int64_t> shape;
  for (const json& d : get_array(object, "shape", what)) {
    if (!d.is_number_unsigned() || d.get<std::uint64_t>() > 0x7fffffff)
      bad(what, "field 'shape' holds something that is no size");
    shape.push_back(d.get<std::int64_t>());
  }
  return shape;
}

constexpr const char* element_names[] = {"f32", "u8", "i8"};

json to_json(const io_tensor& t) {
  json j{{"name", t.name},
         {"type", element_names[static_cast<int>(t.type)]},
         {"shape", t.shape},
         {"scale", t.scale},
         {"zero_point", t.zero_point},
         {"layout",
          {{"order", "NHWC, channel blocks"},
           {"height", t.layout.h},
           {"width", t.layout.w},
           {"channels", t.layout.c},
           {"blocks", t.layout.cb},
           {"block_bytes_log2", t.layout.cp_log2},
           {"last_block_channels", t.layout.c_last},
           {"words", t.layout.words}}}};
  if (t.channels_last) j["channels_last"] = true;
  return j;
}

io_tensor tensor_from_json(const json& j, const std::string& what) {
  io_tensor t;
  t.name = get_string(j, "name", what);
  const std::string type = get_string(j, "type", what);
  const auto* const found = std::find(std::begin(element_names), std::end(element_names), type);
  if (found == std::end(element_names)) bad(what, "type '" + type + "' is not f32, u8 or i8");
  t.type = static_cast<element>(found - std::begin(element_names));
  t.shape = get_shape(j, what);
  if (const auto last = j.find("channels_last"); last != j.end()) {
    if (!last->is_boolean()) bad(what, "field 'channels_last' is no true or false");
    t.channels_last = last->get<bool>();
  }
  const auto scale = j.find("scale");
  if (scale == j.end() || !scale->is_number()) bad(what, "field 'scale' is missing or no number");
  t.scale = scale->get<float>();
  if (!(t.scale > 0) || !std::isfinite(t.scale)) bad(what, "field 'scale' is not positive");
  t.zero_point = get<std::uint8_t>(j, "zero_point", what);
  const json& l = get_object(j, "layout", what);
  const std::string where = what + ", layout";
  t.layout = tensor_layout::of(get<std::uint32_t>(l, "height", where, 1, 0xffff),
                               get<std::uint32_t>(l, "width", where, 1, 0xffff),
                               get<std::uint32_t>(l, "channels", where, 1, 64 * 0xffff));
  if (get<std::uint32_t>(l, "blocks", where) != t.layout.cb ||
      get<std::uint32_t>(l, "block_bytes_log2", where) != t.layout.cp_log2 ||
      get<std::uint32_t>(l, "last_block_channels", where) != t.layout.c_last ||
      get<std::uint32_t>(l, "words", where) != t.layout.words)
    bad(where, "blocks, block bytes or words do not follow from height, width and channels");
  std::uint64_t elements = 1;
  for (const std::int64_t d : t.shape) elements = std::min(elements * d, std::uint64_t{1} << 60);
  if (elements != std::uint64_t{t.layout.h} * t.layout.w * t.layout.c)
    bad(what, "shape and layout have different numbers of elements");
  return t;
}

/// Head and tail, which have to fit the card's input and output.
void read_host_parts(const json& j, const std::string& what, program& p) {
  p.head.reset();
  p.tail.reset();
  const auto edge = [](const io_tensor& t) {
    fallback::shape dims{1};
    dims.insert(dims.end(), t.shape.begin(), t.shape.end());
    return std::pair(dims, std::string(element_names[static_cast<int>(t.type)]));
  };
  if (const auto head = j.find("head"); head != j.end()) {
    p.head = fallback::from_json(*head, what + ", head");
    const auto r = fallback::run(*p.head, fallback::zeros(*p.head));
    if (r.size() != 1 || p.input.type != element::f32 ||
        std::pair(r[0].dims, std::string(fallback::name_of(r[0].type))) != edge(p.input)) {
      bad(what + ", head", "does not give what the card's input takes");
    }
  }
  if (const auto tail = j.find("tail"); tail != j.end()) {
    p.tail = fallback::from_json(*tail, what + ", tail");
    if (std::pair(p.tail->input_dims, std::string(fallback::name_of(p.tail->input_type))) !=
        edge(p.output)) {
      bad(what + ", tail", "does not take what the card's output gives");
    }
  }
}

/// What lies in the spill area while a program's descriptors are read in order.
class spill_area {
 public:
  /// A Spill's tensor, over whatever its pages held. False beyond `room` pages.
  bool put(std::uint32_t page, std::uint32_t words, std::uint32_t batch, std::uint32_t room) {
    const std::uint64_t end = page + pages_for(words, batch);
    if (end > room) return false;
    std::erase_if(tensors_, [&](const tensor& t) { return t.page < end && page < t.end; });
    tensors_.push_back({page, end, words});
    pages_ = std::max(pages_, end);
    return true;
  }
  /// Whether a whole tensor of that size begins at the page.
  bool holds(std::uint32_t page, std::uint32_t words) const {
    return std::any_of(tensors_.begin(), tensors_.end(),
                       [&](const tensor& t) { return t.page == page && t.words == words; });
  }
  std::uint64_t pages() const { return pages_; }

 private:
  struct tensor {
    std::uint64_t page, end;
    std::uint32_t words;
  };
  std::vector<tensor> tensors_;
  std::uint64_t pages_ = 0;
};

/// Bytes of an h x w x cb x 2^cp_log2 image.
std::uint64_t image_bytes(std::uint32_t h, std::uint32_t w, std::uint32_t cb, std::uint32_t cp) {
  return (std::uint64_t{h} * w * cb) << cp;
}

}  // namespace

tensor_layout tensor_layout::of(std::uint32_t h, std::uint32_t w, std::uint32_t c) {
  if (h == 0 || w == 0 || c == 0 || h > 0xffff || w > 0xffff || c > 64 * 0xffffu) {
    throw error(errc::unsupported_model,
                "a tensor of " + std::to_string(h) + "x" + std::to_string(w) + "x" +
                    std::to_string(c) +
                    " (HxWxC): height and width must be 1..65535, channels "
                    "1..4194240");
  }
  tensor_layout l;
  l.h = h;
  l.w = w;
  l.c = c;
  if (c > 32) {
    l.cp_log2 = 6;
    l.cb = (c + 63) / 64;
    l.c_last = c - 64 * (l.cb - 1);
  } else {
    l.cb = 1;
    l.c_last = c;
    while ((1u << l.cp_log2) < c) ++l.cp_log2;
  }
  const std::uint64_t words = (image_bytes(h, w, l.cb, l.cp_log2) + word_bytes - 1) / word_bytes;
  if (words > 0xffffffffu) {
    throw error(errc::unsupported_model, "a tensor of " + std::to_string(words) +
                                             " words does not fit 32-bit word addresses");
  }
  l.words = static_cast<std::uint32_t>(words);
  return l;
}

io::bytes tensor_layout::pack(io::byte_view values) const {
  if (values.size() != std::size_t{h} * w * c) {
    throw error(errc::usage, "an image of " + std::to_string(values.size()) + " values for a " +
                                 std::to_string(h) + "x" + std::to_string(w) + "x" +
                                 std::to_string(c) + " (HxWxC) tensor");
  }
  io::bytes image(std::size_t{words} * word_bytes);
  std::size_t i = 0;
  for (std::uint32_t ch = 0; ch < c; ++ch)
    for (std::uint32_t y = 0; y < h; ++y)
      for (std::uint32_t x = 0; x < w; ++x)
        image[offset(y, x, ch)] = static_cast<std::uint8_t>(values[i++] ^ 0x80);
  return image;
}

io::bytes tensor_layout::unpack(io::byte_view image) const {
  if (image.size() < std::size_t{words} * word_bytes)
    throw error(errc::usage, "an image buffer shorter than the layout's words");
  io::bytes values(std::size_t{h} * w * c);
  std::size_t i = 0;
  for (std::uint32_t ch = 0; ch < c; ++ch)
    for (std::uint32_t y = 0; y < h; ++y)
      for (std::uint32_t x = 0; x < w; ++x)
        values[i++] = static_cast<std::uint8_t>(image[offset(y, x, ch)] ^ 0x80);
  return values;
}

std::uint64_t program::macs() const {
  std::uint64_t sum = 0;
  for (const layer_report& l : layers) sum += l.macs;
  return sum;
}

std::uint64_t program::counted_macs() const {
  std::uint64_t sum = 0;
  for (const layer_report& l : layers) sum += l.macs + l.zero_macs;
  return sum;
}

std::uint64_t program::host_macs() const {
  return (head ? fallback::macs(*head) : 0) + (tail ? fallback::macs(*tail) : 0);
}

json to_json(const program& p, bool with_layers) {
  json regions = json::array();
  for (const page_region& r : p.regions)
    regions.push_back({{"region", r.region}, {"first", r.first}, {"count", r.count}});
  json j = {{"format", spec::format_version},
            {"model", p.name},
            {"target",
             {{"array_n", p.target.array_n},
              {"spad_words", p.target.spad_words},
              {"config_id", p.target.config_id()}}},
            {"max_batch", p.max_batch},
            {"peak_words", p.peak_words},
            {"num_descriptors", p.descriptors.size()},
            {"num_pages", p.num_pages()},
            {"regions", std::move(regions)},
            {"input", to_json(p.input)},
            {"output", to_json(p.output)}};
  if (with_layers) {
    json layers = json::array();
    for (const layer_report& l : p.layers) {
      layers.push_back({{"name", l.name},
                        {"op", l.op},
                        {"shape", l.shape},
                        {"macs", l.macs},
                        {"weight_bytes", l.weight_bytes},
                        {"pages", l.pages},
                        {"words", l.words}});
      if (l.zero_macs != 0) layers.back()["zero_macs"] = l.zero_macs;
    }
    j["layers"] = std::move(layers);
  }
  if (p.spill_pages != 0) j["spill_pages"] = p.spill_pages;
  if (p.head) j["head"] = fallback::to_json(*p.head);
  if (p.tail) j["tail"] = fallback::to_json(*p.tail);
  return j;
}

void from_json(const json& j, const std::string& what, program& p) {
  if (const auto f = get<std::uint32_t>(j, "format", what); f != spec::format_version) {
    bad(what, "format " + std::to_string(f) + " is not the " +
                  std::to_string(spec::format_version) + " that this version reads");
  }
  p.name = get_string(j, "model", what);
  const json& t = get_object(j, "target", what);
  p.target.array_n = get<std::uint32_t>(t, "array_n", what + ", target");
  p.target.spad_words = get<std::uint32_t>(t, "spad_words", what + ", target");
  if (get<std::uint32_t>(t, "config_id", what + ", target") != p.target.config_id())
    bad(what, "config_id does not follow from the target; made for other formats than these");
  p.max_batch = get<std::uint32_t>(j, "max_batch", what);
  p.peak_words = get<std::uint32_t>(j, "peak_words", what);
  p.spill_pages = j.contains("spill_pages")
                      ? get<std::uint32_t>(j, "spill_pages", what, 1, spec::max_spill_pages)
                      : 0;
  p.regions.clear();
  for (const json& r : get_array(j, "regions", what)) {
    const std::string where = what + ", regions";
    if (!r.is_object()) bad(where, "an entry is not an object");
    p.regions.push_back({get<std::uint32_t>(r, "region", where, 0, 0xffff),
                         get<std::uint32_t>(r, "first", where),
                         get<std::uint32_t>(r, "count", where, 1)});
  }
  p.input = tensor_from_json(get_object(j, "input", what), what + ", input");
  p.output = tensor_from_json(get_object(j, "output", what), what + ", output");
  read_host_parts(j, what, p);
  p.layers.clear();
  if (!j.contains("layers")) return;
  for (const json& l : get_array(j, "layers", what)) {
    const std::string where = what + ", layers";
    if (!l.is_object()) bad(where, "an entry is not an object");
    p.layers.push_back(
        {get_string(l, "name", where), get_string(l, "op", where), get_shape(l, where),
         get<std::uint64_t>(l, "macs", where), get<std::uint64_t>(l, "weight_bytes", where),
         get<std::uint32_t>(l, "pages", where), get<std::uint32_t>(l, "words", where),
         l.contains("zero_macs") ? get<std::uint64_t>(l, "zero_macs", where) : 0});
  }
}

spec::descriptor matmul_half(spec::descriptor d) {
  d.fuse_dw = 0;
  d.out_h = d.mid_h;
  d.out_w = d.mid_w;
  d.clamp_lo = d.mid_lo;
  d.clamp_hi = d.mid_hi;
  d.out_zero = d.mid_zero;
  if (d.dw_pairs != 0) {
    d.out_cb = d.n_tiles;
    d.out_cp_log2 = 6;
    d.out_c_last = 64;
  }
  return d;
}

spec::descriptor depthwise_half(spec::descriptor d) {
  if (d.dw_pairs != 0) {
    d.out_cb = d.n_tiles;
    d.out_cp_log2 = d.dw_stride_x == 1 ? 6 : 5;
    d.out_c_last = 1u << d.out_cp_log2;
    d.dw_stride_x = 1;
  }
  d.in_h = d.mid_h;
  d.in_w = d.mid_w;
  d.in_cb = d.out_cb;
  d.in_cp_log2 = d.out_cp_log2;
  d.in_c_last = d.out_c_last;
  d.kernel_h = d.dw_kernel_h;
  d.kernel_w = d.dw_kernel_w;
  d.stride_y = d.dw_stride_y;
  d.stride_x = d.dw_stride_x;
  d.pad_top = d.dw_pad_top;
  d.pad_left = d.dw_pad_left;
  d.pad_value = d.mid_zero;
  d.k_tiles = 1;
  return d;
}

bool fits_line_buffers(const spec::descriptor& d) {
  constexpr std::uint32_t side = 5, line = 512;  // lk_depthwise
  return d.kernel_h <= side && d.kernel_w <= side && d.in_w <= line &&
         std::uint64_t{d.out_w - 1} * d.stride_x + 1 <= line && d.kernel_h <= d.in_h + d.pad_top;
}

page_counts pages_of(const spec::descriptor& d) {
  const std::uint32_t table = d.fuse_table;
  switch (static_cast<spec::op>(d.op)) {
    case spec::op::mat_mul:
      if (d.fuse_dw != 0) return {2 * d.param_pages + d.n_tiles, d.n_tiles * d.k_tiles, true};
      return {table + d.param_pages, d.n_tiles * d.k_tiles, true};
    case spec::op::product:
      return {table + d.param_pages, 0, false};
    case spec::op::depthwise:
      return {d.param_pages, d.n_tiles, false};
    case spec::op::table:
    case spec::op::softmax:
    case spec::op::layer_norm:
    case spec::op::load:
      return {d.param_pages, 0, false};
    default:
      return {};
  }
}

std::uint64_t counted_macs(const spec::descriptor& d) {
  const std::uint64_t pixels = std::uint64_t{d.out_h} * d.out_w;
  const std::uint64_t window = std::uint64_t{d.kernel_h} * d.kernel_w;
  switch (static_cast<spec::op>(d.op)) {
    case spec::op::mat_mul: {
      const std::uint64_t sums = window * in_channels(d);
      if (d.fuse_dw == 0) return swept_rows(d) * sums * out_channels(d);
      return swept_rows(d) * sums * out_channels(matmul_half(d)) +
             pixels * d.dw_kernel_h * d.dw_kernel_w * out_channels(depthwise_half(d));
    }
    case spec::op::product:
      return pixels * d.heads * in_channels(d) * out_channels(d);
    case spec::op::depthwise:
      return pixels * window * out_channels(d);
    default:
      return 0;
  }
}

std::uint64_t swept_rows(const spec::descriptor& d) {
  return d.fuse_dw != 0 ? std::uint64_t{d.mid_h} * d.mid_w
                        : std::uint64_t{d.out_h} * d.out_w * image_slices(d);
}

std::vector<std::uint32_t> page_order(const spec::descriptor& d, std::uint32_t batch) {
  const page_counts of = pages_of(d);
  std::vector<std::uint32_t> order;
  const auto take = [&](std::uint32_t first, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) order.push_back(first + i);
  };
  const std::uint64_t rows = of.per_block ? batch * swept_rows(d) : 1;
  const std::uint64_t blocks = (rows + spec::acc_rows - 1) / spec::acc_rows;
  if (d.fuse_dw == 0) {
    take(0, of.once);
    for (std::uint64_t b = 0; b < blocks; ++b) take(of.once, of.tiles);
    return order;
  }
  take(0, 2 * d.param_pages);
  for (std::uint32_t n = 0; n < d.n_tiles; ++n) {
    take(2 * d.param_pages + n, 1);
    for (std::uint64_t b = 0; b < blocks; ++b) take(of.once + n * d.k_tiles, d.k_tiles);
  }
  return order;
}

std::vector<page_region> regions_of(const std::vector<spec::descriptor>& descriptors) {
  const auto per_page = spec::page_bytes / spec::desc_bytes;
  std::vector<page_region> regions{
      {0, 0, static_cast<std::uint32_t>((descriptors.size() + per_page - 1) / per_page)}};
  for (const spec::descriptor& d : descriptors) {
    const page_counts pages = pages_of(d);
    if (pages.once + pages.tiles > 0)
      regions.push_back({d.region, d.page_base, pages.once + pages.tiles});
  }
  return regions;
}

std::vector<spec::descriptor> read_descriptors(io::byte_view pages, const std::string& what) {
  std::vector<spec::descriptor> out;
  const std::size_t count = std::min<std::size_t>(pages.size() / spec::desc_bytes, spec::max_descs);
  for (std::size_t i = 0; i < count; ++i) {
    std::array<std::uint32_t, spec::desc_bytes / 4> w{};
    for (std::size_t k = 0; k < w.size(); ++k) {
      const std::uint8_t* b = &pages[i * spec::desc_bytes + 4 * k];
      w[k] = b[0] | b[1] << 8 | b[2] << 16 | static_cast<std::uint32_t>(b[3]) << 24;
    }
    out.push_back(spec::descriptor::unpack(w));
    if (out.back().pack() != w)
      bad(what, "descriptor " + std::to_string(i) + " has bits set that mean nothing");
    if (out.back().op == static_cast<std::uint32_t>(spec::op::end)) return out;
  }
  bad(what, "no End among the first " + std::to_string(count) + " descriptors");
}

void check(const program& p, const std::string& what) {
  const auto& n = p.target.array_n;
  if (n != 16 && n != 32 && n != 64)
    bad(what, "array_n is " + std::to_string(n) + ", not 16, 32 or 64");
  if (p.target.spad_words == 0 || p.target.spad_words > 1u << 26)
    bad(what, "spad_words is " + std::to_string(p.target.spad_words) + ", not 1..2^26");
  if (p.max_batch == 0 || p.max_batch > 256)
    bad(what, "max_batch is " + std::to_string(p.max_batch) + ", not 1..256");
  if (p.spill_pages > spec::max_spill_pages) {
    bad(what, "spill_pages is " + std::to_string(p.spill_pages) + ", not 0.." +
                  std::to_string(spec::max_spill_pages));
  }
  if (p.pages.size() % spec::page_bytes != 0 || p.pages.empty())
    bad(what, "the pages are not whole or there are none");
  const auto& ds = p.descriptors;
  if (ds.empty() || ds.size() > spec::max_descs ||
      ds.back().op != static_cast<std::uint32_t>(spec::op::end)) {
    bad(what, "there must be 1.." + std::to_string(spec::max_descs) +
                  " descriptors, the last of them End");
  }
  if (!p.layers.empty() && p.layers.size() != ds.size() - 1)
    bad(what, "the table of layers does not match the descriptors");
  for (std::size_t i = 0; i < p.layers.size(); ++i) {
    const layer_report& l = p.layers[i];
    if (l.macs + l.zero_macs != counted_macs(ds[i]))
      bad(what, "the products of layer '" + l.name + "' do not follow from its descriptor");
  }

  int inputs = 0, outputs = 0;
  spill_area spilled;
  for (std::size_t i = 0; i < ds.size(); ++i) {
    const spec::descriptor& d = ds[i];
    const auto fail = [&](const std::string& message) {
      bad(what, "descriptor " + std::to_string(i) + ": " + message);
    };
    const auto op = static_cast<spec::op>(d.op);
    const bool is_last = i + 1 == ds.size();
    if ((op == spec::op::end) != is_last) fail("End in the middle");
    if (is_last) break;
    const bool reads = op != spec::op::input && op != spec::op::load;
    const bool writes = op != spec::op::output && op != spec::op::spill;
    const bool sliced = d.slices != 0;
    // Strides of a product are those of a head, with slices those of a slice.
    const std::uint64_t wholes =
        std::uint64_t{p.max_batch} * (op == spec::op::product ? d.heads : 1);
    const std::uint64_t images = wholes * image_slices(d);
    // tail: words of the last stride that nothing touches.
    const auto tensor_of = [&](const char* which, std::uint64_t base, std::uint64_t stride,
                               std::uint64_t bytes, std::uint64_t count, std::uint64_t tail = 0) {
      const std::uint64_t need = (bytes + word_bytes - 1) / word_bytes;
      if (need == 0 || need > stride || base + stride * count > p.target.spad_words + tail)
        fail(std::string("the ") + which + " does not lie inside the scratchpad");
    };
    const auto tensor = [&](const char* which, std::uint64_t base, std::uint64_t stride,
                            std::uint64_t bytes) { tensor_of(which, base, stride, bytes, images); };
    // Of a constant, without a stride, every image reads the same words.
    const auto second = [&](std::uint64_t bytes) {
      const bool constant = d.in2_stride == 0;
      tensor_of("second input", d.in2_base,
                constant ? (bytes + word_bytes - 1) / word_bytes : d.in2_stride, bytes,
                constant ? 1 : images);
    };
    const auto blocks = [&](std::uint32_t cb, std::uint32_t cp, std::uint32_t last) {
      if (cb == 0 || cp > 6 || last == 0 || last > 1u << cp || (cp < 6 && cb != 1))
        fail("channel blocks are malformed");
      if (std::uint64_t{cb} << cp > spec::max_channels) fail("more channels than a pixel can have");
    };
    if (reads && op != spec::op::output) {
      blocks(d.in_cb, d.in_cp_log2, d.in_c_last);
      tensor("input", d.in_base, d.in_stride, image_bytes(d.in_h, d.in_w, d.in_cb, d.in_cp_log2));
    }
    if (d.fuse_dw != 0) {
      if (op != spec::op::mat_mul || d.fuse_add != 0 || d.fuse_table != 0 || d.out_planar != 0)
        fail("a depthwise convolution behind what cannot have one");
      if (d.dw_kernel_h == 0 || d.dw_kernel_w == 0 || d.dw_stride_y == 0 || d.dw_stride_x == 0 ||
          d.mid_h == 0 || d.mid_w == 0 || !fits_line_buffers(depthwise_half(d)))
        fail("the fused depthwise convolution does not fit its line buffers");
      if (d.dw_pad_top >= d.dw_kernel_h || d.dw_pad_left >= d.dw_kernel_w ||
          std::uint64_t{d.out_h - 1} * d.dw_stride_y >= std::uint64_t{d.mid_h} + d.dw_pad_top ||
          std::uint64_t{d.out_w - 1} * depthwise_half(d).stride_x >=
              std::uint64_t{d.mid_w} + d.dw_pad_left)
        fail("a window of the fused depthwise convolution lies wholly outside its input");
    }
    if (d.dw_pairs != 0) {
      // Of steps of one both pixels are results, and a pair of them is a block.
      const bool halves = d.dw_stride_x == 2;
      if (d.fuse_dw == 0 || d.dw_kernel_h > 3 || d.dw_kernel_w != 3 || d.dw_pad_left != 1 ||
          (d.dw_stride_x != 1 && !halves) || d.out_w != d.mid_w ||
          (halves ? d.out_cp_log2 < 5 : d.out_c_last != 64 || d.out_cp_log2 != 6))
        fail("no depthwise convolution of pairs of pixels");
      if (d.n_tiles != (halves ? (out_channels(d) + 31) / 32 : d.out_cb))
        fail("the channel blocks of pairs of pixels do not follow from the shape");
    }
    if (sliced &&
        (op != spec::op::mat_mul || d.fuse_add != 0 || d.fuse_dw != 0 || d.out_planar != 0))
      fail("slices of what has none");
    if (d.out_pitch != 0) {
      const bool able = op == spec::op::mat_mul || op == spec::op::max_pool ||
                        op == spec::op::avg_pool || op == spec::op::depthwise;
      if (!able || d.out_cp_log2 != 6 || d.fuse_add != 0 || d.fuse_dw != 0 || d.out_planar != 0)
        fail("a pitch of what has none");
      if (d.out_pitch < d.out_cb || std::uint64_t{d.out_pitch} << 6 > spec::max_channels)
        fail("out_pitch is below out_cb or more than a pixel can have");
    }
    if (writes && op != spec::op::input) {
      blocks(d.out_cb, d.out_cp_log2, d.out_c_last);
      const std::uint64_t bytes = image_bytes(d.out_h, d.out_w, out_pitch(d), d.out_cp_log2);
      const std::uint64_t apart = sliced ? d.out_stride - (bytes + word_bytes - 1) / word_bytes : 0;
      tensor_of("output", d.out_base, d.out_stride, bytes,
                op == spec::op::load && d.spilled == 0 ? 1 : images,
                apart + out_pitch(d) - d.out_cb);
    }
    if (reads && writes && swept_rows(d) * wholes >= 1u << 23) fail("2^23 rows and more");
    if (d.fuse_table != 0 && op != spec::op::mat_mul && op != spec::op::product)
      fail("a fused table of an operation that has none");
    const bool window = op == spec::op::mat_mul || op == spec::op::product ||
                        op == spec::op::max_pool || op == spec::op::avg_pool ||
                        op == spec::op::depthwise;
    if (window) {
      if (d.kernel_h == 0 || d.kernel_w == 0 || d.stride_y == 0 || d.stride_x == 0)
        fail("a window side or step is zero");
      if (d.taps != d.kernel_h * d.kernel_w * d.in_cb)
        fail("taps is not kernel_h * kernel_w * in_cb");
    }
    const bool same_blocks =
        d.in_cb == d.out_cb && d.in_cp_log2 == d.out_cp_log2 && d.in_c_last == d.out_c_last;
    const bool repeats = d.repeat_y > 1 || d.repeat_x > 1;
    if (repeats && (op != spec::op::max_pool || d.kernel_h != 1 || d.kernel_w != 1 ||
                    d.stride_y != 1 || d.stride_x != 1 || d.pad_top != 0 || d.pad_left != 0))
      fail("pixels repeat behind what is no window of one pixel");
    const auto pooling = [&] {
      if (!same_blocks) fail("channels change in a pooling layer");
      if (repeats) {
        if (d.out_h > std::max(d.repeat_y, 1u) * d.in_h ||
            d.out_w > std::max(d.repeat_x, 1u) * d.in_w)
          fail("more pixels than repeating gives");
        return;
      }
      if (d.pad_top >= d.kernel_h || d.pad_left >= d.kernel_w ||
          std::uint64_t{d.out_h - 1} * d.stride_y >= std::uint64_t{d.in_h} + d.pad_top ||
          std::uint64_t{d.out_w - 1} * d.stride_x >= std::uint64_t{d.in_w} + d.pad_left)
        fail("a pooling window lies wholly outside the input");
    };
    const auto elementwise = [&](bool two) {
      if (!same_blocks || d.in_h != d.out_h || d.in_w != d.out_w)
        fail("the shapes of an elementwise operation differ");
      if (!two) return;
      second(d.in2_broadcast ? image_bytes(1, 1, d.in_cb, d.in_cp_log2)
                             : image_bytes(d.in_h, d.in_w, d.in_cb, d.in_cp_log2));
    };
    const auto requantisation = [&] {
      if ((d.vec_mult != 0 && d.vec_mult >> 23 != 1) || d.vec_shift > 63)
        fail("vec_mult is neither 0 nor of 24 bits, or vec_shift is above 63");
      if (static_cast<std::int8_t>(d.clamp_lo) > static_cast<std::int8_t>(d.clamp_hi))
        fail("clamp_lo is above clamp_hi");
    };
    switch (op) {
      case spec::op::input:
        ++inputs;
        tensor("output", d.out_base, d.out_stride, word_bytes);
        if (d.out_stride != p.input.layout.words) fail("its words are not the input's");
        break;
      case spec::op::output:
        ++outputs;
        tensor("input", d.in_base, d.in_stride, word_bytes);
        if (d.in_stride != p.output.layout.words) fail("its words are not the output's");
        break;
      case spec::op::spill:
        if (!spilled.put(d.spill_page, d.in_stride, p.max_batch, p.spill_pages))
          fail("its pages do not lie inside the spill area");
        break;
      case spec::op::load:
        if (d.param_pages != (d.spilled != 0 ? 0 : pages_for(d.out_stride)) || d.n_tiles != 0 ||
            d.k_tiles != 0)
          fail("pages do not follow from the words");
        if (d.spilled != 0) {
          if (!spilled.holds(d.spill_page, d.out_stride))
            fail("loads from the spill area what no Spill before it put there");
          break;
        }
        if (d.region != i + 1) fail("its region is not its number + 1");
        break;
      case spec::op::product:
      case spec::op::mat_mul: {
        const std::uint32_t tpt = 64u >> d.in_cp_log2;
        const std::uint32_t cout = out_channels(d.dw_pairs != 0 ? matmul_half(d) : d);
        if (cout > spec::max_channels) fail("more output channels than the parameter RAM holds");
        if (d.k_tiles != (d.taps + tpt - 1) / tpt || d.n_tiles != (cout + 63) / 64 ||
            d.param_pages != param_pages_for(cout))
          fail("pages do not follow from the shape");
        if (d.region != i + 1) fail("its region is not its number + 1");
        if (d.fuse_add != 0) {
          second(image_bytes(d.out_h, d.out_w, d.out_cb, d.out_cp_log2));
          if (d.add_shift > 22) fail("add_shift is above 22");
          if (d.in2_broadcast != 0) fail("a fused addition of one pixel");
        }
        if (d.in_planar != 0 && (d.in_cp_log2 != 6 || d.kernel_h != 1 || d.kernel_w != 1))
          fail("an input block by block needs blocks of 64 bytes and windows of one pixel");
        if (d.out_planar != 0 && (d.out_cp_log2 != 6 || d.fuse_add != 0))
          fail("an output block by block needs blocks of 64 bytes and no addition");
        if (op == spec::op::product) {
          if (d.heads == 0) fail("a product of no heads");
          if (d.kernel_h != 1 || d.kernel_w != 1 || d.stride_y != 1 || d.stride_x != 1 ||
              d.pad_top != 0 || d.pad_left != 0 || d.in_h != d.out_h || d.in_w != d.out_w ||
              d.fuse_add != 0)
            fail("a product works pixel by pixel");
          if ((d.in2_transposed != 0 ? d.in_cp_log2 : d.out_cp_log2) != 6)
            fail("the second tensor of a product has blocks of fewer than 64 bytes");
          const std::uint32_t k = in_channels(d);
          tensor("second input", d.in2_base, d.in2_stride,
                 image_bytes(1, d.in2_transposed != 0 ? cout : k,
                             d.in2_transposed != 0 ? d.in_cb : d.out_cb, 6));
        }
        break;
      }
      case spec::op::depthwise: {
        const std::uint32_t channels = out_channels(d);
        if (!same_blocks) fail("channels change in a depthwise layer");
        if (channels > spec::max_channels) fail("more channels than the parameter RAM holds");
        if (d.kernel_h * d.kernel_w > spec::page_beats)
          fail("a kernel of more taps than a page has");
        if (d.pad_top >= d.kernel_h || d.pad_left >= d.kernel_w ||
            std::uint64_t{d.out_h - 1} * d.stride_y >= std::uint64_t{d.in_h} + d.pad_top ||
            std::uint64_t{d.out_w - 1} * d.stride_x >= std::uint64_t{d.in_w} + d.pad_left)
          fail("a window lies wholly outside the input");
        if (d.k_tiles != 1 || d.n_tiles != d.out_cb || d.param_pages != param_pages_for(channels))
          fail("pages do not follow from the shape");
        if (d.region != i + 1) fail("its region is not its number + 1");
        break;
      }
      case spec::op::max_pool:
        pooling();
        break;
      case spec::op::avg_pool:
        pooling();
        requantisation();
        break;
      case spec::op::add:
        elementwise(true);
        if (d.add_shift > 22) fail("add_shift is above 22");
        break;
      case spec::op::mul:
        elementwise(true);
        requantisation();
        break;
      case spec::op::table:
        elementwise(false);
        if (d.param_pages != 1 || d.n_tiles != 0 || d.k_tiles != 0)
          fail("a table has one page and no tiles");
        if (d.region != i + 1) fail("its region is not its number + 1");
        break;
      case spec::op::softmax:
        elementwise(false);
        requantisation();
        if (d.vec_shift > 36) fail("vec_shift of a softmax is above 36");
        if (d.param_pages != 1 || d.n_tiles != 0 || d.k_tiles != 0)
          fail("a softmax has one page and no tiles");
        if (d.region != i + 1) fail("its region is not its number + 1");
        break;
      case spec::op::layer_norm: {
        elementwise(false);
        const std::uint32_t channels = out_channels(d);
        if (d.n_tiles != 0 || d.k_tiles != 0 || d.param_pages != param_pages_for(channels))
          fail("pages do not follow from the shape");
        if ((d.epsilon_lo == 0 && d.epsilon_hi == 0) || d.epsilon_hi > 0x7f)
          fail("epsilon is not 1 to 2^39 - 1");
        if (d.region != i + 1) fail("its region is not its number + 1");
        break;
      }
      default:
        fail("unknown operation " + std::to_string(d.op));
    }
  }
  if (inputs != 1 || outputs != 1) bad(what, "there must be one input and one output");
  if (spilled.pages() != p.spill_pages) {
    bad(what, "spill_pages is " + std::to_string(p.spill_pages) + ", the descriptors spill to " +
                  std::to_string(spilled.pages()));
  }

  if (p.regions != regions_of(ds)) bad(what, "the regions do not follow from the descriptors");
  std::uint64_t next = 0;
  for (const page_region& r : p.regions) {
    if (r.first != next)
      bad(what, "region " + std::to_string(r.region) + " starts at page " +
                    std::to_string(r.first) + ", not " + std::to_string(next));
    next += r.count;
  }
  if (next != p.num_pages()) {
    bad(what, "the regions hold " + std::to_string(next) + " pages, the program " +
                  std::to_string(p.num_pages()));
  }
}

void write_program(const std::string& path, const program& p) {
  check(p, path);
  const std::string header = to_json(p).dump(1, ' ', false, json::error_handler_t::replace);
  const auto* text = reinterpret_cast<const std::uint8_t*>(header.data());
  io::bytes preamble(magic, magic + 4);
  io::put_u32(preamble, spec::format_version);
  io::put_u64(preamble, header.size());
  io::put_u64(preamble, p.num_pages());
  io::put_u64(preamble, preamble_bytes + header.size() + p.pages.size() + digest_bytes);
  const io::byte_view json_part(text, header.size());
  const auto digest = io::sha256({preamble, json_part, p.pages});
  // Plaintext weights: nobody but their owner reads the file.
  io::write_file(path, {preamble, json_part, p.pages, digest}, 0600);
}

program parse_program(io::byte_view file, const std::string& name) {
  io::reader in(name, file);
  const io::byte_view m = in.take(4, "the magic");
  if (std::memcmp(m.data(), magic, 4) != 0)
    in.fail("not a Latchkey program: it does not begin with 'LKMP'", 0);
  if (const auto f = in.u32("the format version"); f != spec::format_version) {
    in.fail("program format " + std::to_string(f) + "; this version reads format " +
                std::to_string(spec::format_version) + ": compile the model again",
            4);
  }
  const std::uint64_t header_size = in.u64("the header's length");
  const std::uint64_t num_pages = in.u64("the number of pages");
  const std::uint64_t length = in.u64("the file's length");
  if (header_size > io::max_header_bytes)
    in.fail("absurd header length " + std::to_string(header_size), 8);
  if (num_pages == 0 || num_pages > io::max_file_bytes / spec::page_bytes)
    in.fail("absurd number of pages " + std::to_string(num_pages), 16);
  if (length != preamble_bytes + header_size + num_pages * spec::page_bytes + digest_bytes)
    in.fail("the lengths of the parts do not add up to the file's", 24);
  if (file.size() < length) {
    in.fail("truncated: " + std::to_string(file.size()) + " of " + std::to_string(length) +
                " bytes are there",
            file.size());
  }
  if (file.size() > length) {
    in.fail(std::to_string(file.size() - length) + " bytes follow the end of the program", length);
  }
  const io::byte_view header = in.take(header_size, "the header");
  const io::byte_view pages = in.take(num_pages * spec::page_bytes, "the pages");
  const io::byte_view body = file.first(in.offset());
  const io::byte_view digest = in.take(digest_bytes, "the checksum");
  const auto expected = io::sha256({body});
  if (!std::equal(digest.begin(), digest.end(), expected.begin()))
    in.fail("its SHA-256 does not match: the file was damaged or changed", body.size());

  const std::string where = name + ": header (offset " + std::to_string(preamble_bytes) + ")";
  program p;
  const json j = io::parse_json(header, where);
  from_json(j, where, p);
  p.pages.assign(pages.begin(), pages.end());
  const auto desc_pages =
      p.regions.empty() || p.regions[0].region != 0 || p.regions[0].count > num_pages
          ? 0
          : p.regions[0].count;
  p.descriptors = read_descriptors(pages.first(std::size_t{desc_pages} * spec::page_bytes), where);
  if (get<std::uint64_t>(j, "num_descriptors", where) != p.descriptors.size() ||
      get<std::uint64_t>(j, "num_pages", where) != num_pages)
    bad(where, "counts of descriptors or pages differ from the file's");
  check(p, name);
  return p;
}

program read_program(const std::string& path) { return parse_program(io::read_file(path), path); }

}  // namespace latchkey::compiler
