#include "cli/merge_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/half.h"
#include "cli/merge_source.h"
#include "cli/merge_texts.h"
#include "cli/quantize_output.h"
#include "io/safetensors_writer.h"
#include "kernels/cpu/dense.h"
#include "model/adapter_file.h"

namespace rung::cli {
namespace {

constexpr int64_t kTile = int64_t{4} << 20;  // weights that are merged at once
constexpr uint64_t kEntryBytes = 256;        // of a tensor in a header, at most

void Require(const Status& status) {
  if (!status.ok()) throw Error(status.failure().code, status.failure().message);
}

// The type of the output's numbers.
struct Type {
  const char *name, *stored;  // as configurations and safetensors name it
  size_t bytes;
};
constexpr Type kTypes[] = {{"bfloat16", "BF16", 2}, {"float16", "F16", 2}, {"float32", "F32", 4}};

const Type& TypeOf(const std::string& name, const MergeSource& source) {
  if (name == "auto") return kTypes[source.half_precision() && !source.quantized() ? 1 : 0];
  for (const Type& type : kTypes) {
    if (name == type.name) return type;
  }
  throw Error(ExitCode::kUsage, fmt::format("--dtype {}: known are bfloat16, float16", name));
}

// Pairs by the name of the matrix they belong to; the adapter owns the numbers.
struct Pair {
  Tensor a, b;
};
std::map<std::string, Pair> PairsOf(const model::Adapter& adapter) {
  constexpr std::string_view kWrapped = "base_model.model.";
  std::map<std::string, Pair> pairs;
  adapter.ForEachParam([&](nn::Param& param) {
    const bool is_a = param.name.ends_with(".lora_A.weight");
    const std::string matrix =
        param.name.substr(kWrapped.size(), param.name.rfind(".lora_") - kWrapped.size());
    (is_a ? pairs[matrix + ".weight"].a : pairs[matrix + ".weight"].b) = param.value;
  });
  return pairs;
}

class Merger {
 public:
  Merger(MergeSource& source, const model::Adapter& adapter, const Type& type, const cpu::Context& context)
      : source_(source), type_(type), context_(context), pairs_(PairsOf(adapter)) {
    const float scale = adapter.lora()->spec().scale();
    for (auto& [name, pair] : pairs_) {
      std::vector<float>& scaled = scaled_b_[name];
      const float* b = In(pair.b).as<float>();
      scaled.assign(b, b + pair.b.size());
      for (float& value : scaled) value *= scale;
    }
  }

  io::TensorLayout LayoutOf(const SourceTensor& tensor) const {
    return {tensor.name, tensor.dtype.empty() ? type_.stored : tensor.dtype, tensor.shape};
  }
  uint64_t BytesOf(const SourceTensor& tensor) const {
    const uint64_t width = tensor.dtype.empty() ? type_.bytes : 8;
    return static_cast<uint64_t>(tensor.rows() * tensor.cols()) * width + kEntryBytes;
  }
  // Tensor `number` of `writer`. True when a pair was added to it.
  bool Write(const SourceTensor& tensor, size_t number, io::SafetensorsWriter* writer) {
    source_.Select(tensor);
    if (!tensor.dtype.empty()) {
      Require(writer->Write(number, 0, source_.ReadBytes()));
      return false;
    }
    const auto pair = pairs_.find(tensor.name);
    const int64_t rows = tensor.rows(), cols = tensor.cols();
    const int64_t step = std::max<int64_t>(1, kTile / std::max<int64_t>(1, cols));
    for (int64_t begin = 0; begin < rows && cols > 0; begin += step) {
      const int64_t end = std::min(rows, begin + step);
      tile_.resize(static_cast<size_t>((end - begin) * cols));
      source_.ReadRows(begin, end, tile_.data());
      if (pair != pairs_.end()) Add(tensor.name, pair->second, begin, end, cols);
      const uint64_t at = static_cast<uint64_t>(begin * cols) * type_.bytes;
      Require(writer->Write(number, at, Rounded(tensor.name)));
    }
    return pair != pairs_.end();
  }

 private:
  // tile += (s B) A, its rows.
  void Add(const std::string& name, const Pair& pair, int64_t begin, int64_t end, int64_t cols) {
    const int64_t R = pair.a.rows();
    const float* b = scaled_b_.at(name).data() + begin * R;
    cpu::DenseGradInput(context_, b, R, In(pair.a).as<float>(), cols, end - begin, cols, R, true,
                        tile_.data(), cols);
  }
  std::span<const std::byte> Rounded(const std::string& name) {
    if (type_.bytes == 4) return std::as_bytes(std::span(tile_));
    half_.resize(tile_.size());
    if (type_.stored == std::string_view("BF16")) {
      for (size_t i = 0; i < tile_.size(); ++i) half_[i] = ToBf16(tile_[i]).bits;
      return std::as_bytes(std::span(half_));
    }
    float largest = 0.0f;
    for (size_t i = 0; i < tile_.size(); ++i) {
      half_[i] = ToF16(tile_[i]).bits;
      largest = std::max(largest, std::abs(tile_[i]));
    }
    if (largest > 65504.0f) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("--dtype float16: tensor {} has a weight of {}, float16 ends at 65504; use "
                              "--dtype bfloat16",
                              name, largest));
    }
    return std::as_bytes(std::span(half_));
  }

  MergeSource& source_;
  const Type& type_;
  cpu::Context context_;
  std::map<std::string, Pair> pairs_;
  std::map<std::string, std::vector<float>> scaled_b_;
  std::vector<float> tile_;
  std::vector<uint16_t> half_;
};

// Numbers of the first tensor of every file, and the number of all behind the last.
std::vector<size_t> ShardBounds(const Merger& merger, const std::vector<SourceTensor>& tensors,
                                uint64_t shard_bytes) {
  std::vector<size_t> bounds = {0};
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t more = merger.BytesOf(tensors[i]);
    if (bytes > 0 && bytes + more > shard_bytes) {
      bounds.push_back(i);
      bytes = 0;
    }
    bytes += more;
  }
  bounds.push_back(tensors.size());
  return bounds;
}

void WriteShards(Merger& merger, const std::vector<SourceTensor>& tensors, const MergeOptions& options,
                 const Path& folder, const MergeProgress& on_progress, MergeResult* result) {
  const std::vector<size_t> bounds = ShardBounds(merger, tensors, options.shard_bytes);
  const size_t shards = bounds.size() - 1;
  std::map<std::string, std::string> file_of;
  for (size_t shard = 0; shard < shards; ++shard) {
    const std::string file = shards == 1 ? "model.safetensors"
                                         : fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, shards);
    std::vector<io::TensorLayout> layouts;
    for (size_t i = bounds[shard]; i < bounds[shard + 1]; ++i) layouts.push_back(merger.LayoutOf(tensors[i]));
    io::SafetensorsWriter writer =
        io::SafetensorsWriter::Create(folder / file, std::move(layouts), {{"format", "pt"}}, 0).OrThrow();
    for (size_t i = bounds[shard]; i < bounds[shard + 1]; ++i) {
      result->merged += merger.Write(tensors[i], i - bounds[shard], &writer);
      file_of[tensors[i].name] = file;
      if (on_progress && !on_progress(i + 1, tensors.size())) {
        throw Error(ExitCode::kInterrupted, "interrupted: nothing was kept");
      }
    }
    Require(writer.Commit());
    result->bytes += writer.bytes();
  }
  if (shards > 1)
    Require(WriteTextFile(folder / "model.safetensors.index.json", ShardIndex(file_of, result->bytes)));
}

model::Adapter LoadPairs(const MergeOptions& options, const model::Config& config,
                         const model::AdapterInfo& info) {
  if (info.spec.ladder) {
    throw Error(
        ExitCode::kUsage,
        fmt::format("--adapter {}: a ladder cannot be merged: it is a network beside the model, not a "
                    "change of the model's weights; run it with --adapter",
                    options.adapter.string()));
  }
  // In Hugging Face's order of rows, in which the output is written.
  model::Config hf = config;
  hf.rope.half = true;
  return model::LoadAdapter(options.adapter, hf, false, 1).OrThrow();
}

}  // namespace

MergeResult MergeModel(const MergeOptions& options, const MergeProgress& on_progress) {
  MergeSource source(options.model);
  const model::AdapterInfo info = model::ReadAdapterInfo(options.adapter, source.config()).OrThrow();
  const model::Adapter adapter = LoadPairs(options, source.config(), info);
  const Type& type = TypeOf(options.dtype, source);
  MergeResult result;
  result.dtype = type.name;
  result.from_quantized = source.quantized();
  result.has_tokenizer = !source.is_gguf();
  const std::string config = MergedConfig(source, options.model, type.name);
  NewFolder folder(options.out);
  try {
    Merger merger(source, adapter, type, options.context);
    uint64_t needed = 0;
    for (const SourceTensor& tensor : source.tensors()) needed += merger.BytesOf(tensor);
    CheckSpace(folder.path(), needed);
    WriteShards(merger, source.tensors(), options, folder.path(), on_progress, &result);
    if (!source.is_gguf()) CopyModelTexts(options.model, folder.path());
    // The merged model was trained with this one.
    if (!info.chat_template.empty()) {
      Require(WriteTextFile(folder.path() / "chat_template.jinja", info.chat_template));
    }
    Require(WriteTextFile(folder.path() / "config.json", config));
    folder.Commit();
  } catch (const std::filesystem::filesystem_error& failed) {
    throw Error(ExitCode::kFailed, failed.what());
  }
  return result;
}

}  // namespace rung::cli
