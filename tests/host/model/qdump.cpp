// latchkey_qdump MODEL.onnx DATASET_PREFIX CALIBRATION_IMAGES [percentile]
//
// Quantises a model as the tests do and writes the quantised graph as JSON to the standard output.
#include <cstdlib>
#include <iostream>
#include <string>

#include "latchkey/error.hpp"
#include "model/dataset.hpp"
#include "model/import.hpp"
#include "model/quantise.hpp"

int main(int argc, char** argv) {
  namespace lm = latchkey::model;
  if (argc < 4 || argc > 5) {
    std::cerr
        << "usage: latchkey_qdump MODEL.onnx DATASET_PREFIX CALIBRATION_IMAGES [percentile]\n";
    return static_cast<int>(latchkey::errc::usage);
  }
  try {
    lm::quantise_options options;
    if (argc == 5) {
      options.method = lm::calibration::percentile;
      options.percentile = std::atof(argv[4]);
    }
    const auto count = static_cast<std::size_t>(std::atoi(argv[3]));
    const lm::dataset data = lm::read_dataset(argv[2]);
    const lm::fgraph graph = lm::import_onnx(std::filesystem::path(argv[1]));
    for (const std::string& remark : graph.remarks) std::cerr << "remark: " << remark << '\n';
    lm::write_json(lm::quantise(graph, data.sample(count), options), std::cout);
  } catch (const latchkey::error& e) {
    std::cerr << e.what() << '\n';
    return e.exit_code();
  }
  return 0;
}
