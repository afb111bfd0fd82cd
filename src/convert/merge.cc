#include "convert/merge.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "base/text.h"
#include "convert/folder_config.h"
#include "convert/folder_tokenizer.h"
#include "convert/folder_writer.h"
#include "convert/output_folder.h"
#include "convert/tensor_reader.h"
#include "kernels/cpu/dense.h"
#include "model/adapter_file.h"
#include "model/backbone.h"
#include "model/lora_file.h"

namespace rung::convert {
namespace {

// The type of the output's numbers.
struct Type {
  const char *name, *stored;  // as configurations and safetensors name it
};
constexpr Type kTypes[] = {{"bfloat16", "BF16"}, {"float16", "F16"}, {"float32", "F32"}};

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
  const float scale = adapter.lora()->spec().scale();
  std::map<std::string, Product> products;
  adapter.ForEachParam([&](nn::Param& param) {
    const bool is_a = param.name.ends_with(".lora_A.weight");
    Product& product = products[model::MatrixOfPair(param.name)];
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

// `products` outlives it.
AddToRows AdderOf(const std::map<std::string, Product>& products, const cpu::Context& context) {
  return [&products, context](const SourceTensor& tensor, int64_t begin, int64_t end, float* rows) {
    const auto found = products.find(tensor.usual);
    if (found == products.end()) return false;
    const Product& product = found->second;
    const int64_t R = product.R, cols = tensor.cols();
    cpu::DenseGradInput(context, product.left.data() + begin * R, R, product.right.data(), cols, end - begin,
                        cols, R, true, rows, cols);
    return true;
  };
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

// What of the result is not what a person may take it for.
std::vector<std::string> NotesOf(const TensorReader& source, const Type& type) {
  std::vector<std::string> rounded, notes;
  for (const auto& [format, count] : source.formats()) {
    if (format != "f32" && format != "f16" && format != "bf16") rounded.push_back(format);
  }
  if (!rounded.empty()) {
    notes.push_back(
        fmt::format("warning: the model's weights are quantised ({}): merged onto them as they were rounded, "
                    "which is what an adapter that was trained beside this model learned with; the "
                    "16-bit original merged with it is another model, and quantising the result again rounds "
                    "away a part of what was learned",
                    fmt::join(rounded, ", ")));
  }
  if (source.MostAre("f32") && type.stored != std::string_view("F32")) {
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

MergeResult MergeModel(const MergeOptions& options, const OnProgress& on_progress, const OnNote& on_note) {
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
  const std::map<std::string, Product> products = ProductsOf(adapter, source.folder_config().transposed);
  MergeResult result;
  result.dtype = type.name;
  std::vector<OutputTensor> outputs;
  for (const SourceTensor& tensor : source.tensors()) {
    outputs.push_back({tensor.name, tensor.kept.empty() ? type.stored : tensor.kept, tensor.shape});
    result.merged += products.contains(tensor.usual);
  }
  RUNG_CHECK(result.merged == static_cast<int64_t>(products.size()), "merge: a pair of no matrix");
  const NamedPath inputs[] = {{"--model", options.model}, {"--adapter", options.adapter}};
  NewFolder folder(options.out, inputs);
  CheckSpace(options.out, OutputBytes(outputs, false));
  if (on_note) {
    for (const std::string& note : NotesOf(source, type)) on_note(note);
    if (const std::string note = NoteOfFormats(options, info.base_formats); !note.empty()) on_note(note);
  }
  result.bytes = WriteWeights({folder.path(), false, options.shard_bytes, on_progress}, source, outputs,
                              AdderOf(products, options.context));
  WriteModelTexts(folder.path(), texts);
  folder.Commit();
  return result;
}

}  // namespace rung::convert
