// Images from files.
//
// IDX, the format of MNIST and its successors: big-endian magic (0, 0, type, rank), one u32 per
// dimension, values. Only unsigned bytes (type 8) are read; .gz files are unpacked on the way.
//
// NPY, NumPy's format (numpy.save), versions 1 to 3: arrays of unsigned bytes, float32 or float64
// in C order.
#ifndef LATCHKEY_MODEL_DATASET_HPP
#define LATCHKEY_MODEL_DATASET_HPP

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace latchkey::model {

/// An IDX array of bytes, row-major.
struct idx_array {
  std::vector<std::size_t> dims;
  std::vector<std::uint8_t> values;
};

/// Labelled grey images.
struct dataset {
  std::size_t rows = 0, columns = 0;
  std::vector<std::uint8_t> pixels;  ///< size() * rows * columns.
  std::vector<std::uint8_t> labels;

  [[nodiscard]] std::size_t size() const noexcept { return labels.size(); }
  [[nodiscard]] std::size_t image_size() const noexcept { return rows * columns; }

  /// Bytes of image i.
  [[nodiscard]] std::span<const std::uint8_t> image(std::size_t i) const {
    return std::span(pixels).subspan(i * image_size(), image_size());
  }

  /// Image i as byte / 255.
  [[nodiscard]] std::vector<float> real_image(std::size_t i) const;

  /// count images spread evenly over the set (all of them when there are fewer), as byte / 255:
  /// what calibration takes.
  [[nodiscard]] std::vector<std::vector<float>> sample(std::size_t count) const;
};

/// Reads one IDX file, packed or not. Throws latchkey::error (bad_file).
idx_array read_idx(const std::filesystem::path& file);

/// An NPY array, row-major. Bytes stay what they are: 0 to 255.
struct npy_array {
  std::vector<std::size_t> dims;
  bool bytes = false;  ///< The file holds bytes, not real values.
  std::vector<float> values;
};

/// Reads one NPY file. Throws latchkey::error (bad_file).
npy_array read_npy(const std::filesystem::path& file);

/// Images of image_size values each, for calibration: up to count of them (all with 0), spread
/// evenly. from is an IDX file, an NPY file, or a folder whose .npy files are read in the order of
/// their names. An array of image_size values is one image, one of n times as many whose first
/// dimension is n holds n. Bytes become byte / 255, real values stay as they are: they have to be
/// what the model takes, CHW. Throws latchkey::error: bad_file, and mismatch for images of another
/// size or none.
std::vector<std::vector<float>> read_images(const std::filesystem::path& from,
                                            std::size_t image_size, std::size_t count);

/// Reads <prefix>-images-idx3-ubyte and <prefix>-labels-idx1-ubyte, or the same with .gz. Throws
/// latchkey::error (bad_file), also when images and labels do not match.
dataset read_dataset(const std::string& prefix);

}  // namespace latchkey::model

#endif  // LATCHKEY_MODEL_DATASET_HPP
