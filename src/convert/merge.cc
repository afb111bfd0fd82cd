#include "convert/merge.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/half.h"
#include "base/text.h"
#include "convert/folder_config.h"
#include "convert/folder_tokenizer.h"
#include "convert/output_folder.h"
#include "convert/tensor_reader.h"
#include "io/safetensors_writer.h"
#include "kernels/cpu/dense.h"
#include "model/adapter_file.h"
#include "model/backbone.h"

namespace rung::convert {
namespace {

constexpr int64_t kMergedTile = int64_t{4} << 20;  // weights that are merged at once
constexpr uint64_t kEntryBytes = 256;              // of a tensor in a header, at most

// The type of the output's numbers.
struct Type {
  const char *name, *stored;  // as configurations and safetensors name it
  size_t bytes;
};
constexpr Type kTypes[] = {{"bfloat16", "BF16", 2}, {"float16", "F16", 2}, {"float32", "F32", 4}};

const Type& TypeOf(const std::string& name, const TensorReader& source) {
  if (name == "auto") return kTypes[source.IsHalf() ? 1 : 0];
  for (const Type& type : kTypes) {
    if (name == type.name) return type;
  }
  throw Error(ExitCode::kUsage, fmt::format("--dtype {}: known are bfloat16, float16", name));
}

// What is added to a matrix as a folder has it: left (rows,R) x right (R,cols).
struct Product {
  std::vector<float> left, right;
  int64_t R = 0;
};

std::vector<float> Transposed(const float* x, int64_t rows, int64_t cols) {
  std::vector<float> y(static_cast<size_t>(rows * cols));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) y[static_cast<size_t>(c * rows + r)] = x[r * cols + c];
  }
  return y;
}

// (s B) A by the usual name of the matrix; (s A^T) B^T where layers are stored as (in, out).
std::map<std::string, Product> ProductsOf(const model::Adapter& adapter, bool transposed) {
  constexpr std::string_view kWrapped = "base_model.model.";
  const float scale = adapter.lora()->spec().scale();
  std::map<std::string, Product> products;
  adapter.ForEachParam([&](nn::Param& param) {
    const bool is_a = param.name.ends_with(".lora_A.weight");
    const std::string module =
        param.name.substr(kWrapped.size(), param.name.rfind(".lora_") - kWrapped.size());
    Product& product = products[module + ".weight"];
    const float* x = In(param.value).as<float>();
    const int64_t rows = param.value.rows(), cols = param.value.cols();
    if (is_a) product.R = rows;
    std::vector<float>& side = is_a == transposed ? product.left : product.right;
    side = transposed ? Transposed(x, rows, cols) : std::vector<float>(x, x + rows * cols);
  });
  for (auto& [name, product] : products) {
    for (float& value : product.left) value *= scale;
  }
  return products;
}

class Merger {
 public:
  Merger(TensorReader& source, const model::Adapter& adapter, const Type& type, const cpu::Context& context)
      : source_(source),
        type_(type),
        context_(context),
        products_(ProductsOf(adapter, source.folder_config().transposed)) {}

  size_t products() const { return products_.size(); }
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
    const auto product = products_.find(tensor.usual);
    const int64_t rows = tensor.rows(), cols = tensor.cols();
    const int64_t step = std::max<int64_t>(1, kMergedTile / std::max<int64_t>(1, cols));
    for (int64_t begin = 0; begin < rows && cols > 0; begin += step) {
      const int64_t end = std::min(rows, begin + step);
      tile_.resize(static_cast<size_t>((end - begin) * cols));
      source_.ReadRows(begin, end, tile_.data());
      if (product != products_.end()) Add(product->second, begin, end, cols);
      const uint64_t at = static_cast<uint64_t>(begin * cols) * type_.bytes;
      writer->Write(number, at, Rounded(tensor.name)).OrThrow();
    }
    return product != products_.end();
  }

 private:
  // tile += rows [begin, end) of the product.
  void Add(const Product& product, int64_t begin, int64_t end, int64_t cols) {
    cpu::DenseGradInput(context_, product.left.data() + begin * product.R, product.R, product.right.data(),
                        cols, end - begin, cols, product.R, true, tile_.data(), cols);
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

  TensorReader& source_;
  const Type& type_;
  cpu::Context context_;
  std::map<std::string, Product> products_;
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

// `config`: a folder's, in whose order of rows the output is written.
model::Adapter LoadPairs(const MergeOptions& options, const model::Config& config,
                         const model::AdapterInfo& info) {
  if (info.spec.ladder) {
    throw Error(
        ExitCode::kUsage,
        fmt::format("--adapter {}: a ladder cannot be merged: it is a network beside the model, not a "
                    "change of the model's weights; run it with --adapter",
                    options.adapter.string()));
  }
  return model::LoadAdapter(options.adapter, config, false, 1).OrThrow();
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
std::vector<std::string> NotesOf(const TensorReader& source, const Type& type) {
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
  if (source.MostAre("f32") && type.bytes == 2) {
    notes.push_back(
        fmt::format("note: the model's weights are f32, the merged ones are rounded to {}", type.name));
  }
  return notes;
}

// Where the pairs learned beside other numbers than they are added to.
std::string NoteOfFormats(const MergeOptions& options, const model::BaseFormats& trained) {
  model::BackboneOptions as_stored;
  as_stored.recipe.matrices = model::Quantize::kNone;
  as_stored.positions = 1;
  const Result<model::Backbone> planned = model::Backbone::PlannedFrom(options.model, as_stored);
  if (!planned.ok()) return "";  // the note is not worth a refusal
  const std::string difference =
      model::Difference(model::WithoutScaleLevels(trained), planned.value().formats());
  if (difference.empty()) return "";
  return fmt::format(
      "warning: {}: when the pairs were trained, {}: merged onto these weights they make another "
      "model than the one that was trained",
      Printable(options.adapter.string()), difference);
}

}  // namespace

MergeResult MergeModel(const MergeOptions& options, const MergeProgress& on_progress,
                       const MergeNote& on_note) {
  TensorReader source(options.model);
  const model::AdapterInfo info = model::ReadAdapterInfo(options.adapter, source.config()).OrThrow();
  const model::Adapter adapter = LoadPairs(options, source.folder_config(), info);
  const Type& type = TypeOf(options.dtype, source);
  // All that is read beside the weights, before hours may go into those.
  ModelTexts texts =
      source.is_gguf() ? TokenizerTexts(*source.gguf(), on_note) : ReadModelTexts(options.model);
  // The merged model was trained with this one.
  if (!info.chat_template.empty()) texts["chat_template.jinja"] = info.chat_template;
  texts["config.json"] = MergedConfig(source, options.model, type.name);
  Merger merger(source, adapter, type, options.context);
  const std::vector<SourceTensor> tensors = WideFirst(source.tensors(), type);
  std::vector<uint64_t> bytes;
  for (const SourceTensor& tensor : tensors) bytes.push_back(merger.BytesOf(tensor));

  const NamedPath inputs[] = {{"--model", options.model}, {"--adapter", options.adapter}};
  NewFolder folder(options.out, inputs);
  CheckSpace(options.out, std::accumulate(bytes.begin(), bytes.end(), uint64_t{0}));
  if (on_note) {
    for (const std::string& note : NotesOf(source, type)) on_note(note);
    if (const std::string note = NoteOfFormats(options, info.base_formats); !note.empty()) on_note(note);
  }
  MergeResult result;
  result.dtype = type.name;
  WriteShards(merger, tensors, ShardsOf(bytes, options.shard_bytes), folder.path(), on_progress, &result);
  RUNG_CHECK(result.merged == static_cast<int64_t>(merger.products()), "merge: a pair of no matrix");
  WriteModelTexts(folder.path(), texts);
  folder.Commit();
  return result;
}

}  // namespace rung::convert
