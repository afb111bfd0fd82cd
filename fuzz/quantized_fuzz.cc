// The text of a config.json, a zero byte, and a safetensors file: a folder whose matrices are read in every
// way. Whatever the bytes: a message, or matrices that can be decoded and whose plan is the same.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "model/folder_weights.h"
#include "model/stored_tensors.h"

namespace {

using namespace rung;

constexpr int64_t kMostWeights = 1 << 16;

void Require(bool condition) {
  if (!condition) std::abort();
}

const Path& Folder() {
  static const Path folder = [] {
    std::string name = (std::filesystem::temp_directory_path() / "rung_fuzz_XXXXXX").string();
    Require(mkdtemp(name.data()) != nullptr);
    return Path(name);
  }();
  return folder;
}

void Write(const char* name, std::string_view bytes) {
  std::ofstream(Folder() / name, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

void ReadAs(const std::string& name, int64_t rows, int64_t cols, model::Quantize quantize, bool transposed) {
  if (rows < 1 || cols < 1 || rows > kMostWeights || cols > kMostWeights || rows * cols > kMostWeights)
    return;
  const auto open = [](model::FolderRead read) {
    return model::FolderSource(io::Safetensors::OpenFolder(Folder()).OrThrow(), read);
  };
  model::FolderSource all = open(model::FolderRead::kAll), headers = open(model::FolderRead::kHeaders);
  const Result<format::Matrix> read = all.ReadMatrix(name, rows, cols, quantize, transposed);
  const Result<format::Matrix> planned = headers.ReadMatrix(name, rows, cols, quantize, transposed);
  if (!read.ok()) return Require(!read.failure().message.empty());
  Require(planned.ok() && planned.value().format == read.value().format);
  Require(planned.value().data == nullptr && headers.totals().bytes == all.totals().bytes);
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) format::DecodeRow(read.value(), r, row.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t zero = std::min(all.find('\0'), size);
  Write("config.json", all.substr(0, zero));
  Write("model.safetensors", all.substr(std::min(zero + 1, size)));
  const Result<model::Quantization> quantization = model::ReadQuantization(Folder());
  Require(quantization.ok() || !quantization.failure().message.empty());
  const Result<io::Safetensors> file = io::Safetensors::OpenFolder(Folder());
  if (!file.ok()) return 0;
  if (quantization.ok()) {
    for (const model::StoredTensor& tensor : model::StoredTensors(file.value(), quantization.value())) {
      Require(!tensor.format.empty());
    }
  }
  size_t count = 0;
  for (const auto& [name, entry] : file.value().tensors()) {
    if (entry.shape.size() != 2 || ++count > 4) continue;
    const int64_t a = std::min(entry.shape[0], kMostWeights), b = std::min(entry.shape[1], kMostWeights);
    const std::string module = name.substr(0, name.rfind('.'));
    ReadAs(module, a, b, model::Quantize::kNone, false);
    ReadAs(module, a, b, model::Quantize::kQ8_0, false);
    ReadAs(module, a, b, model::Quantize::kNf4, false);
    ReadAs(module, b, a, model::Quantize::kNone, true);
    ReadAs(module, b, 8 * a, model::Quantize::kNone, false);
    ReadAs(module, 8 * b, a, model::Quantize::kNone, false);
    ReadAs(module, 16, 64, model::Quantize::kNone, false);
  }
  return 0;
}
