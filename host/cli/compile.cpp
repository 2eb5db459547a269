#include "compiler/compile.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>

#include "commands.hpp"
#include "compiler/draft.hpp"
#include "compiler/file_io.hpp"
#include "console.hpp"
#include "report.hpp"
#include "latchkey/program.hpp"
#include "model/dataset.hpp"
#include "model/partition.hpp"
#include "model/quantise.hpp"
#include "model/reference.hpp"

namespace latchkey::cli {
namespace {

struct options {
  std::string model, output, calibrate, images, labels, reference_output, dump;
  std::string calibration, weight_scale = "max";
  bool bias_correction = false, sensitivity = false, host_fallback = false;
  std::uint32_t array_n = 16, batch = 0;
  std::optional<std::uint32_t> spad_words;
  std::vector<int> input_shape;
  std::size_t calibrate_count = 512, count = 0;
  double percentile = 0;
};

/// Most images that the sensitivity of the layers is measured on.
constexpr std::size_t sensitivity_images = 64;

const std::map<std::string, model::calibration>& methods() {
  static const std::map<std::string, model::calibration> names = {
      {"min-max", model::calibration::min_max},
      {"percentile", model::calibration::percentile},
      {"mse", model::calibration::mse},
      {"entropy", model::calibration::entropy}};
  return names;
}

/// Up to count images (all with 0), spread evenly, as the card sees them: behind the head, in CHW
/// order.
std::vector<std::vector<float>> read_images(const std::string& from, const model::network& net,
                                            std::size_t count) {
  const auto input = static_cast<std::size_t>(net.card.inputs.at(0).tensor);
  const std::size_t size = net.head
                               ? static_cast<std::size_t>(fallback::elements(net.head->input_dims))
                               : net.card.tensors.at(input).size();
  auto images = model::read_images(from, size, count);
  if (net.head) {
    for (auto& image : images) image = model::run_head(*net.head, image);
  }
  const int channels = net.card.tensors.at(input).c;
  for (auto& image : images) {
    image = model::to_planes(net.card.inputs[0], channels, std::move(image));
  }
  return images;
}

std::vector<std::vector<float>> calibration_images(const options& o, const model::network& net) {
  if (o.calibrate.empty()) return {};
  return read_images(o.calibrate, net, o.calibrate_count);
}

/// The class that a model names: its first output, or the place of the largest value in it.
int class_of(const model::network& net, std::span<const float> planes) {
  const auto output = static_cast<std::size_t>(net.card.output.tensor);
  const auto card_output = model::from_planes(net.card.output, net.card.tensors.at(output).c,
                                              std::vector<float>(planes.begin(), planes.end()));
  if (!net.tail) return model::argmax(card_output);
  const fallback::tensor t = model::run_tail(*net.tail, card_output).at(0);
  if (t.values.size() == 1) return static_cast<int>(t.values[0]);
  return static_cast<int>(std::max_element(t.values.begin(), t.values.end()) - t.values.begin());
}

model::quantise_options quantisation(const options& o) {
  model::quantise_options how;
  if (o.percentile > 0) {
    how.method = model::calibration::percentile;
    how.percentile = o.percentile;
  }
  if (!o.calibration.empty()) {
    const model::calibration method = methods().at(o.calibration);
    if (o.percentile > 0 && method != model::calibration::percentile) {
      throw error(errc::usage,
                  fmt::format("--percentile and --calibration {}: a percentile belongs "
                              "to --calibration percentile; leave one out",
                              o.calibration));
    }
    how.method = method;
  }
  if (o.weight_scale == "mse") how.weights = model::weight_scale::mse;
  how.bias_correction = o.bias_correction;
  return how;
}

/// Signal-to-noise ratio of every layer, for the user to see where the precision goes.
nlohmann::json report_sensitivity(const model::fgraph& fp32, const model::qgraph& int8,
                                  std::vector<std::vector<float>> images) {
  if (images.size() > sensitivity_images) images.resize(sensitivity_images);
  const auto decibels = [](double v) {
    return std::isfinite(v) ? fmt::format("{:.1f}", v) : std::string("exact");
  };
  const auto number = [](double v) { return std::isfinite(v) ? nlohmann::json(v) : nullptr; };
  nlohmann::json layers = nlohmann::json::array();
  say(fmt::format("signal to quantisation noise in dB on {} images", images.size()));
  say(fmt::format("{:<40} {:>9} {:>9}", "layer", "its own", "in all"));
  for (const model::layer_sensitivity& l : model::sensitivity(fp32, int8, images)) {
    say(fmt::format("{:<40} {:>9} {:>9}", l.name.substr(0, 40), decibels(l.own),
                    decibels(l.total)));
    layers.push_back({{"name", l.name}, {"own_db", number(l.own)}, {"total_db", number(l.total)}});
  }
  return layers;
}

struct evaluation {
  std::size_t images = 0, correct_fp32 = 0, correct_int8 = 0, agree = 0;
};

/// Top-1 of the float model and of the int8 reference, and the reference's outputs in pixel order.
evaluation evaluate(const options& o, const model::network& net, const model::qgraph& int8) {
  const auto images = read_images(o.images, net, 0);
  const model::idx_array labels = model::read_idx(o.labels);
  const std::size_t total = images.size();
  if (labels.values.size() != total) {
    throw error(errc::mismatch, fmt::format("{} holds {} images, {} holds {} labels", o.images,
                                            total, o.labels, labels.values.size()));
  }
  evaluation e;
  e.images = o.count ? std::min(o.count, total) : total;
  model::float_executor float_model(net.card);
  model::reference reference(int8);
  const model::qtensor& out = int8.output_tensor();
  io::bytes outputs;
  progress bar("evaluating");
  for (std::size_t i = 0; i < e.images; ++i) {
    const int by_float = class_of(net, float_model.infer(images[i]));
    const auto q = reference.infer(model::quantise_input(int8, images[i]));
    const int by_int8 =
        net.tail ? class_of(net, model::dequantise_output(int8, q))
                 : model::argmax(model::from_planes(int8.output, out.c,
                                                    std::vector<std::uint8_t>(q.begin(), q.end())));
    e.correct_fp32 += by_float == labels.values[i];
    e.correct_int8 += by_int8 == labels.values[i];
    e.agree += by_float == by_int8;
    const auto plane = static_cast<std::size_t>(out.h * out.w);
    for (std::size_t p = 0; p < plane; ++p)
      for (std::size_t c = 0; c < static_cast<std::size_t>(out.c); ++c)
        outputs.push_back(q[c * plane + p]);
    if (i % 100 == 99 || i + 1 == e.images) bar.update(i + 1, e.images);
  }
  if (!o.reference_output.empty()) io::write_file(o.reference_output, {outputs});
  return e;
}

void run(const options& o) {
  model::import_options how;
  how.input_shape = o.input_shape;
  const model::network net = model::import_network(o.model, o.host_fallback, how);
  const model::fgraph& fp32 = net.card;
  for (const std::string& remark : fp32.remarks) say("  note: " + remark);
  const auto images = calibration_images(o, net);
  const model::qgraph int8 = model::quantise(fp32, images, quantisation(o));

  compiler::compile_options options;
  options.target = compiler::target::of(o.array_n);
  if (o.spad_words) options.target.spad_words = *o.spad_words;
  options.max_batch = o.batch;
  options.on_pass = [](std::string_view name, int number, int count) {
    check_interrupt();
    say(fmt::format("Running pass {} [{}/{}]", name, number, count));
  };
  options.on_remark = [](const std::string& remark) { say("  note: " + remark); };
  if (!o.dump.empty()) {
    std::filesystem::create_directories(o.dump);
    options.after_pass = [&](std::string_view name, int number, const compiler::draft& draft) {
      const std::string text =
          compiler::to_json(draft).dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
      io::write_file(fmt::format("{}/{}_{}.json", o.dump, number, name), {io::as_bytes(text)});
    };
  }
  compiler::program compiled = compiler::compile(int8, options);
  compiled.head = net.head;
  compiled.tail = net.tail;
  const Program program(std::move(compiled));
  program.write(o.output);

  const compiler::program& p = program.get();
  nlohmann::json layers = nlohmann::json::array();
  say(fmt::format("{:<20} {:<9} {:>16} {:>12} {:>12} {:>6}", "layer", "op", "output C,H,W", "MACs",
                  "weights", "pages"));
  std::uint64_t weights = 0;
  for (const compiler::layer_report& layer : p.layers) {
    say(fmt::format("{:<20} {:<9} {:>16} {:>12} {:>12} {:>6}", layer.name.substr(0, 20), layer.op,
                    fmt::format("{}", fmt::join(layer.shape, ",")), grouped(layer.macs),
                    bytes_text(layer.weight_bytes), layer.pages));
    weights += layer.weight_bytes;
    layers.push_back({{"name", layer.name},
                      {"op", layer.op},
                      {"shape", layer.shape},
                      {"macs", layer.macs},
                      {"weight_bytes", layer.weight_bytes},
                      {"pages", layer.pages}});
  }
  say(fmt::format(
      "compiled {}: {} layers, {} MACs and {} of weights in {} pages, for the {}x{} array, "
      "up to {} images a start",
      o.output, p.layers.size(), grouped(p.macs()), bytes_text(weights), p.num_pages(), o.array_n,
      o.array_n, p.max_batch));
  say_host(p);
  nlohmann::json summary = {{"program", o.output},      {"array_n", o.array_n},
                            {"layers", layers},         {"macs", p.macs()},
                            {"weight_bytes", weights},  {"pages", p.num_pages()},
                            {"max_batch", p.max_batch}, {"spill_pages", p.spill_pages}};
  add_host(summary, p);
  if (o.sensitivity) summary["sensitivity"] = report_sensitivity(fp32, int8, images);
  if (!o.images.empty()) {
    const evaluation e = evaluate(o, net, int8);
    const auto percent = [&](std::size_t n) {
      return 100.0 * static_cast<double>(n) / static_cast<double>(e.images);
    };
    say(fmt::format(
        "top-1 on {} images: float32 {:.2f} %, int8 reference {:.2f} %; same answer on "
        "{:.2f} %",
        grouped(e.images), percent(e.correct_fp32), percent(e.correct_int8), percent(e.agree)));
    summary["evaluation"] = {{"images", e.images},
                             {"top1_fp32", percent(e.correct_fp32)},
                             {"top1_int8", percent(e.correct_int8)},
                             {"agree", percent(e.agree)}};
  }
  result(summary);
}

}  // namespace

void add_compile(CLI::App& app) {
  auto o = std::make_shared<options>();
  auto* command = app.add_subcommand(
      "compile", "Quantise an ONNX model to int8 and compile it for a build configuration");
  command->add_option("model", o->model, "ONNX model, opset 9 to 17")->required();
  command
      ->add_option("-o,--output", o->output, "Program to write (.lkm); it holds plaintext weights")
      ->required();
  command->add_option("--array", o->array_n, "Array size of the build: 16, 32 or 64")
      ->check(CLI::IsMember({16, 32, 64}));
  command
      ->add_option("--scratchpad", o->spad_words,
                   "64-byte words of the build's scratchpad (default: that of the card image)")
      ->check(whole_number);
  command
      ->add_option("--batch", o->batch,
                   "Most images per start (default: as many as fit without spilling, up to 256)")
      ->check(CLI::Range(1, 256));
  command
      ->add_option(
          "--input-shape", o->input_shape,
          "Sizes of the input behind the batch, as 3,48,192, when the file leaves them open")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  auto* calibrate = command->add_option(
      "--calibrate", o->calibrate,
      "Images that set the activation ranges: an IDX file (also .gz), a .npy file or a folder of "
      ".npy files; not needed for a model that is quantised already");
  command->add_option("--calibrate-count", o->calibrate_count, "How many of them, spread evenly")
      ->check(whole_number)
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--calibration", o->calibration,
                   "How ranges follow from the values seen: min-max (default), percentile, mse, "
                   "entropy")
      ->check(CLI::IsMember({"min-max", "percentile", "mse", "entropy"}));
  command
      ->add_option("--weight-scale", o->weight_scale,
                   "Scale of each channel's weights: max, or mse for the least squared error")
      ->check(CLI::IsMember({"max", "mse"}));
  command
      ->add_flag("--bias-correction", o->bias_correction,
                 "Take the mean that rounding the weights adds out of the biases")
      ->needs(calibrate);
  command
      ->add_flag("--sensitivity", o->sensitivity,
                 "Report the signal-to-noise ratio of every layer, int8 against float")
      ->needs(calibrate);
  command
      ->add_option("--percentile", o->percentile,
                   "Clip activation ranges to this percentile instead of the full range")
      ->check(CLI::Range(50.0, 100.0));
  auto* images = command->add_option(
      "--evaluate", o->images,
      "Images to compare the float model and the int8 model on; files as for --calibrate");
  auto* labels = command->add_option("--labels", o->labels, "Their labels (IDX)")->needs(images);
  images->needs(labels);
  command->add_option("--count", o->count, "Evaluate only the first images")
      ->needs(images)
      ->check(whole_number);
  command
      ->add_option("--reference-output", o->reference_output,
                   "Write the int8 reference's raw outputs, for run --expect")
      ->needs(images);
  command->add_flag("--host-fallback", o->host_fallback,
                    "Let this host run, in float, the first and last operators that the card "
                    "cannot; their constants are public");
  command->add_option("--dump", o->dump,
                      "Folder for what each pass leaves behind, as JSON without weights");
  command->callback([o] { run(*o); });
}

}  // namespace latchkey::cli
