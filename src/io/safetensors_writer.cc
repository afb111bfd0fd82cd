#include "io/safetensors_writer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "base/text.h"

namespace rung::io {
namespace {

std::string Quoted(const std::string& text) {
  // Values may hold a path that is not UTF-8; losing a letter of it beats losing the file.
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// Bytes of a shape; a failure when it overflows or the dtype is not known.
Result<uint64_t> BytesOf(const TensorLayout& layout) {
  unsigned __int128 bits = static_cast<unsigned __int128>(BitsOfDtype(layout.dtype));
  for (const int64_t dim : layout.shape) {
    if (dim < 0)
      return Failure{fmt::format("tensor {:?}: dimension {}", layout.name, dim), ExitCode::kFailed};
    bits *= static_cast<unsigned __int128>(dim);
    if (bits >> 62) return Failure{fmt::format("tensor {:?} is too large", layout.name), ExitCode::kFailed};
  }
  if (BitsOfDtype(layout.dtype) == 0 || bits % 8 != 0) {
    return Failure{fmt::format("tensor {:?}: dtype {} does not fit its shape", layout.name, layout.dtype),
                   ExitCode::kFailed};
  }
  return static_cast<uint64_t>(bits / 8);
}

}  // namespace

Result<SafetensorsWriter> SafetensorsWriter::Create(const Path& path, std::vector<TensorLayout> tensors,
                                                    const std::map<std::string, std::string>& metadata,
                                                    uint64_t header_reserve) {
  Result<AtomicFile> created = AtomicFile::Create(path);
  if (!created.ok()) return created.failure();
  SafetensorsWriter writer(path, std::move(created).value());
  writer.metadata_ = metadata;
  for (TensorLayout& layout : tensors) {
    if (Status placed = writer.Place(std::move(layout)); !placed.ok()) return placed.failure();
  }
  const uint64_t header = writer.Header().size() + header_reserve;
  // The data begin at a multiple of 8; the header is filled up with spaces.
  writer.data_begin_ = (kSafetensorsPrefix + header + 7) / 8 * 8;
  return writer;
}

Status SafetensorsWriter::Place(TensorLayout layout) {
  if (!IsUtf8(layout.name)) {
    return Failure{fmt::format("{}: tensor name {:?} is not UTF-8", path_.string(), layout.name),
                   ExitCode::kFailed};
  }
  Result<uint64_t> bytes = BytesOf(layout);
  if (!bytes.ok())
    return Failure{fmt::format("{}: {}", path_.string(), bytes.failure().message), ExitCode::kFailed};
  tensors_.push_back({std::move(layout), data_bytes_, bytes.value()});
  data_bytes_ += bytes.value();
  return Ok{};
}

Status SafetensorsWriter::Write(size_t tensor, uint64_t begin, std::span<const std::byte> bytes) {
  RUNG_CHECK(tensor < tensors_.size(), "safetensors: no such tensor");
  const Placed& placed = tensors_[tensor];
  RUNG_CHECK(begin <= placed.bytes && bytes.size() <= placed.bytes - begin,
             "safetensors: beyond the tensor's end");
  return file_.WriteAt(data_begin_ + placed.begin + begin, bytes);
}

Status SafetensorsWriter::Append(TensorLayout layout, std::span<const std::byte> bytes) {
  if (Status placed = Place(std::move(layout)); !placed.ok()) return placed;
  RUNG_CHECK(tensors_.back().bytes == bytes.size(), "safetensors: the shape does not fit the data");
  return Write(tensors_.size() - 1, 0, bytes);
}

std::string SafetensorsWriter::Header() const {
  std::string header = "{";
  if (!metadata_.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata_) {
      header += fmt::format("{}{}:{}", header.back() == '{' ? "" : ",", Quoted(key), Quoted(value));
    }
    header += "}";
  }
  for (const Placed& tensor : tensors_) {
    header +=
        fmt::format("{}{}:{{\"dtype\":{},\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                    header.size() > 1 ? "," : "", Quoted(tensor.layout.name), Quoted(tensor.layout.dtype),
                    fmt::join(tensor.layout.shape, ","), tensor.begin, tensor.begin + tensor.bytes);
  }
  return header + "}";
}

Status SafetensorsWriter::Commit() {
  std::string header = Header();
  const uint64_t length = data_begin_ - kSafetensorsPrefix;
  RUNG_CHECK(header.size() <= length, "safetensors: header_reserve was too small");
  header.resize(length, ' ');
  if (length > kSafetensorsHeaderLimit) {
    return Failure{fmt::format("{}: a header of {} bytes, at most {} are allowed", path_.string(), length,
                               kSafetensorsHeaderLimit),
                   ExitCode::kFailed};
  }
  // Shapes, sizes and names are then right by the reader's own rules.
  std::map<std::string, std::string> ignored;
  Result<std::vector<TensorEntry>> check = ParseSafetensorsHeader(header, bytes(), path_.string(), &ignored);
  if (!check.ok()) return Failure{check.failure().message, ExitCode::kFailed};
  if (Status wrote = file_.WriteAt(0, std::as_bytes(std::span(&length, 1))); !wrote.ok()) return wrote;
  if (Status wrote = file_.WriteAt(kSafetensorsPrefix, std::as_bytes(std::span(header))); !wrote.ok())
    return wrote;
  return file_.Commit();
}

Status WriteSafetensors(const Path& path, std::span<const TensorToWrite> tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::vector<TensorLayout> layouts;
  for (const TensorToWrite& tensor : tensors) {
    const TensorLayout layout{tensor.name, tensor.dtype, tensor.shape};
    Result<uint64_t> bytes = BytesOf(layout);
    if (!bytes.ok())
      return Failure{fmt::format("{}: {}", path.string(), bytes.failure().message), ExitCode::kFailed};
    if (bytes.value() != tensor.data.size()) {
      return Failure{fmt::format("{}: tensor {:?} has {} bytes, its shape asks for {}", path.string(),
                                 tensor.name, tensor.data.size(), bytes.value()),
                     ExitCode::kFailed};
    }
    layouts.push_back(layout);
  }
  Result<SafetensorsWriter> created = SafetensorsWriter::Create(path, std::move(layouts), metadata, 0);
  if (!created.ok()) return created.failure();
  SafetensorsWriter writer = std::move(created).value();
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (Status wrote = writer.Write(i, 0, tensors[i].data); !wrote.ok()) return wrote;
  }
  return writer.Commit();
}

}  // namespace rung::io
