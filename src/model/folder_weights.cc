#include "model/folder_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "io/json_file.h"

namespace rung::model {
namespace {

// 1 Mi weights: a multiple of the NF4 block, small beside any model, large enough for the disk.
constexpr int64_t kChunk = int64_t{1} << 20;

constexpr const char* kNf4State = ".quant_state.bitsandbytes__nf4";
constexpr uint64_t kNf4StateLimit = uint64_t{1} << 20;  // bytes; written ones have some hundred

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t dim : shape) text += fmt::format("{}{}", text.empty() ? "" : "x", dim);
  return text;
}

int64_t ElementCount(const io::TensorEntry& entry) {
  int64_t count = 1;
  for (const int64_t dim : entry.shape) count *= dim;
  return count;
}

// Weights [begin, begin+count) of a floating-point tensor as f32.
Status ReadFloats(const io::Safetensors& tensors, const io::TensorEntry& entry, format::Format format,
                  int64_t begin, int64_t count, std::vector<std::byte>* raw, float* out) {
  const auto width = static_cast<uint64_t>(format::Of(format).block_bytes);
  raw->resize(static_cast<size_t>(count) * width);
  Status read = tensors.Read(entry, static_cast<uint64_t>(begin) * width, *raw);
  if (!read.ok()) return read;
  const format::Matrix row{format, 1, count, raw->data(), {}};
  format::Of(format).decode(row, 0, count, out);
  return Ok{};
}

}  // namespace

std::optional<format::Format> FloatFormat(const std::string& dtype) {
  if (dtype == "F32") return format::Format::kF32;
  if (dtype == "F16") return format::Format::kF16;
  if (dtype == "BF16") return format::Format::kBf16;
  return std::nullopt;
}

Result<format::Nf4Encoded> EncodeTensor(const io::Safetensors& tensors, const io::TensorEntry& entry,
                                        bool nested) {
  const std::optional<format::Format> format = FloatFormat(entry.dtype);
  if (!format) {
    return Failure{fmt::format("{}: tensor {} is {}; F32, F16 or BF16 can be quantised",
                               tensors.path(entry).string(), entry.name, entry.dtype)};
  }
  const int64_t count = ElementCount(entry);
  format::Nf4Encoded whole;
  whole.codes.reserve(static_cast<size_t>((count + 1) / 2));
  std::vector<std::byte> raw;
  std::vector<float> values;
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t n = std::min(kChunk, count - begin);
    values.resize(static_cast<size_t>(n));
    if (Status read = ReadFloats(tensors, entry, *format, begin, n, &raw, values.data()); !read.ok()) {
      return read.failure();
    }
    const format::Nf4Encoded part = format::EncodeNf4(values.data(), n, false);
    whole.codes.insert(whole.codes.end(), part.codes.begin(), part.codes.end());
    whole.absmax.insert(whole.absmax.end(), part.absmax.begin(), part.absmax.end());
  }
  if (nested) format::NestScales(&whole);
  return whole;
}

void AddNf4(WeightTotals* totals, int64_t weights, bool nested) {
  const int64_t blocks = (weights + format::kNf4Block - 1) / format::kNf4Block;
  const int64_t outer = (blocks + format::kNf4NestedBlock - 1) / format::kNf4NestedBlock;
  const int64_t scales = nested ? blocks + outer * 4 : blocks * 4;
  totals->Add(nested ? "nf4" : "nf4-single", static_cast<uint64_t>((weights + 1) / 2 + scales));
}

std::byte* FolderSource::Keep(size_t bytes) {
  buffers_.push_back(std::make_unique_for_overwrite<std::byte[]>(bytes));
  return buffers_.back().get();
}

Result<std::byte*> FolderSource::ReadKept(const io::TensorEntry& entry) {
  if (shapes_only()) return static_cast<std::byte*>(nullptr);
  std::byte* buffer = Keep(entry.bytes);
  if (Status read = tensors_.Read(entry, 0, {buffer, entry.bytes}); !read.ok()) return read.failure();
  return buffer;
}

Result<const io::TensorEntry*> FolderSource::Find(const std::string& name,
                                                  const std::vector<int64_t>& shape) const {
  const io::TensorEntry* entry = tensors_.Find(name);
  if (!entry) return Failure{fmt::format("tensor {} is missing", name)};
  if (entry->shape != shape) {
    return Failure{fmt::format("{}: tensor {} is {}, config.json asks for {}", tensors_.path(*entry).string(),
                               name, ShapeText(entry->shape), ShapeText(shape))};
  }
  return entry;
}

Result<format::Matrix> FolderSource::Adopt(format::Nf4Encoded encoded, int64_t rows, int64_t cols) {
  encoded_.push_back(std::make_unique<format::Nf4Encoded>(std::move(encoded)));
  const format::Nf4Encoded& kept = *encoded_.back();
  format::Matrix matrix{
      format::Format::kNf4, rows, cols, reinterpret_cast<const std::byte*>(kept.codes.data()), {}};
  matrix.scales.absmax = kept.absmax.data();
  if (!kept.nested_codes.empty()) {
    matrix.scales.codes = kept.nested_codes.data();
    matrix.scales.map = format::Nf4NestedMap().data();
    matrix.scales.offset = kept.offset;
  }
  AddNf4(&totals_, rows * cols, !kept.nested_codes.empty());
  return matrix;
}

Result<format::Matrix> FolderSource::ReadMatrix(const std::string& name, int64_t rows, int64_t cols,
                                                Quantize quantize) {
  if (Has(name + kNf4State)) return ReadNf4(name, rows, cols);
  Result<const io::TensorEntry*> entry = Find(name, {rows, cols});
  if (!entry.ok()) return entry.failure();
  if (quantize != Quantize::kNone && shapes_only() && FloatFormat(entry.value()->dtype)) {
    AddNf4(&totals_, rows * cols, quantize == Quantize::kNf4);
    return format::Matrix{format::Format::kNf4, rows, cols, nullptr, {}};
  }
  if (quantize != Quantize::kNone) {
    Result<format::Nf4Encoded> encoded = EncodeTensor(tensors_, *entry.value(), quantize == Quantize::kNf4);
    if (!encoded.ok()) return encoded.failure();
    return Adopt(std::move(encoded).value(), rows, cols);
  }
  const std::optional<format::Format> format = FloatFormat(entry.value()->dtype);
  if (!format) {
    return Failure{fmt::format("{}: tensor {} has dtype {}, which is not supported; F32, F16 and BF16 are",
                               tensors_.path(*entry.value()).string(), name, entry.value()->dtype)};
  }
  Result<std::byte*> data = ReadKept(*entry.value());
  if (!data.ok()) return data.failure();
  totals_.Add(std::string(format::Of(*format).name), entry.value()->bytes);
  return format::Matrix{*format, rows, cols, data.value(), {}};
}

Result<float> FolderSource::ReadNf4Offset(const std::string& name, int64_t rows, int64_t cols,
                                          bool nested) const {
  const io::TensorEntry& entry = *tensors_.Find(name + kNf4State);
  const std::string where = fmt::format("{}: {}", tensors_.path(entry).string(), entry.name);
  if (entry.dtype != "U8" || entry.bytes > kNf4StateLimit) {
    return Failure{
        fmt::format("{} is {} of {} bytes, a JSON text of U8 is expected", where, entry.dtype, entry.bytes)};
  }
  std::string text(entry.bytes, ' ');
  if (Status read = tensors_.Read(entry, 0, std::as_writable_bytes(std::span(text))); !read.ok()) {
    return read.failure();
  }
  Result<nlohmann::json> state = io::ParseJson(text, where);
  if (!state.ok()) return state.failure();
  const nlohmann::json& fields = state.value();
  // A field of another type is a field of another value.
  const auto is = [&fields](const char* key, const nlohmann::json& wanted) {
    const auto field = fields.find(key);
    return field != fields.end() && *field == wanted;
  };
  if (!fields.is_object() || !is("quant_type", "nf4") || !is("blocksize", format::kNf4Block) ||
      !is("shape", nlohmann::json::array({rows, cols}))) {
    return Failure{fmt::format("{} must describe nf4 in blocks of 64 of shape {}x{}, it says {}", where, rows,
                               cols, fields.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace))};
  }
  if (!nested) return 0.0f;
  const auto offset = fields.find("nested_offset");
  if (!is("nested_blocksize", format::kNf4NestedBlock) || offset == fields.end() || !offset->is_number()) {
    return Failure{fmt::format("{} has no nested_blocksize 256 and nested_offset", where)};
  }
  return offset->get<float>();
}

Result<format::Matrix> FolderSource::ReadNf4(const std::string& name, int64_t rows, int64_t cols) {
  const auto part = [&](const std::string& suffix, const char* dtype, int64_t count) -> Result<std::byte*> {
    const io::TensorEntry* entry = tensors_.Find(name + suffix);
    if (!entry) return Failure{fmt::format("tensor {}{} is missing", name, suffix)};
    if (entry->dtype != dtype || ElementCount(*entry) != count) {
      return Failure{fmt::format("{}: tensor {}{} is {} of {} elements, {} of {} are expected",
                                 tensors_.path(*entry).string(), name, suffix, entry->dtype,
                                 ElementCount(*entry), dtype, count)};
    }
    return ReadKept(*entry);
  };
  const bool nested = Has(name + ".nested_absmax");
  Result<float> offset = ReadNf4Offset(name, rows, cols, nested);
  if (!offset.ok()) return offset.failure();
  const int64_t weights = rows * cols, blocks = (weights + format::kNf4Block - 1) / format::kNf4Block;
  const int64_t outer = (blocks + format::kNf4NestedBlock - 1) / format::kNf4NestedBlock;
  Result<std::byte*> codes = part("", "U8", (weights + 1) / 2);
  if (!codes.ok()) return codes.failure();
  Result<std::byte*> absmax = part(".absmax", nested ? "U8" : "F32", blocks);
  if (!absmax.ok()) return absmax.failure();
  format::Matrix matrix{format::Format::kNf4, rows, cols, codes.value(), {}};
  AddNf4(&totals_, weights, nested);
  if (!nested) {
    matrix.scales.absmax = reinterpret_cast<const float*>(absmax.value());
    return matrix;
  }
  Result<std::byte*> second = part(".nested_absmax", "F32", outer);
  if (!second.ok()) return second.failure();
  // Always the file's own map: some writers changed its first entry.
  Result<std::byte*> map = part(".nested_quant_map", "F32", 256);
  if (!map.ok()) return map.failure();
  matrix.scales = {reinterpret_cast<const float*>(second.value()),
                   reinterpret_cast<const uint8_t*>(absmax.value()),
                   reinterpret_cast<const float*>(map.value()), offset.value()};
  return matrix;
}

Result<std::vector<float>> FolderSource::ReadVector(const std::string& name, int64_t size) {
  Result<const io::TensorEntry*> entry = Find(name, {size});
  if (!entry.ok()) return entry.failure();
  const std::optional<format::Format> format = FloatFormat(entry.value()->dtype);
  if (!format)
    return Failure{fmt::format("tensor {} has dtype {}, not a number", name, entry.value()->dtype)};
  totals_.Add("f32", static_cast<uint64_t>(size) * sizeof(float));
  if (shapes_only()) return std::vector<float>();
  std::vector<float> values(static_cast<size_t>(size));
  std::vector<std::byte> raw;
  if (Status read = ReadFloats(tensors_, *entry.value(), *format, 0, size, &raw, values.data()); !read.ok()) {
    return read.failure();
  }
  return values;
}

}  // namespace rung::model
