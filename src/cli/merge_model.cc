#include "cli/merge_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/half.h"
#include "cli/merge_source.h"
#include "cli/merge_texts.h"
#include "cli/output_folder.h"
#include "io/safetensors_writer.h"
#include "kernels/cpu/dense.h"
#include "model/adapter_file.h"

namespace rung::cli {
namespace {

constexpr int64_t kTile = int64_t{4} << 20;  // weights that are merged at once
constexpr uint64_t kEntryBytes = 256;        // of a tensor in a header, at most

// The type of the output's numbers.
struct Type {
  const char *name, *stored;  // as configurations and safetensors name it
  size_t bytes;
};
constexpr Type kTypes[] = {{"bfloat16", "BF16", 2}, {"float16", "F16", 2}, {"float32", "F32", 4}};

// More than half of the known weights are stored so.
bool MostAre(const MergeSource& source, const std::string& format) {
  int64_t such = 0, all = 0;
  for (const auto& [name, count] : source.formats()) {
    all += count;
    if (name == format) such += count;
  }
  return 2 * such > all;
}

// Where config.json does not say, most weights decide.
bool IsHalf(const MergeSource& source) {
  const std::string& said = source.torch_dtype();
  return said == "float16" || (said != "bfloat16" && MostAre(source, "f16"));
}

const Type& TypeOf(const std::string& name, const MergeSource& source) {
  if (name == "auto") return kTypes[IsHalf(source) ? 1 : 0];
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
    return {tensor.name, tensor.kept.empty() ? type_.stored : tensor.kept, tensor.shape};
  }
  uint64_t BytesOf(const SourceTensor& tensor) const {
    const auto count = static_cast<uint64_t>(tensor.rows() * tensor.cols());
    if (tensor.kept.empty()) return count * type_.bytes + kEntryBytes;
    return count * static_cast<uint64_t>(io::BitsOfDtype(tensor.kept)) / 8 + kEntryBytes;
  }
  // Tensor `number` of `writer`. True when a pair was added to it.
  bool Write(const SourceTensor& tensor, size_t number, io::SafetensorsWriter* writer) {
    source_.Select(tensor);
    if (!tensor.kept.empty()) {
      writer->Write(number, 0, source_.ReadBytes()).OrThrow();
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
      writer->Write(number, at, Rounded(tensor.name)).OrThrow();
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

void WriteShards(Merger& merger, const std::vector<SourceTensor>& tensors, const std::vector<Shard>& shards,
                 const Path& folder, const MergeProgress& on_progress, MergeResult* result) {
  std::map<std::string, std::string> file_of;
  for (const Shard& shard : shards) {
    std::vector<io::TensorLayout> layouts;
    for (size_t i = shard.begin; i < shard.end; ++i) layouts.push_back(merger.LayoutOf(tensors[i]));
    io::SafetensorsWriter writer =
        io::SafetensorsWriter::Create(folder / shard.file, std::move(layouts), {{"format", "pt"}}, 0)
            .OrThrow();
    for (size_t i = shard.begin; i < shard.end; ++i) {
      result->merged += merger.Write(tensors[i], i - shard.begin, &writer);
      file_of[tensors[i].name] = shard.file;
      if (on_progress && !on_progress(i + 1, tensors.size())) {
        throw Error(ExitCode::kInterrupted, "interrupted: nothing was kept");
      }
    }
    writer.Commit().OrThrow();
    result->bytes += writer.bytes();
  }
  if (shards.size() > 1) WriteShardIndex(folder, file_of, result->bytes);
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

// In the order of a pass but for what is kept in a wider type: readers want every tensor aligned to its own
// width.
std::vector<SourceTensor> WideFirst(std::vector<SourceTensor> tensors, const Type& type) {
  std::stable_partition(tensors.begin(), tensors.end(), [&](const SourceTensor& tensor) {
    return !tensor.kept.empty() && io::BitsOfDtype(tensor.kept) > static_cast<int>(8 * type.bytes);
  });
  return tensors;
}

// What of the result is not what a person may take it for.
std::vector<std::string> NotesOf(const MergeSource& source, const Type& type) {
  std::vector<std::string> rounded, notes;
  for (const auto& [format, count] : source.formats()) {
    if (format != "f32" && format != "f16" && format != "bf16") rounded.push_back(format);
  }
  if (!rounded.empty()) {
    notes.push_back(fmt::format(
        "warning: the model's weights are quantised ({}): merged onto them as they were rounded, which is "
        "what "
        "an adapter that was trained beside this model learned with; the 16-bit original merged with it is "
        "another model, and quantising the result again rounds away a part of what was learned",
        fmt::join(rounded, ", ")));
  }
  if (MostAre(source, "f32") && type.bytes == 2) {
    notes.push_back(
        fmt::format("note: the model's weights are f32, the merged ones are rounded to {}", type.name));
  }
  if (source.is_gguf()) {
    notes.emplace_back(
        "note: a GGUF file's tokenizer cannot be written as Hugging Face's: copy tokenizer.json and "
        "tokenizer_config.json from the original model");
  }
  return notes;
}

}  // namespace

MergeResult MergeModel(const MergeOptions& options, const MergeProgress& on_progress,
                       const MergeNote& on_note) {
  MergeSource source(options.model);
  const model::AdapterInfo info = model::ReadAdapterInfo(options.adapter, source.config()).OrThrow();
  const model::Adapter adapter = LoadPairs(options, source.config(), info);
  const Type& type = TypeOf(options.dtype, source);
  // All that is read beside the weights, before hours may go into those.
  ModelTexts texts;
  if (!source.is_gguf()) texts = ReadModelTexts(options.model);
  // The merged model was trained with this one.
  if (!info.chat_template.empty()) texts["chat_template.jinja"] = info.chat_template;
  texts["config.json"] = MergedConfig(source, options.model, type.name);
  Merger merger(source, adapter, type, options.context);
  const std::vector<SourceTensor> tensors = WideFirst(source.tensors(), type);
  std::vector<uint64_t> bytes;
  for (const SourceTensor& tensor : tensors) bytes.push_back(merger.BytesOf(tensor));

  const NamedPath inputs[] = {{"--model", options.model}, {"--adapter", options.adapter}};
  NewFolder folder(options.out, inputs);
  CheckSpace(folder.path(), std::accumulate(bytes.begin(), bytes.end(), uint64_t{0}));
  if (on_note) {
    for (const std::string& note : NotesOf(source, type)) on_note(note);
  }
  MergeResult result;
  result.dtype = type.name;
  WriteShards(merger, tensors, ShardsOf(bytes, options.shard_bytes), folder.path(), on_progress, &result);
  WriteModelTexts(folder.path(), texts);
  folder.Commit();
  return result;
}

}  // namespace rung::cli
