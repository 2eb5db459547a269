#include "model/import.hpp"

#include <new>

#include "latchkey/error.hpp"
#include "model/format.hpp"
#include "model/importer.hpp"

namespace latchkey::model {

fgraph import_onnx(const std::string& bytes, const std::string& name,
                   const import_options& options) {
  if (bytes.size() > static_cast<std::size_t>(kMaxFile)) {
    throw error(errc::bad_file, format("{}: models up to 1 GiB can be read", name));
  }
  pb::ModelProto model;
  if (bytes.empty() || !parse(bytes, model)) {
    throw error(errc::bad_file,
                format("{}: is no ONNX model, or is cut short ({} bytes); export or copy it again",
                       name, bytes.size()));
  }
  try {
    return importer(model, name, options).run();
  } catch (const std::bad_alloc&) {
    throw error(
        errc::unsupported_model,
        format("{}: the model does not fit this machine's memory; use a smaller one", name));
  }
}

fgraph import_onnx(const std::filesystem::path& file, const import_options& options) {
  return import_onnx(read_file(file), file.string(), options);
}

tensor_file read_tensor(const std::filesystem::path& file) {
  pb::TensorProto t;
  if (!parse(read_file(file), t)) {
    throw error(errc::bad_file, format("{}: is not a serialised tensor", file.string()));
  }
  const constant c = read_constant(t, file.string());
  tensor_file out;
  out.name = t.name();
  out.dims = c.dims;
  out.type = c.type == pb::TensorProto::UINT8  ? io_type::u8
             : c.type == pb::TensorProto::INT8 ? io_type::i8
                                               : io_type::f32;
  out.values.assign(c.values.begin(), c.values.end());
  return out;
}

}  // namespace latchkey::model
