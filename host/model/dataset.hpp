// IDX files, the format of MNIST and its successors: big-endian magic (0, 0, type, rank), one u32
// per dimension, values. Only unsigned bytes (type 8) are read; .gz files are unpacked on the way.
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

/// Reads <prefix>-images-idx3-ubyte and <prefix>-labels-idx1-ubyte, or the same with .gz. Throws
/// latchkey::error (bad_file), also when images and labels do not match.
dataset read_dataset(const std::string& prefix);

}  // namespace latchkey::model

#endif  // LATCHKEY_MODEL_DATASET_HPP
