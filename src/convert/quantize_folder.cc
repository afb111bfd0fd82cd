#include "convert/quantize_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/half.h"
#include "base/text.h"
#include "convert/folder_config.h"
#include "convert/folder_tokenizer.h"
#include "convert/nf4_file.h"
#include "convert/output_folder.h"
#include "io/json_file.h"

namespace rung::convert {
namespace {

using model::Quantize;

constexpr int64_t kTile = int64_t{4} << 20;  // weights that are converted at once

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
      const bool as_it_is = !output.nf4 && tensor.role == TensorRole::kLinear && tensor.kept.empty();
      if (as_it_is) plain_.push_back(tensor.name.substr(0, tensor.name.rfind('.')));
      outputs_.push_back(output);
    }
    if (nested_ && single_) {
      throw Error(ExitCode::kUsage, "a folder is nf4 or nf4-single, not both: leave one of them out");
    }
  }

  const std::vector<OutputTensor>& outputs() const { return outputs_; }
  bool nested() const { return !single_; }
  bool has_nf4() const { return nested_ || single_; }
  // Linear layers that do not become NF4.
  const std::vector<std::string>& plain() const { return plain_; }

 private:
  OutputTensor OutputOf(const SourceTensor& tensor) const {
    if (!tensor.kept.empty()) return {tensor.name, tensor.kept, tensor.shape, false};
    const bool recipe_decides = tensor.is_matrix() && tensor.role != TensorRole::kPosition;
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

class FolderWriter {
 public:
  FolderWriter(TensorReader& source, bool nested) : source_(source), nested_(nested) {}

  void Write(const SourceTensor& tensor, const OutputTensor& output, Nf4File* file) {
    source_.Select(tensor);
    if (!tensor.kept.empty()) return file->Write(output.name, 0, source_.ReadBytes());
    format::Nf4Encoded scales;
    const int64_t rows = tensor.rows(), cols = tensor.cols();
    // Whole blocks of NF4, which do not end with rows.
    const int64_t unit = format::kNf4Block / std::gcd(cols, format::kNf4Block);
    const int64_t step = std::max<int64_t>(1, kTile / std::max<int64_t>(1, cols) / unit) * unit;
    for (int64_t begin = 0; begin < rows && cols > 0; begin += step) {
      const int64_t end = std::min(rows, begin + step);
      tile_.resize(static_cast<size_t>((end - begin) * cols));
      source_.ReadRows(begin, end, tile_.data());
      if (!output.nf4) {
        const auto width = static_cast<uint64_t>(io::BitsOfDtype(output.dtype) / 8);
        file->Write(output.name, static_cast<uint64_t>(begin * cols) * width, Rounded(output));
        continue;
      }
      CheckRows(tile_, cols, begin, format::Format::kNf4, tensor.name);
      const format::Nf4Encoded part =
          format::EncodeNf4(tile_.data(), static_cast<int64_t>(tile_.size()), false);
      file->Write(output.name, static_cast<uint64_t>(begin * cols) / 2, std::as_bytes(std::span(part.codes)));
      scales.absmax.insert(scales.absmax.end(), part.absmax.begin(), part.absmax.end());
    }
    if (!output.nf4) return;
    if (nested_) format::NestScales(&scales);
    file->WriteScales(output, scales);
  }

 private:
  std::span<const std::byte> Rounded(const OutputTensor& output) {
    if (output.dtype == "F32") return std::as_bytes(std::span(tile_));
    half_.resize(tile_.size());
    if (output.dtype == "BF16") {
      for (size_t i = 0; i < tile_.size(); ++i) half_[i] = ToBf16(tile_[i]).bits;
      return std::as_bytes(std::span(half_));
    }
    for (size_t i = 0; i < tile_.size(); ++i) {
      half_[i] = ToF16(tile_[i]).bits;
      if (std::abs(tile_[i]) <= 65504.0f || !std::isfinite(tile_[i])) continue;
      throw Error(ExitCode::kBadInput,
                  fmt::format("tensor {} has a weight of {}, f16 ends at 65504; use --format bf16",
                              output.name, tile_[i]));
    }
    return std::as_bytes(std::span(half_));
  }

  TensorReader& source_;
  bool nested_;
  std::vector<float> tile_;
  std::vector<uint16_t> half_;
};

QuantizeResult WriteShards(TensorReader& source, const FolderPlan& plan, const std::vector<uint64_t>& bytes,
                           const QuantizeOptions& options, const Path& folder,
                           const QuantizeProgress& on_progress) {
  const std::vector<SourceTensor>& tensors = source.tensors();
  const std::vector<Shard> shards = ShardsOf(bytes, options.shard_bytes);
  FolderWriter writer(source, plan.nested());
  QuantizeResult result;
  std::map<std::string, std::string> file_of;
  for (const Shard& shard : shards) {
    const auto begin = plan.outputs().begin() + static_cast<std::ptrdiff_t>(shard.begin);
    const auto end = plan.outputs().begin() + static_cast<std::ptrdiff_t>(shard.end);
    Nf4File file(folder / shard.file, {begin, end}, plan.nested());
    for (size_t i = shard.begin; i < shard.end; ++i) {
      const OutputTensor& output = plan.outputs()[i];
      writer.Write(tensors[i], output, &file);
      result.bytes_before += tensors[i].bytes;
      result.linears += output.nf4 || (tensors[i].is_matrix() && tensors[i].kept.empty() &&
                                       PlainDtype(tensors[i].stored) != output.dtype);
      if (on_progress && !on_progress(i + 1, tensors.size())) {
        throw Error(ExitCode::kInterrupted, "interrupted: nothing was kept");
      }
    }
    file.Commit();
    result.bytes_after += file.bytes();
    for (const std::string& name : file.names()) file_of[name] = shard.file;
  }
  if (shards.size() > 1) WriteShardIndex(folder, file_of, result.bytes_after);
  return result;
}

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

}  // namespace

namespace {

bool Names(const std::pair<std::string, Quantize>& pattern, const ModelTensor& tensor) {
  // What a tensor gets that the pattern does not match.
  const Quantize otherwise = pattern.second == Quantize::kF32 ? Quantize::kF16 : Quantize::kF32;
  const model::Recipe one{otherwise, otherwise, {pattern}};
  return one.For(tensor.name, false) != otherwise ||
         (!tensor.gguf.empty() && one.For(tensor.gguf, false) != otherwise);
}

}  // namespace

model::Quantize ChoiceFor(const model::Recipe& recipe, const ModelTensor& tensor) {
  for (const auto& pattern : recipe.patterns) {
    if (Names(pattern, tensor)) return pattern.second;
  }
  const bool embedding = tensor.role == TensorRole::kEmbedding || tensor.role == TensorRole::kHead;
  return embedding ? recipe.embeddings : recipe.matrices;
}

void CheckKeep(const model::Recipe& recipe, const TensorReader& source) {
  for (const auto& pattern : recipe.patterns) {
    const auto decides = [&](const SourceTensor& tensor) {
      return tensor.kept.empty() && tensor.is_matrix() && tensor.role != TensorRole::kPosition &&
             Names(pattern, tensor);
    };
    if (std::any_of(source.tensors().begin(), source.tensors().end(), decides)) continue;
    throw Error(ExitCode::kUsage,
                fmt::format("--keep {}: no matrix of the model has such a name; rung inspect MODEL --tensors "
                            "lists them",
                            Printable(pattern.first)));
  }
}

void CheckRows(std::span<const float> rows, int64_t cols, int64_t begin, format::Format format,
               const std::string& name) {
  const int64_t row = model::UnencodableRow(format, rows, cols);
  if (row < 0) return;
  const Failure failure = model::NotEncodable("tensor " + name, begin + row, format);
  throw Error(failure.code, failure.message);
}

QuantizeResult QuantizeFolder(const QuantizeOptions& options, const QuantizeProgress& on_progress,
                              const QuantizeNote& on_note) {
  TensorReader source(options.model);
  CheckKeep(options.recipe, source);
  const FolderPlan plan(source, options);
  std::vector<uint64_t> bytes;
  for (const OutputTensor& output : plan.outputs()) bytes.push_back(OutputBytes(output, plan.nested()));
  ModelTexts texts =
      source.is_gguf() ? TokenizerTexts(*source.gguf(), on_note) : ReadModelTexts(options.model);
  texts["config.json"] = ConfigText(source, plan, options);
  const NamedPath input{"--model", options.model};
  NewFolder folder(options.out, {&input, 1});
  CheckSpace(options.out, std::accumulate(bytes.begin(), bytes.end(), uint64_t{0}));
  const QuantizeResult result = WriteShards(source, plan, bytes, options, folder.path(), on_progress);
  WriteModelTexts(folder.path(), texts);
  folder.Commit();
  return result;
}

}  // namespace rung::convert
