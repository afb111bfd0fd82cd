// Matrices of a folder that another program quantised: bitsandbytes' NF4 and FP4, GPTQ, AWQ, float8.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/rounding.h"
#include "io/json_file.h"
#include "model/folder_weights.h"

namespace rung::model {
namespace {

constexpr uint64_t kStateLimit = uint64_t{1} << 20;  // bytes; written ones have some hundred

template <class T>
std::span<const T> As(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
}

}  // namespace

Result<const io::TensorEntry*> FolderSource::Part(const std::string& name, const char* dtype,
                                                  int64_t count) const {
  const io::TensorEntry* entry = tensors_.Find(name);
  if (!entry) return Failure{fmt::format("tensor {} is missing", name)};
  const int64_t found = io::ElementCount(entry->shape);
  if (entry->dtype != dtype || found != count) {
    return Failure{fmt::format("{}: tensor {} is {} of {} elements, {} of {} are expected",
                               tensors_.path(*entry).string(), name, entry->dtype, found, dtype, count)};
  }
  return entry;
}

Result<float> FolderSource::ReadState(const std::string& name, const FourBit& kind, int64_t rows,
                                      int64_t cols, bool nested) const {
  const io::TensorEntry& entry = *tensors_.Find(name + kind.state);
  const std::string where = fmt::format("{}: {}", tensors_.path(entry).string(), entry.name);
  if (entry.dtype != "U8" || entry.bytes > kStateLimit) {
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
  if (!fields.is_object() || !is("quant_type", kind.name) || !is("blocksize", format::kNf4Block) ||
      !is("shape", nlohmann::json::array({rows, cols}))) {
    return Failure{fmt::format(
        "{} must describe {} in blocks of 64 (the only size that is read) of shape "
        "{}x{}, it says {}",
        where, kind.name, rows, cols, fields.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace))};
  }
  if (!nested) return 0.0f;
  const auto offset = fields.find("nested_offset");
  if (!is("nested_blocksize", format::kNf4NestedBlock) || offset == fields.end() || !offset->is_number()) {
    return Failure{fmt::format("{} has no nested_blocksize 256 and nested_offset", where)};
  }
  const auto value = offset->get<float>();
  if (!std::isfinite(value)) {
    return Failure{
        fmt::format("{}: nested_offset {} is no finite f32: the file is damaged", where, offset->dump())};
  }
  return value;
}

// Scales that are no numbers would make a row of weights so, and every token that reads it.
Status FolderSource::CheckScales(const std::string& name, const std::byte* scales, int64_t count) const {
  if (!scales) return Ok{};
  const std::span<const float> values(reinterpret_cast<const float*>(scales), static_cast<size_t>(count));
  const auto bad = std::find_if(values.begin(), values.end(), [](float x) { return !std::isfinite(x); });
  if (bad == values.end()) return Ok{};
  return Failure{fmt::format("{}: tensor {} has {} at place {}: the file is damaged",
                             tensors_.path(*tensors_.Find(name)).string(), name, *bad, bad - values.begin())};
}

Result<format::Matrix> FolderSource::ReadFourBit(const std::string& name, const FourBit& kind, int64_t rows,
                                                 int64_t cols) {
  const bool nested = tensors_.Find(name + ".nested_absmax") != nullptr;
  Result<float> offset = ReadState(name, kind, rows, cols, nested);
  if (!offset.ok()) return offset.failure();
  const auto part = [&](const char* suffix, const char* dtype, int64_t count) -> Result<std::byte*> {
    Result<const io::TensorEntry*> entry = Part(name + suffix, dtype, count);
    if (!entry.ok()) return entry.failure();
    return ReadKept(*entry.value());
  };
  const int64_t weights = rows * cols, blocks = CeilDiv(weights, format::kNf4Block);
  const int64_t bytes = CeilDiv(weights, 2);
  // Some programs keep the bytes of the codes under a wider dtype.
  const io::TensorEntry* codes = tensors_.Find(name);
  if (!codes || codes->bytes != static_cast<uint64_t>(bytes)) {
    if (Result<std::byte*> wrong = part("", "U8", bytes); !wrong.ok()) return wrong.failure();
  }
  format::Matrix matrix;
  matrix.format = kind.format;
  matrix.rows = rows;
  matrix.cols = cols;
  Result<std::byte*> data = ReadKept(*codes);
  if (!data.ok()) return data.failure();
  matrix.data = data.value();
  Result<std::byte*> absmax = part(".absmax", nested ? "U8" : "F32", blocks);
  if (!absmax.ok()) return absmax.failure();
  AddFourBitBytes(&totals_, kind.name, weights, nested);
  if (!nested) {
    if (Status good = CheckScales(name + ".absmax", absmax.value(), blocks); !good.ok())
      return good.failure();
    matrix.scales.absmax = reinterpret_cast<const float*>(absmax.value());
    return matrix;
  }
  const int64_t outer = CeilDiv(blocks, format::kNf4NestedBlock);
  Result<std::byte*> second = part(".nested_absmax", "F32", outer);
  if (!second.ok()) return second.failure();
  // Always the file's own map: some writers changed its first entry.
  Result<std::byte*> map = part(".nested_quant_map", "F32", 256);
  if (!map.ok()) return map.failure();
  if (Status good = CheckScales(name + ".nested_absmax", second.value(), outer); !good.ok()) {
    return good.failure();
  }
  if (Status good = CheckScales(name + ".nested_quant_map", map.value(), 256); !good.ok()) {
    return good.failure();
  }
  matrix.scales = {reinterpret_cast<const float*>(second.value()),
                   reinterpret_cast<const uint8_t*>(absmax.value()),
                   reinterpret_cast<const float*>(map.value()), offset.value()};
  return matrix;
}

Result<int64_t> FolderSource::ReadGroups(const std::string& module, int64_t cols,
                                         std::vector<int32_t>* index) const {
  const Quantization& q = quantization_.value();
  std::vector<std::byte> bytes;
  // Read by plans too: it decides what is kept.
  if (q.method == Quantization::Method::kGptq && tensors_.Find(module + ".g_idx")) {
    Result<const io::TensorEntry*> entry = Part(module + ".g_idx", "I32", cols);
    if (!entry.ok()) return entry.failure();
    Result<std::vector<std::byte>> read = ReadBytes(*entry.value());
    if (!read.ok()) return read.failure();
    bytes = std::move(read).value();
  }
  Result<int64_t> groups = GroupsOf(As<int32_t>(bytes), cols, q.group, index);
  if (!groups.ok()) return Failure{fmt::format("tensor {}.g_idx: {}", module, groups.failure().message)};
  return groups;
}

Result<Int4Matrix> FolderSource::Repack(const std::string& module, int64_t rows, int64_t cols,
                                        int64_t groups) {
  Int4Parts parts;
  parts.layout =
      quantization_.value().method == Quantization::Method::kAwq ? Int4Layout::kAwq : Int4Layout::kGptq;
  parts.rows = rows;
  parts.cols = cols;
  parts.groups = groups;
  parts.zeros_less_one = parts.layout == Int4Layout::kGptq && quantization_.value().zeros_less_one;
  Result<std::vector<std::byte>> qweight = ReadBytes(*tensors_.Find(module + ".qweight"));
  if (!qweight.ok()) return qweight.failure();
  Result<std::vector<std::byte>> qzeros = ReadBytes(*tensors_.Find(module + ".qzeros"));
  if (!qzeros.ok()) return qzeros.failure();
  Result<std::vector<float>> scales = ReadFloats(*tensors_.Find(module + ".scales"));
  if (!scales.ok()) return scales.failure();
  parts.qweight = qweight.value();
  parts.qzeros = qzeros.value();
  parts.scales = scales.value();
  return RepackInt4(parts);
}

Result<format::Matrix> FolderSource::ReadInt4(const std::string& module, int64_t rows, int64_t cols) {
  const Quantization& q = quantization_.value();
  const bool awq = q.method == Quantization::Method::kAwq;
  if (!awq && q.method != Quantization::Method::kGptq) {
    return Failure{
        fmt::format("tensor {}.qweight: the folder's config.json has no quantization_config of "
                    "gptq or awq, which says how it is packed",
                    module)};
  }
  if (rows % kInt4Word != 0 || cols % kInt4Word != 0) {
    return Failure{fmt::format("tensor {}.qweight: {}x{} has rows or columns that are no multiple of 8",
                               module, rows, cols)};
  }
  std::vector<int32_t> index;
  Result<int64_t> groups = ReadGroups(module, cols, &index);
  if (!groups.ok()) return groups.failure();
  const int64_t G = groups.value();
  struct Wanted {
    const char* suffix;
    std::vector<int64_t> shape;
    bool words;
  };
  const Wanted wanted[] = {
      {".qweight",
       awq ? std::vector<int64_t>{cols, rows / kInt4Word} : std::vector<int64_t>{cols / kInt4Word, rows},
       true},
      {".qzeros", {G, rows / kInt4Word}, true},
      {".scales", {G, rows}, false}};
  for (const Wanted& part : wanted) {
    Result<const io::TensorEntry*> entry = Find(module + part.suffix, part.shape);
    if (!entry.ok()) return entry.failure();
    const std::string& dtype = entry.value()->dtype;
    if (part.words ? dtype != "I32" && dtype != "U32" : !FloatFormat(dtype)) {
      return Failure{fmt::format("{}: tensor {} has dtype {}, {} is expected",
                                 tensors_.path(*entry.value()).string(), entry.value()->name, dtype,
                                 part.words ? "I32" : "F16, BF16 or F32")};
    }
  }
  int4_.push_back(std::make_unique<Int4Matrix>());
  if (!shapes_only()) {
    Result<Int4Matrix> packed = Repack(module, rows, cols, G);
    if (!packed.ok()) {
      return Failure{fmt::format("tensor {}.qweight: {}", module, packed.failure().message)};
    }
    *int4_.back() = std::move(packed).value();
  }
  int4_.back()->index = std::move(index);
  format::Matrix matrix = ViewOf(*int4_.back(), rows, cols, G, q.group);
  totals_.Add(std::string(format::Of(matrix.format).name),
              Int4Bytes(rows, cols, G, !int4_.back()->index.empty()));
  return matrix;
}

Result<Float8Scales> FolderSource::ReadFloat8Scales(const std::string& module, int64_t rows,
                                                    int64_t cols) const {
  const Quantization& q = quantization_.value();
  const io::TensorEntry* entry = tensors_.Find(module + ".weight_scale_inv");
  if (!entry) entry = tensors_.Find(module + ".weight_scale");
  Float8Scales scales;
  if (!entry) {
    if (q.method != Quantization::Method::kFloat8) return scales;
    return Failure{
        fmt::format("tensor {}.weight is F8_E4M3 and has neither weight_scale nor "
                    "weight_scale_inv beside it",
                    module)};
  }
  scales.count = io::ElementCount(entry->shape);
  const std::vector<int64_t> grid = {CeilDiv(rows, q.tile_rows), CeilDiv(cols, q.tile_cols)};
  const bool by_row =
      entry->shape == std::vector<int64_t>{rows} || entry->shape == std::vector<int64_t>{rows, 1};
  if (!by_row && scales.count != 1) {
    if (entry->shape != grid) {
      return Failure{
          fmt::format("{}: tensor {} is {}; for {}x{} in tiles of {}x{} it must be {}, or one "
                      "number, or one for each row",
                      tensors_.path(*entry).string(), entry->name, ShapeText(entry->shape), rows, cols,
                      q.tile_rows, q.tile_cols, ShapeText(grid))};
    }
    scales.rows = q.tile_rows;
    scales.cols = q.tile_cols;
  } else {
    scales.rows = scales.count == 1 ? rows : 1;
    scales.cols = cols;
  }
  scales.groups = CeilDiv(cols, scales.cols);
  if (!FloatFormat(entry->dtype)) return NoFloat(*entry);
  if (shapes_only()) return scales;
  Result<std::vector<float>> values = ReadFloats(*entry);
  if (!values.ok()) return values.failure();
  for (size_t i = 0; i < values.value().size(); ++i) {
    if (std::isfinite(values.value()[i])) continue;
    return Failure{fmt::format("{}: tensor {} has {} at place {}: the file is damaged",
                               tensors_.path(*entry).string(), entry->name, values.value()[i], i)};
  }
  scales.values = std::move(values).value();
  return scales;
}

}  // namespace rung::model
