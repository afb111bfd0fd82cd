#include "cli/quantize_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "cli/model_tensors.h"
#include "cli/output_folder.h"
#include "cli/quantize_output.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "model/config.h"
#include "model/folder_weights.h"

namespace rung::cli {
namespace {

constexpr size_t kCopyBytes = size_t{4} << 20;

// Names of the matrices that become NF4.
std::set<std::string> Linears(const io::Safetensors& source, const model::Config& config, bool embeddings) {
  std::set<std::string> linears;
  for (const ModelTensor& tensor : ModelTensors(config)) {
    const bool linear = tensor.role == TensorRole::kLinear, there = source.Find(tensor.name) != nullptr;
    const bool embedding = tensor.role == TensorRole::kEmbedding || tensor.role == TensorRole::kHead;
    if (linear && !there) throw Error(ExitCode::kBadInput, fmt::format("tensor {} is missing", tensor.name));
    if (linear || (embedding && embeddings && there)) linears.insert(tensor.name);
  }
  return linears;
}

void CheckLinear(const io::Safetensors& source, const io::TensorEntry& entry) {
  if (entry.shape.size() == 2 && model::FloatFormat(entry.dtype)) return;
  const bool packed = IsNf4(source, entry.name);
  throw Error(ExitCode::kBadInput,
              fmt::format("{}: tensor {} is {}: {}", source.path(entry).string(), entry.name, entry.dtype,
                          packed ? "the folder is quantised already"
                                 : "only F32, F16 and BF16 matrices can be quantised"));
}

void CopyTensor(const io::Safetensors& source, const io::TensorEntry& entry, Nf4File* file) {
  std::vector<std::byte> buffer;
  for (uint64_t begin = 0; begin < entry.bytes; begin += kCopyBytes) {
    buffer.resize(static_cast<size_t>(std::min<uint64_t>(kCopyBytes, entry.bytes - begin)));
    source.Read(entry, begin, buffer).OrThrow();
    file->Write(entry.name, begin, buffer);
  }
}

QuantizeResult WriteWeights(const io::Safetensors& source, const std::set<std::string>& linears,
                            const QuantizeOptions& options, const Path& folder,
                            const QuantizeProgress& on_progress) {
  std::vector<OutputTensor> tensors;
  uint64_t needed = 0;
  for (const auto& [name, entry] : source.tensors()) {
    const bool nf4 = linears.contains(name);
    if (nf4) CheckLinear(source, entry);
    tensors.push_back({name, entry.dtype, entry.shape, nf4});
    needed += OutputBytes(tensors.back(), options.nested);
  }
  CheckSpace(folder, needed);
  Nf4File file(folder / "model.safetensors", tensors, options.nested);
  QuantizeResult result;
  for (const OutputTensor& tensor : tensors) {
    const io::TensorEntry& entry = *source.Find(tensor.name);
    result.bytes_before += entry.bytes;
    if (!tensor.nf4) {
      CopyTensor(source, entry, &file);
      continue;
    }
    const format::Nf4Encoded encoded = model::EncodeTensor(source, entry, options.nested).OrThrow();
    file.Write(tensor.name, 0, std::as_bytes(std::span(encoded.codes)));
    file.WriteScales(tensor, encoded);
    ++result.linears;
    if (on_progress && !on_progress(static_cast<size_t>(result.linears), linears.size())) {
      throw Error(ExitCode::kInterrupted, "interrupted: nothing was kept");
    }
  }
  file.Commit();
  result.bytes_after = file.bytes();
  return result;
}

}  // namespace

QuantizeResult QuantizeFolder(const QuantizeOptions& options, const QuantizeProgress& on_progress) {
  std::error_code error;
  if (!std::filesystem::is_directory(options.model, error)) {
    throw Error(ExitCode::kUsage,
                fmt::format("--model {}: a Hugging Face folder with 16-bit safetensors is needed",
                            options.model.string()));
  }
  const model::Config config = model::ReadConfig(options.model).OrThrow();
  const io::Safetensors source = io::Safetensors::OpenFolder(options.model).OrThrow();
  const std::set<std::string> linears = Linears(source, config, options.embeddings);
  ModelTexts texts = ReadModelTexts(options.model);
  texts["config.json"] = WithQuantizationConfig(
      ReadTextFile(options.model / "config.json", io::kJsonFileLimit).OrThrow(), options.nested);
  const NamedPath input{"--model", options.model};
  NewFolder folder(options.out, {&input, 1});
  const QuantizeResult result = WriteWeights(source, linears, options, folder.path(), on_progress);
  WriteModelTexts(folder.path(), texts);
  folder.Commit();
  return result;
}

}  // namespace rung::cli
