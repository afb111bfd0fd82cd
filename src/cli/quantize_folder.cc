#include "cli/quantize_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "cli/quantize_output.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "model/config.h"
#include "model/folder_weights.h"

namespace rung::cli {
namespace {

constexpr size_t kCopyBytes = size_t{4} << 20;

void Require(const Status& status) {
  if (!status.ok()) throw Error(status.failure().code, status.failure().message);
}

// Names of the matrices that become NF4.
std::set<std::string> Linears(const io::Safetensors& source, const model::Config& config, bool embeddings) {
  const model::Names& names = model::HfNames();
  std::set<std::string> linears;
  for (int64_t layer = 0; layer < config.L; ++layer) {
    for (const std::string* pattern :
         {&names.q, &names.k, &names.v, &names.o, &names.gate, &names.up, &names.down}) {
      linears.insert(names.Layer(*pattern, layer));
    }
  }
  for (const std::string& name : linears) {
    if (!source.Find(name)) throw Error(ExitCode::kBadInput, fmt::format("tensor {} is missing", name));
  }
  for (const std::string* name : {&names.embedding, &names.head}) {
    if (embeddings && source.Find(*name)) linears.insert(*name);
  }
  return linears;
}

void CheckLinear(const io::Safetensors& source, const io::TensorEntry& entry) {
  if (entry.shape.size() == 2 && model::FloatFormat(entry.dtype)) return;
  const bool packed = source.Find(entry.name + ".quant_state.bitsandbytes__nf4") != nullptr;
  throw Error(ExitCode::kBadInput,
              fmt::format("{}: tensor {} is {}: {}", source.path(entry).string(), entry.name, entry.dtype,
                          packed ? "the folder is quantised already"
                                 : "only F32, F16 and BF16 matrices can be quantised"));
}

void CopyTensor(const io::Safetensors& source, const io::TensorEntry& entry, Nf4File* file) {
  std::vector<std::byte> buffer;
  for (uint64_t begin = 0; begin < entry.bytes; begin += kCopyBytes) {
    buffer.resize(static_cast<size_t>(std::min<uint64_t>(kCopyBytes, entry.bytes - begin)));
    Require(source.Read(entry, begin, buffer));
    file->Write(entry.name, begin, buffer);
  }
}

// Configuration, tokenizer, template: every small text file beside the weights.
void CopyTexts(const Path& from, const Path& to, const QuantizeOptions& options) {
  for (const auto& item : std::filesystem::directory_iterator(from)) {
    const Path& file = item.path();
    const std::string name = file.filename().string(), extension = file.extension().string();
    const bool text =
        extension == ".json" || extension == ".jinja" || extension == ".txt" || extension == ".model";
    if (!item.is_regular_file() || !text || name == "config.json" || name.ends_with(".index.json")) continue;
    Require(WriteTextFile(to / name, ReadTextFile(file, io::kJsonFileLimit).OrThrow()));
  }
  const std::string config = ReadTextFile(from / "config.json", io::kJsonFileLimit).OrThrow();
  Require(WriteTextFile(to / "config.json", WithQuantizationConfig(config, options.nested)));
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
  NewFolder folder(options.out);
  try {
    const QuantizeResult result = WriteWeights(source, linears, options, folder.path(), on_progress);
    CopyTexts(options.model, folder.path(), options);
    folder.Commit();
    return result;
  } catch (const std::filesystem::filesystem_error& failed) {
    throw Error(ExitCode::kFailed, failed.what());
  }
}

}  // namespace rung::cli
