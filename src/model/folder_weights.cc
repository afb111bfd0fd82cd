#include "model/folder_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/rounding.h"
#include "format/encode.h"

namespace rung::model {
namespace {

constexpr std::string_view kWeight = ".weight";

std::string Module(const std::string& name) {
  return name.ends_with(kWeight) ? name.substr(0, name.size() - kWeight.size()) : name;
}

std::string Where(const io::Safetensors& tensors, const io::TensorEntry& entry) {
  return fmt::format("{}: tensor {}", tensors.path(entry).string(), entry.name);
}

Path FolderOf(const io::Safetensors& tensors) {
  const auto& entries = tensors.tensors();
  return entries.empty() ? Path() : tensors.path(entries.begin()->second).parent_path();
}

// Of a floating-point tensor into NF4. where: the tensor, for messages.
Result<format::Nf4Encoded> EncodeRows(FloatRows* source, bool nested, const std::string& where) {
  format::Nf4Encoded whole;
  whole.codes.reserve(static_cast<size_t>((source->rows() * source->cols() + 1) / 2));
  const int64_t step = source->PieceRows(format::kNf4Block);
  std::vector<float> values;
  for (int64_t begin = 0; begin < source->rows(); begin += step) {
    const int64_t end = std::min(begin + step, source->rows());
    values.resize(static_cast<size_t>((end - begin) * source->cols()));
    if (Status read = source->Read(begin, end, values.data()); !read.ok()) return read.failure();
    if (const int64_t row = UnencodableRow(format::Format::kNf4, values, source->cols()); row >= 0) {
      return NotEncodable(where, begin + row, format::Format::kNf4);
    }
    const format::Nf4Encoded part = format::EncodeNf4(values.data(), (end - begin) * source->cols(), false);
    whole.codes.insert(whole.codes.end(), part.codes.begin(), part.codes.end());
    whole.absmax.insert(whole.absmax.end(), part.absmax.begin(), part.absmax.end());
  }
  if (nested) format::NestScales(&whole);
  return whole;
}

}  // namespace

std::string ShapeText(const std::vector<int64_t>& shape) {
  return shape.empty() ? "a single number" : fmt::format("{}", fmt::join(shape, "x"));
}

int64_t UnencodableRow(format::Format format, std::span<const float> values, int64_t cols) {
  // NF4's scales are f32: every finite weight goes.
  const format::Format as = format == format::Format::kNf4 ? format::Format::kF32 : format;
  const auto count = static_cast<int64_t>(values.size());
  if (format == format::Format::kF32 || format == format::Format::kBf16) return -1;
  if (format::IsEncodable(as, values.data(), count)) return -1;
  int64_t row = 0;
  while (format::IsEncodable(as, values.data() + row * cols, cols)) ++row;
  return row;
}

Failure NotEncodable(const std::string& where, int64_t row, format::Format format) {
  return {
      fmt::format("{} has a number in row {} that is infinite, none, or too large for {}; rung verify says "
                  "more, bf16 and f32 keep it as it is",
                  where, row, format::Of(format).name)};
}

FolderSource::FolderSource(io::Safetensors tensors, FolderRead read)
    : tensors_(std::move(tensors)), read_(read), quantization_(ReadQuantization(FolderOf(tensors_))) {}

bool FolderSource::Has(const std::string& name) const {
  if (tensors_.Find(name)) return true;
  const std::string module = Module(name);
  return tensors_.Find(module + ".weight") != nullptr || tensors_.Find(module + ".qweight") != nullptr;
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

Result<std::vector<std::byte>> FolderSource::ReadBytes(const io::TensorEntry& entry) const {
  std::vector<std::byte> bytes(entry.bytes);
  if (Status read = tensors_.Read(entry, 0, bytes); !read.ok()) return read.failure();
  return bytes;
}

Failure FolderSource::Unreadable(const io::TensorEntry& entry) const {
  return {fmt::format("{}: tensor {} has dtype {}, which is not supported; F32, F16, BF16 and F8_E4M3 are",
                      tensors_.path(entry).string(), entry.name, entry.dtype)};
}

Failure FolderSource::NoFloat(const io::TensorEntry& entry) const {
  return {fmt::format("{}: tensor {} has dtype {}; F32, F16 or BF16 is expected",
                      tensors_.path(entry).string(), entry.name, entry.dtype)};
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

Result<format::Matrix> FolderSource::ReadMatrix(const std::string& name, int64_t rows, int64_t cols,
                                                Quantize quantize, bool transposed) {
  if (!quantization_.ok()) return quantization_.failure();
  const std::string module = Module(name);
  // Quantisers turn layers of (in, out) to (out, in) themselves.
  if (tensors_.Find(module + ".qweight")) return ReadInt4(module, rows, cols);
  // A parameter of no module has no ".weight".
  const std::string weight =
      tensors_.Find(module + ".weight") || !tensors_.Find(module) ? module + ".weight" : module;
  if (const FourBit* kind = FourBitOf(tensors_, weight)) return ReadFourBit(weight, *kind, rows, cols);
  Result<const io::TensorEntry*> entry = transposed ? Find(weight, {cols, rows}) : Find(weight, {rows, cols});
  if (!entry.ok()) return entry.failure();
  if (!FloatOrFloat8(entry.value()->dtype)) return Unreadable(*entry.value());
  Float8Scales scales;
  if (!FloatFormat(entry.value()->dtype)) {
    if (transposed) return Failure{fmt::format("{}: a layer of (in, out) is not read as F8_E4M3", weight)};
    Result<Float8Scales> read = ReadFloat8Scales(module, rows, cols);
    if (!read.ok()) return read.failure();
    scales = std::move(read).value();
  }
  return ReadFloat(*entry.value(), rows, cols, quantize, transposed, scales);
}

Result<format::Matrix> FolderSource::ReadFloat(const io::TensorEntry& entry, int64_t rows, int64_t cols,
                                               Quantize quantize, bool transposed,
                                               const Float8Scales& scales) {
  FloatRows source(tensors_, entry, rows, cols, transposed, &scales);
  const std::optional<format::Format> target = FormatOf(quantize);
  if (!target || (*target == source.format() && scales.count == 0)) {
    return KeepFloat(&source, entry, transposed, scales);
  }
  if (*target == format::Format::kNf4) return EncodeFourBit(&source, entry, quantize == Quantize::kNf4);
  if (Status fits = CheckBlocks(entry.name, quantize, cols); !fits.ok()) return fits.failure();
  return EncodePlain(&source, entry, *target);
}

Result<format::Matrix> FolderSource::KeepFloat(FloatRows* source, const io::TensorEntry& entry,
                                               bool transposed, const Float8Scales& scales) {
  format::Matrix matrix;
  matrix.format = source->format();
  matrix.rows = source->rows();
  matrix.cols = source->cols();
  if (!transposed || shapes_only()) {
    Result<std::byte*> data = ReadKept(entry);
    if (!data.ok()) return data.failure();
    matrix.data = data.value();
  } else {
    std::byte* data = Keep(entry.bytes);
    if (Status read = source->ReadStored(0, source->rows(), data); !read.ok()) return read.failure();
    matrix.data = data;
  }
  totals_.Add(std::string(format::Of(matrix.format).name),
              entry.bytes + static_cast<uint64_t>(scales.count) * sizeof(float));
  if (scales.count == 0) return matrix;
  float8_.push_back(std::make_unique<Float8Scales>(scales));
  matrix.tiles.scale = shapes_only() ? nullptr : float8_.back()->values.data();
  matrix.tiles.rows = scales.rows;
  matrix.tiles.cols = scales.cols;
  matrix.tiles.groups = scales.groups;
  return matrix;
}

Result<format::Matrix> FolderSource::EncodeFourBit(FloatRows* source, const io::TensorEntry& entry,
                                                   bool nested) {
  format::Matrix matrix;
  matrix.format = format::Format::kNf4;
  matrix.rows = source->rows();
  matrix.cols = source->cols();
  AddFourBitBytes(&totals_, "nf4", matrix.rows * matrix.cols, nested);
  if (shapes_only()) return matrix;
  Result<format::Nf4Encoded> encoded = EncodeRows(source, nested, Where(tensors_, entry));
  if (!encoded.ok()) return encoded.failure();
  encoded_.push_back(std::make_unique<format::Nf4Encoded>(std::move(encoded).value()));
  const format::Nf4Encoded& kept = *encoded_.back();
  matrix.data = reinterpret_cast<const std::byte*>(kept.codes.data());
  matrix.scales.absmax = kept.absmax.data();
  if (nested) {
    matrix.scales.codes = kept.nested_codes.data();
    matrix.scales.map = format::Nf4NestedMap().data();
    matrix.scales.offset = kept.offset;
  }
  return matrix;
}

Result<format::Matrix> FolderSource::EncodePlain(FloatRows* source, const io::TensorEntry& entry,
                                                 format::Format format) {
  format::Matrix matrix;
  matrix.format = format;
  matrix.rows = source->rows();
  matrix.cols = source->cols();
  const int64_t row_bytes = format::DataBytes(format, 1, matrix.cols);
  totals_.Add(std::string(format::Of(format).name), static_cast<uint64_t>(matrix.rows * row_bytes));
  if (shapes_only()) return matrix;
  std::byte* data = Keep(static_cast<size_t>(matrix.rows * row_bytes));
  matrix.data = data;
  const int64_t step = source->PieceRows(1);
  std::vector<float> values;
  for (int64_t begin = 0; begin < matrix.rows; begin += step) {
    const int64_t end = std::min(begin + step, matrix.rows), count = (end - begin) * matrix.cols;
    values.resize(static_cast<size_t>(count));
    if (Status read = source->Read(begin, end, values.data()); !read.ok()) return read.failure();
    if (const int64_t row = UnencodableRow(format, values, matrix.cols); row >= 0) {
      return NotEncodable(Where(tensors_, entry), begin + row, format);
    }
    format::Encode(format, values.data(), count, data + begin * row_bytes);
  }
  return matrix;
}

Result<std::vector<float>> FolderSource::ReadFloats(const io::TensorEntry& entry) const {
  const std::optional<format::Format> format = FloatFormat(entry.dtype);
  if (!format) return NoFloat(entry);
  const auto count = static_cast<int64_t>(entry.bytes) / format::Of(*format).block_bytes;
  std::vector<float> values(static_cast<size_t>(count));
  if (count == 0) return values;
  FloatRows row(tensors_, entry, 1, count);
  if (Status read = row.Read(0, 1, values.data()); !read.ok()) return read.failure();
  return values;
}

Result<std::vector<float>> FolderSource::ReadVector(const std::string& name, int64_t size) {
  Result<const io::TensorEntry*> entry = Find(name, {size});
  if (!entry.ok()) return entry.failure();
  if (!FloatFormat(entry.value()->dtype)) return NoFloat(*entry.value());
  totals_.Add("f32", static_cast<uint64_t>(size) * sizeof(float));
  if (shapes_only()) return std::vector<float>();
  return ReadFloats(*entry.value());
}

std::optional<format::Format> FormatOf(Quantize quantize) {
  switch (quantize) {
    case Quantize::kNone:
      return std::nullopt;
    case Quantize::kNf4:
    case Quantize::kNf4Single:
      return format::Format::kNf4;
    case Quantize::kQ8_0:
      return format::Format::kQ8_0;
    case Quantize::kQ4_0:
      return format::Format::kQ4_0;
    case Quantize::kQ4_1:
      return format::Format::kQ4_1;
    case Quantize::kQ5_0:
      return format::Format::kQ5_0;
    case Quantize::kQ5_1:
      return format::Format::kQ5_1;
    case Quantize::kBf16:
      return format::Format::kBf16;
    case Quantize::kF16:
      return format::Format::kF16;
    case Quantize::kF32:
      return format::Format::kF32;
    case Quantize::kMxfp4:
      return format::Format::kMxfp4;
  }
  return std::nullopt;
}

Status CheckBlocks(const std::string& tensor, Quantize quantize, int64_t cols) {
  const std::optional<format::Format> format = FormatOf(quantize);
  if (!format || *format == format::Format::kNf4 || cols % format::Of(*format).block == 0) return Ok{};
  return UsageFailure(
      fmt::format("tensor {} has rows of {} weights, which blocks of {} do not divide: {} is not "
                  "possible; --keep \"{}=nf4\" is, or none",
                  tensor, cols, format::Of(*format).block, NameOf(quantize), tensor));
}

void AddFourBitBytes(WeightTotals* totals, const std::string& format, int64_t weights, bool nested) {
  totals->Add(nested ? format : format + "-single",
              static_cast<uint64_t>(CeilDiv(weights, 2) + format::Nf4ScaleBytes(weights, nested)));
}

}  // namespace rung::model
