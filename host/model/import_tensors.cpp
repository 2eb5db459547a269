// Reading files and the tensors in them.
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "latchkey/error.hpp"
#include "model/importer.hpp"

namespace latchkey::model {

std::string type_name(int type) {
  return pb::TensorProto::DataType_IsValid(type)
             ? pb::TensorProto::DataType_Name(static_cast<pb::TensorProto::DataType>(type))
             : format("type {}", type);
}

std::string dims_text(const std::vector<int>& dims) {
  std::string text = "N";
  for (const int d : dims) text += format(" x {}", d);
  return text;
}

std::string read_file(const std::filesystem::path& file) {
  std::error_code ec;
  if (std::filesystem::is_directory(file, ec)) {
    throw error(errc::bad_file, format("{}: is a directory; name a file in it", file.string()));
  }
  std::ifstream in(file, std::ios::binary | std::ios::ate);
  if (!in) {
    throw error(errc::bad_file, format("{}: cannot be opened ({}); check the path", file.string(),
                                       std::strerror(errno)));
  }
  const std::streamoff size = in.tellg();
  if (size < 0 || size > kMaxFile) {
    throw error(errc::bad_file,
                format("{}: {} bytes, files up to 1 GiB can be read", file.string(), size));
  }
  std::string bytes(static_cast<std::size_t>(size), '\0');
  in.seekg(0);
  if (size > 0 && !in.read(bytes.data(), size)) {
    throw error(errc::io, format("{}: reading failed", file.string()));
  }
  return bytes;
}

namespace {

template <typename Message>
bool parse_message(const std::string& bytes, Message& message) {
  google::protobuf::io::ArrayInputStream raw(bytes.data(), static_cast<int>(bytes.size()));
  google::protobuf::io::CodedInputStream in(&raw);
  in.SetTotalBytesLimit(static_cast<int>(kMaxFile));
  in.SetRecursionLimit(64);
  return message.ParseFromCodedStream(&in) && in.ConsumedEntireMessage();
}

}  // namespace

bool parse(const std::string& bytes, pb::ModelProto& message) {
  return parse_message(bytes, message);
}

bool parse(const std::string& bytes, pb::TensorProto& message) {
  return parse_message(bytes, message);
}

constant read_constant(const pb::TensorProto& t, const std::string& what) {
  const auto fail = [&](const std::string& why) {
    throw error(errc::bad_file, format("{}: {}", what, why));
  };
  constant out;
  out.type = t.data_type();
  std::int64_t count = 1;
  for (const std::int64_t d : t.dims()) {
    if (d < 0 || d > kMaxElements || (d > 0 && count > kMaxElements / d)) {
      fail(format("shape {} is negative or beyond {} elements", list_text(t.dims()), kMaxElements));
    }
    count *= d;
    out.dims.push_back(d);
  }
  if (t.data_location() == pb::TensorProto::EXTERNAL || t.external_data_size() > 0) {
    fail("its values lie in another file; save the model with its weights inside");
  }
  if (t.has_segment()) fail("segmented tensors cannot be read; save the model again");
  const auto n = static_cast<std::size_t>(count);
  const std::string& raw = t.raw_data();
  const auto take = [&]<typename T>(T /*type*/, const auto& field) {
    // Check sizes before allocating: the shape is only a claim.
    const bool from_raw = !raw.empty();
    const std::size_t have =
        from_raw ? raw.size() / sizeof(T) : static_cast<std::size_t>(field.size());
    if (have != n || (from_raw && raw.size() % sizeof(T) != 0)) {
      fail(format("shape {} needs {} values of {}, the file holds {}; it is damaged",
                  list_text(t.dims()), n, type_name(out.type), have));
    }
    out.values.resize(n);
    for (std::size_t i = 0; i < n; ++i) {
      if (from_raw) {
        T v;
        std::memcpy(&v, raw.data() + i * sizeof(T), sizeof(T));
        out.values[i] = static_cast<double>(v);
      } else {
        out.values[i] = static_cast<double>(static_cast<T>(field.Get(static_cast<int>(i))));
      }
    }
  };
  switch (t.data_type()) {
    case pb::TensorProto::FLOAT:
      take(float{}, t.float_data());
      break;
    case pb::TensorProto::DOUBLE:
      take(double{}, t.double_data());
      break;
    case pb::TensorProto::UINT8:
      take(std::uint8_t{}, t.int32_data());
      break;
    case pb::TensorProto::INT8:
      take(std::int8_t{}, t.int32_data());
      break;
    case pb::TensorProto::INT32:
      take(std::int32_t{}, t.int32_data());
      break;
    case pb::TensorProto::INT64:
      take(std::int64_t{}, t.int64_data());
      break;
    case pb::TensorProto::BOOL:
      take(std::uint8_t{}, t.int32_data());
      break;
    default:
      throw error(errc::unsupported_model,
                  format("{}: {} values are not supported; export the model in float32", what,
                         type_name(t.data_type())));
  }
  return out;
}

}  // namespace latchkey::model
