#include "io/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "io/json_file.h"

namespace rung::io {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the header's length and the data are copied as they lie");

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

// The prefix and the header of an open file.
Result<std::vector<TensorEntry>> ReadHeader(const RandomAccessFile& file,
                                            std::map<std::string, std::string>* metadata) {
  const std::string name = file.path().string();
  uint64_t length = 0;
  if (file.size() < kSafetensorsPrefix)
    return Failure{fmt::format("{}: {} bytes are too few for a safetensors file", name, file.size())};
  if (Status read = file.Read(0, std::as_writable_bytes(std::span(&length, 1))); !read.ok())
    return read.failure();
  if (length > kSafetensorsHeaderLimit)
    return Failure{
        fmt::format("{}: a header of {} bytes, at most {} are allowed: this is no safetensors file, or "
                    "it is damaged",
                    name, length, kSafetensorsHeaderLimit)};
  if (length > file.size() - kSafetensorsPrefix)
    return Failure{fmt::format("{}: a header of {} bytes in a file of {}: it is cut off, fetch it again",
                               name, length, file.size())};
  std::string header(length, '\0');
  if (Status read = file.Read(kSafetensorsPrefix, std::as_writable_bytes(std::span(header))); !read.ok())
    return read.failure();
  return ParseSafetensorsHeader(header, file.size(), name, metadata);
}

// A file of the same folder, and nothing else: an index must not make us read elsewhere.
bool IsPlainFileName(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

// tensor name -> shard's file name
Result<std::map<std::string, std::string>> ReadIndex(const Path& path) {
  Result<nlohmann::json> json = ReadJson(path);
  if (!json.ok()) return json.failure();
  const nlohmann::json& index = json.value();
  const auto fail = [&](std::string_view what) {
    return Failure{fmt::format("{}: {}", path.string(), what)};
  };
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
    return fail("\"weight_map\" is missing or no object");
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    if (!shard.is_string()) return fail(fmt::format("weight_map: {:?} is not a file name", tensor));
    const auto& name = shard.get_ref<const std::string&>();
    if (!IsPlainFileName(name))
      return fail(
          fmt::format("weight_map: {:?} is in {:?}, which is not a file of the same folder", tensor, name));
    shards.emplace(tensor, name);
  }
  if (shards.empty()) return fail("\"weight_map\" names no tensor");
  return shards;
}

Failure NothingFound(const Path& folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error))
    return {fmt::format("{}: no such folder", folder.string()), ExitCode::kBadInput};
  const bool has_pickle = std::filesystem::exists(folder / "pytorch_model.bin", error) ||
                          std::filesystem::exists(folder / "pytorch_model.bin.index.json", error);
  return {fmt::format("{}: neither {} nor {} is there{}", folder.string(), kSingleFile, kIndexFile,
                      has_pickle
                          ? "; pytorch_model.bin is not read, because loading it can run code: convert it to "
                            "safetensors"
                          : ""),
          ExitCode::kBadInput};
}

}  // namespace

int64_t ElementCount(std::span<const int64_t> shape) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  int64_t count = 1;
  for (const int64_t dim : shape) {
    if (__builtin_mul_overflow(count, dim, &count)) return std::numeric_limits<int64_t>::max();
  }
  return count;
}

Result<Safetensors> Safetensors::Open(const Path& file) {
  Result<RandomAccessFile> opened = RandomAccessFile::Open(file);
  if (!opened.ok()) return opened.failure();
  Safetensors result;
  result.files_.push_back(std::move(opened).value());
  Result<std::vector<TensorEntry>> entries = ReadHeader(result.files_[0], &result.metadata_);
  if (!entries.ok()) return entries.failure();
  for (const TensorEntry& entry : entries.value()) result.tensors_.emplace(entry.name, entry);
  return result;
}

Result<Safetensors> Safetensors::OpenFolder(const Path& folder) {
  std::error_code error;
  if (std::filesystem::exists(folder / kSingleFile, error)) return Open(folder / kSingleFile);
  if (!std::filesystem::exists(folder / kIndexFile, error)) return NothingFound(folder);
  const Path index_path = folder / kIndexFile;
  Result<std::map<std::string, std::string>> index = ReadIndex(index_path);
  if (!index.ok()) return index.failure();

  std::set<std::string> names;
  for (const auto& [tensor, shard] : index.value()) names.insert(shard);
  Safetensors result;
  for (const std::string& name : names) {
    if (!std::filesystem::exists(folder / name, error))
      return Failure{fmt::format("{}: the shard {:?} is missing: fetch it", index_path.string(), name)};
    Result<Safetensors> shard = Open(folder / name);
    if (!shard.ok()) return shard.failure();
    Safetensors opened = std::move(shard).value();
    result.metadata_.merge(opened.metadata_);
    for (auto& [tensor, entry] : opened.tensors_) {
      // The index is the authority: what it does not place in this shard is not part of the model.
      const auto placed = index.value().find(tensor);
      if (placed == index.value().end() || placed->second != name) continue;
      entry.file = result.files_.size();
      result.tensors_.emplace(tensor, std::move(entry));
    }
    result.files_.push_back(std::move(opened.files_[0]));
  }
  for (const auto& [tensor, shard] : index.value()) {
    if (!result.Find(tensor))
      return Failure{
          fmt::format("{}: tensor {:?} is not in its shard {:?}", index_path.string(), tensor, shard)};
  }
  return result;
}

const TensorEntry* Safetensors::Find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

Status Safetensors::Read(const TensorEntry& entry, uint64_t begin, std::span<std::byte> into) const {
  if (begin > entry.bytes || into.size() > entry.bytes - begin)
    return Failure{fmt::format("{}: tensor {:?} has {} bytes, {} from byte {} were asked for",
                               path(entry).string(), entry.name, entry.bytes, into.size(), begin)};
  return files_[entry.file].Read(entry.offset + begin, into);
}

}  // namespace rung::io
