#include "convert/nf4_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "io/json_file.h"
#include "model/four_bit.h"

namespace rung::convert {
namespace {

// A quant_state and its entry in the header, at most: names are some 80 bytes, the state 250.
constexpr uint64_t kStateBytes = 512;
// The entry of any other tensor in the header, at most.
constexpr uint64_t kEntryBytes = 256;

template <class T>
std::span<const std::byte> BytesOf(const T& values) {
  return std::as_bytes(std::span(values));
}

// How Python names a dtype.
std::string TorchName(const std::string& dtype) {
  return dtype == "BF16" ? "bfloat16" : dtype == "F16" ? "float16" : "float32";
}

int64_t Width(const std::string& dtype) { return std::max(1, io::BitsOfDtype(dtype) / 8); }

// The tensors of the file whose sizes are known before any number is: all but the states.
void Place(const OutputTensor& tensor, bool nested, std::vector<io::TensorLayout>* layouts) {
  if (!tensor.nf4) {
    layouts->push_back({tensor.name, tensor.dtype, tensor.shape});
    return;
  }
  const int64_t n = tensor.shape[0] * tensor.shape[1];
  const int64_t blocks = (n + format::kNf4Block - 1) / format::kNf4Block;
  layouts->push_back({tensor.name, "U8", {(n + 1) / 2, 1}});
  layouts->push_back({tensor.name + ".absmax", nested ? "U8" : "F32", {blocks}});
  layouts->push_back({tensor.name + ".quant_map", "F32", {16}});
  if (!nested) return;
  const int64_t outer = (blocks + format::kNf4NestedBlock - 1) / format::kNf4NestedBlock;
  layouts->push_back({tensor.name + ".nested_absmax", "F32", {outer}});
  layouts->push_back({tensor.name + ".nested_quant_map", "F32", {256}});
}

std::vector<io::TensorLayout> Layouts(std::span<const OutputTensor> tensors, bool nested) {
  std::vector<io::TensorLayout> layouts;
  for (const OutputTensor& tensor : tensors) Place(tensor, nested, &layouts);
  std::stable_sort(layouts.begin(), layouts.end(), [](const io::TensorLayout& a, const io::TensorLayout& b) {
    return Width(a.dtype) > Width(b.dtype);
  });
  return layouts;
}

uint64_t StatesReserve(std::span<const OutputTensor> tensors) {
  return kStateBytes * static_cast<uint64_t>(std::count_if(tensors.begin(), tensors.end(),
                                                           [](const OutputTensor& t) { return t.nf4; }));
}

}  // namespace

uint64_t OutputBytes(const OutputTensor& tensor, bool nested) {
  std::vector<io::TensorLayout> layouts;
  Place(tensor, nested, &layouts);
  uint64_t bytes = tensor.nf4 ? kStateBytes : 0;
  for (const io::TensorLayout& layout : layouts) {
    uint64_t bits = static_cast<uint64_t>(io::BitsOfDtype(layout.dtype));
    for (const int64_t dim : layout.shape) bits *= static_cast<uint64_t>(dim);
    bytes += bits / 8 + kEntryBytes;
  }
  return bytes;
}

uint64_t OutputBytes(std::span<const OutputTensor> tensors, bool nested) {
  uint64_t bytes = 0;
  for (const OutputTensor& tensor : tensors) bytes += OutputBytes(tensor, nested);
  return bytes;
}

Nf4File::Nf4File(const Path& path, std::span<const OutputTensor> tensors, bool nested)
    : nested_(nested),
      writer_(io::SafetensorsWriter::Create(path, Layouts(tensors, nested), {{"format", "pt"}},
                                            StatesReserve(tensors))
                  .OrThrow()) {
  for (const io::TensorLayout& layout : Layouts(tensors, nested)) {
    place_[layout.name] = names_.size();
    names_.push_back(layout.name);
  }
}

void Nf4File::Write(const std::string& name, uint64_t begin, std::span<const std::byte> bytes) {
  writer_.Write(place_.at(name), begin, bytes).OrThrow();
}

void Nf4File::WriteScales(const OutputTensor& tensor, const format::Nf4Encoded& scales) {
  const std::string& name = tensor.name;
  Write(name + ".quant_map", 0, BytesOf(format::kNf4Level));
  if (nested_) {
    Write(name + ".absmax", 0, BytesOf(scales.nested_codes));
    Write(name + ".nested_absmax", 0, BytesOf(scales.absmax));
    Write(name + ".nested_quant_map", 0, BytesOf(format::Nf4NestedMap()));
  } else {
    Write(name + ".absmax", 0, BytesOf(scales.absmax));
  }
  states_[name] =
      QuantStateJson(TorchName(tensor.dtype), tensor.shape[0], tensor.shape[1], nested_, scales.offset);
}

void Nf4File::Commit() {
  for (const auto& [name, state] : states_) {
    names_.push_back(name + std::string(model::kNf4State));
    writer_.Append({names_.back(), "U8", {static_cast<int64_t>(state.size())}}, BytesOf(state)).OrThrow();
  }
  writer_.Commit().OrThrow();
}

uint64_t WriteShards(const ShardOptions& options, std::span<const OutputTensor> tensors,
                     const std::function<void(size_t number, Nf4File* file)>& write) {
  std::vector<uint64_t> sizes;
  for (const OutputTensor& tensor : tensors) sizes.push_back(OutputBytes(tensor, options.nested));
  const std::vector<Shard> shards = ShardsOf(sizes, options.bytes);
  std::map<std::string, std::string> file_of;
  uint64_t bytes = 0;
  for (const Shard& shard : shards) {
    Nf4File file(options.folder / shard.file, tensors.subspan(shard.begin, shard.end - shard.begin),
                 options.nested);
    for (size_t i = shard.begin; i < shard.end; ++i) {
      write(i, &file);
      Report(options.on_progress, i + 1, tensors.size());
    }
    file.Commit();
    bytes += file.bytes();
    for (const std::string& name : file.names()) file_of[name] = shard.file;
  }
  if (shards.size() > 1) WriteShardIndex(options.folder, file_of, bytes);
  return bytes;
}

std::string WithQuantizationConfig(const std::string& config_json, bool nested,
                                   const std::vector<std::string>& plain) {
  nlohmann::json config = io::ParseJson(config_json, "config.json").OrThrow();
  const nlohmann::json skipped = plain.empty() ? nlohmann::json(nullptr) : nlohmann::json(plain);
  config["quantization_config"] = {{"quant_method", "bitsandbytes"},
                                   {"load_in_4bit", true},
                                   {"load_in_8bit", false},
                                   {"bnb_4bit_quant_type", "nf4"},
                                   {"bnb_4bit_use_double_quant", nested},
                                   {"bnb_4bit_compute_dtype", "bfloat16"},
                                   {"bnb_4bit_quant_storage", "uint8"},
                                   {"llm_int8_skip_modules", skipped}};
  return config.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string QuantStateJson(const std::string& dtype, int64_t rows, int64_t cols, bool nested,
                           float nested_offset) {
  std::string text =
      fmt::format(R"({{"quant_type": "nf4", "blocksize": {}, "dtype": "{}", "shape": [{}, {}])",
                  format::kNf4Block, dtype, rows, cols);
  if (nested) {
    std::string offset = fmt::format("{}", static_cast<double>(nested_offset));
    // Python writes a whole number with a point.
    if (offset.find_first_of(".en") == std::string::npos) offset += ".0";
    text += fmt::format(R"(, "nested_blocksize": {}, "nested_dtype": "float32", "nested_offset": {})",
                        format::kNf4NestedBlock, offset);
  }
  return text + "}";
}

}  // namespace rung::convert
