#include "train/model_hash.h"

#include <fmt/format.h>

#include <set>
#include <system_error>
#include <utility>

#include "io/gguf.h"
#include "io/safetensors.h"
#include "io/sha256.h"

namespace rung::train {
namespace {

// What of a folder decides the computation, besides the weights.
constexpr const char* kSettings[] = {"config.json", "quantize_config.json", "quant_config.json",
                                     "model.safetensors.index.json"};

// The files that decide what a model computes, as the hash names them.
std::vector<std::pair<std::string, Path>> FilesOf(const Path& model) {
  std::vector<std::pair<std::string, Path>> files;
  std::error_code error;
  if (!std::filesystem::is_directory(model, error)) {
    // A run is of the whole model, whichever of its parts names it.
    const std::vector<Path> parts = io::GgufFiles(model);
    for (size_t i = 0; i < parts.size(); ++i) {
      const bool one = parts.size() == 1;
      files.emplace_back(one ? "" : fmt::format("part {} of {}", i + 1, parts.size()), parts[i]);
    }
    return files;
  }
  // Others may lie beside them: adapters, the same weights under another name.
  std::set<Path> paths;
  if (const Path one = model / "model.safetensors"; std::filesystem::exists(one, error)) {
    paths.insert(one);
  } else {
    const io::Safetensors weights = io::Safetensors::OpenFolder(model).OrThrow();
    for (const auto& [name, tensor] : weights.tensors()) paths.insert(weights.path(tensor));
  }
  for (const char* name : kSettings) {
    if (std::filesystem::exists(model / name, error)) paths.insert(model / name);
  }
  for (const Path& path : paths) files.emplace_back(path.filename().string(), path);
  return files;
}

}  // namespace

ModelHash HashModel(const Path& model, const std::function<bool(uint64_t, uint64_t)>& on_bytes) {
  const std::vector<std::pair<std::string, Path>> files = FilesOf(model);
  ModelHash hash;
  uint64_t done = 0, total = 0;
  for (const auto& [name, path] : files) {
    hash.files.push_back({name, RandomAccessFile::Open(path).OrThrow().size(), ""});
    total += hash.files.back().bytes;
  }
  io::Sha256 all;
  for (size_t i = 0; i < files.size(); ++i) {
    const auto more = [&](uint64_t bytes) { return !on_bytes || on_bytes(done += bytes, total); };
    hash.files[i].sha256 = io::Sha256OfFile(files[i].second, more).OrThrow();
    all.Add(hash.files[i].sha256 + "\n");
  }
  hash.sha256 = hash.files.size() == 1 ? hash.files[0].sha256 : all.Hex();
  return hash;
}

}  // namespace rung::train
