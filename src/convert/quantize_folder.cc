#include "convert/quantize_folder.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "convert/folder_config.h"
#include "convert/folder_tokenizer.h"
#include "convert/folder_writer.h"
#include "convert/output_folder.h"
#include "io/json_file.h"

namespace rung::convert {
namespace {

using model::Quantize;

bool IsNf4(Quantize quantize) { return quantize == Quantize::kNf4 || quantize == Quantize::kNf4Single; }

std::string FloatDtype(Quantize quantize) {
  return quantize == Quantize::kBf16  ? "BF16"
         : quantize == Quantize::kF16 ? "F16"
         : quantize == Quantize::kF32 ? "F32"
                                      : "";
}

// "BF16" of a format's name; empty when it is none that a folder has as it is.
std::string PlainDtype(const std::string& stored) {
  return stored == "bf16" ? "BF16" : stored == "f16" ? "F16" : stored == "f32" ? "F32" : "";
}

class FolderPlan {
 public:
  FolderPlan(const TensorReader& source, const QuantizeOptions& options)
      : source_(source), recipe_(options.recipe) {
    for (const SourceTensor& tensor : source.tensors()) {
      const OutputTensor output = OutputOf(tensor);
      nested_ = nested_ || (output.nf4 && ChoiceFor(recipe_, tensor) == Quantize::kNf4);
      single_ = single_ || (output.nf4 && ChoiceFor(recipe_, tensor) == Quantize::kNf4Single);
      const bool as_it_is = !output.nf4 && tensor.role == model::TensorRole::kLinear && tensor.kept.empty();
      if (as_it_is) plain_.push_back(tensor.module());
      outputs_.push_back(output);
    }
    if (nested_ && single_) {
      throw Error(ExitCode::kUsage, "a folder is nf4 or nf4-single, not both: leave one of them out");
    }
  }

  const std::vector<OutputTensor>& outputs() const { return outputs_; }
  bool nested() const { return !single_; }
  bool has_nf4() const { return nested_ || single_; }
  // All but the bytes of the output.
  QuantizeResult Counts() const {
    QuantizeResult counts;
    for (size_t i = 0; i < outputs_.size(); ++i) {
      const SourceTensor& tensor = source_.tensors()[i];
      counts.bytes_before += tensor.bytes;
      counts.linears += outputs_[i].nf4 || (tensor.is_matrix() && tensor.kept.empty() &&
                                            PlainDtype(tensor.stored) != outputs_[i].dtype);
    }
    return counts;
  }
  // Linear layers that do not become NF4.
  const std::vector<std::string>& plain() const { return plain_; }

 private:
  OutputTensor OutputOf(const SourceTensor& tensor) const {
    if (!tensor.kept.empty()) return {tensor.name, tensor.kept, tensor.shape, false};
    const bool recipe_decides = tensor.is_matrix() && tensor.role != model::TensorRole::kPosition;
    const Quantize chosen = recipe_decides ? ChoiceFor(recipe_, tensor) : recipe_.matrices;
    // What was packed, or is a GGUF file's f32 norm, becomes what a 16-bit folder of the model would have.
    const std::string plain = PlainDtype(tensor.stored);
    const bool keeps = !plain.empty() && !(source_.is_gguf() && !tensor.is_matrix());
    const std::string as_it_is = keeps ? plain : source_.IsHalf() ? "F16" : "BF16";
    if (recipe_decides && IsNf4(chosen)) {
      CheckNf4(tensor);
      return {tensor.name, as_it_is, tensor.shape, true};
    }
    if (IsNf4(chosen) || chosen == Quantize::kNone) return {tensor.name, as_it_is, tensor.shape, false};
    const std::string dtype = FloatDtype(chosen);
    if (dtype.empty()) {
      throw Error(
          ExitCode::kUsage,
          fmt::format("a Hugging Face folder has no {}: choose nf4, nf4-single, bf16, f16 or f32, or name "
                      "a GGUF file with --out X.gguf",
                      model::NameOf(chosen)));
    }
    return {tensor.name, dtype, tensor.shape, false};
  }

  void CheckNf4(const SourceTensor& tensor) const {
    if (tensor.transposed) {
      throw Error(ExitCode::kUsage,
                  fmt::format("--format nf4: folders of {} have their layers as (in, out), which has no form "
                              "in NF4; name a GGUF file with --out X.gguf",
                              source_.folder_config().family));
    }
    if (source_.is_gguf() || !PlainDtype(tensor.stored).empty()) return;
    // Rounding what was rounded before loses twice; a folder can only mean it by mistake.
    throw Error(ExitCode::kBadInput,
                fmt::format("tensor {} is {}: the folder is quantised already; give the 16-bit original, or "
                            "--format bf16 to decode it",
                            tensor.name, tensor.stored));
  }

  const TensorReader& source_;
  const model::Recipe& recipe_;
  std::vector<OutputTensor> outputs_;
  std::vector<std::string> plain_;
  bool nested_ = false, single_ = false;
};

std::string ConfigText(const TensorReader& source, const FolderPlan& plan, const QuantizeOptions& options) {
  const std::string dtype = FloatDtype(options.recipe.matrices);
  std::string text;
  if (plan.has_nf4() && !source.is_gguf()) {
    text = ReadTextFile(options.model / "config.json", io::kJsonFileLimit).OrThrow();
  } else {
    const bool half = dtype.empty() ? source.IsHalf() : dtype == "F16";
    text = MergedConfig(source, options.model, dtype == "F32" ? "float32" : half ? "float16" : "bfloat16");
  }
  return plan.has_nf4() ? WithQuantizationConfig(text, plan.nested(), plan.plain()) : text;
}

bool Names(const std::pair<std::string, Quantize>& pattern, const model::ModelTensor& tensor) {
  // What a tensor gets that the pattern does not match.
  const Quantize otherwise = pattern.second == Quantize::kF32 ? Quantize::kF16 : Quantize::kF32;
  const model::Recipe one{otherwise, otherwise, {pattern}};
  return one.For(tensor.name, false) != otherwise ||
         (!tensor.gguf.empty() && one.For(tensor.gguf, false) != otherwise);
}

}  // namespace

model::Quantize ChoiceFor(const model::Recipe& recipe, const model::ModelTensor& tensor) {
  for (const auto& pattern : recipe.patterns) {
    if (Names(pattern, tensor)) return pattern.second;
  }
  return model::IsTable(tensor.role) ? recipe.embeddings : recipe.matrices;
}

void CheckKeep(const model::Recipe& recipe, const TensorReader& source) {
  for (const auto& pattern : recipe.patterns) {
    const auto decides = [&](const SourceTensor& tensor) {
      return tensor.kept.empty() && tensor.is_matrix() && tensor.role != model::TensorRole::kPosition &&
             Names(pattern, tensor);
    };
    if (std::any_of(source.tensors().begin(), source.tensors().end(), decides)) continue;
    throw Error(ExitCode::kUsage,
                fmt::format("--keep {}: no matrix of the model has such a name; rung inspect MODEL --tensors "
                            "lists them",
                            Printable(pattern.first)));
  }
}

QuantizeResult QuantizeFolder(const QuantizeOptions& options, const OnProgress& on_progress,
                              const OnNote& on_note) {
  TensorReader source(options.model);
  CheckKeep(options.recipe, source);
  const FolderPlan plan(source, options);
  ModelTexts texts =
      source.is_gguf() ? TokenizerTexts(*source.gguf(), on_note) : ReadModelTexts(options.model);
  texts["config.json"] = ConfigText(source, plan, options);
  const NamedPath input{"--model", options.model};
  NewFolder folder(options.out, {&input, 1});
  CheckSpace(options.out, OutputBytes(plan.outputs(), plan.nested()));
  QuantizeResult result = plan.Counts();
  result.bytes_after = WriteWeights({folder.path(), plan.nested(), options.shard_bytes, on_progress}, source,
                                    plan.outputs(), nullptr);
  WriteModelTexts(folder.path(), texts);
  folder.Commit();
  return result;
}

}  // namespace rung::convert
