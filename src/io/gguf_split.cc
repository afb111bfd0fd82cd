// Opening GGUF files: one, or all parts of a model that gguf-split cut.
#include <fmt/format.h>

#include <optional>

#include "base/text.h"
#include "io/gguf.h"

namespace rung::io {
namespace {

constexpr const char* kCount = "split.count";
constexpr const char* kNumber = "split.no";
constexpr const char* kTensors = "split.tensors.count";

// "STEM-00002-of-00003.gguf".
struct PartName {
  std::string stem;
  int64_t number = 0, count = 0;  // number from 1

  std::string Of(int64_t part) const { return fmt::format("{}-{:05}-of-{:05}.gguf", stem, part, count); }
};

std::optional<int64_t> FiveDigits(std::string_view text) {
  int64_t number = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    number = 10 * number + (c - '0');
  }
  return number;
}

std::optional<PartName> ParsePartName(const std::string& name) {
  constexpr std::string_view kPattern = "-00000-of-00000.gguf";
  if (name.size() <= kPattern.size()) return std::nullopt;
  const std::string_view tail = std::string_view(name).substr(name.size() - kPattern.size());
  const std::optional<int64_t> number = FiveDigits(tail.substr(1, 5)), count = FiveDigits(tail.substr(10, 5));
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || tail.substr(15) != ".gguf" || !number || !count) {
    return std::nullopt;
  }
  return PartName{name.substr(0, name.size() - kPattern.size()), *number, *count};
}

}  // namespace

std::vector<Path> GgufFiles(const Path& path) {
  const std::optional<PartName> name = ParsePartName(path.filename().string());
  if (!name || name->number < 1 || name->number > name->count) return {path};
  std::vector<Path> files;
  for (int64_t part = 1; part <= name->count; ++part) files.push_back(path.parent_path() / name->Of(part));
  return files;
}

Result<Gguf> Gguf::OpenOne(const Path& path) {
  Result<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.failure();
  MappedFile mapped = std::move(file).value();
  Result<Gguf> parsed = Parse(mapped.bytes(), path.string());
  if (!parsed.ok()) return parsed;
  Gguf gguf = std::move(parsed).value();
  gguf.files_.push_back(std::move(mapped));
  return gguf;
}

Result<Gguf> Gguf::Open(const Path& path) {
  Result<Gguf> opened = OpenOne(path);
  if (!opened.ok()) return opened;
  const int64_t count = opened.value().GetInt(kCount).value_or(1);
  if (count <= 1) return opened;
  const std::vector<Path> files = GgufFiles(path);
  if (static_cast<int64_t>(files.size()) != count) {
    return Failure{
        fmt::format("{}: a part of a model in {} files, which must be named "
                    "NAME-00001-of-{:05}.gguf and so on: give it back the name it came with",
                    path.string(), count, count)};
  }
  std::vector<Gguf> parts;
  for (const Path& file : files) {
    std::error_code error;
    if (!std::filesystem::exists(file, error)) {
      return Failure{fmt::format("{}: part {} of {} is missing beside {}: fetch it too", file.string(),
                                 parts.size() + 1, count, path.filename().string())};
    }
    Result<Gguf> read = file == path ? std::move(opened) : OpenOne(file);
    if (!read.ok()) return read;
    parts.push_back(std::move(read).value());
  }
  return Join(std::move(parts));
}

Result<Gguf> Gguf::Join(std::vector<Gguf> parts) {
  if (parts.empty()) return Failure{"a GGUF model of no files"};
  const auto count = static_cast<int64_t>(parts.size());
  const std::optional<int64_t> tensors = parts.front().GetInt(kTensors);
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Gguf& part = parts[static_cast<size_t>(i)];
    const auto fail = [&part](const std::string& what) {
      return Failure{
          fmt::format("{}: {}: the files are not of one model, fetch them again", part.name(), what)};
    };
    if (part.GetInt(kCount) != count || part.GetInt(kNumber) != i) {
      return fail(fmt::format("{} and {} must be {} and {}", kNumber, kCount, i, count));
    }
    if (part.GetInt(kTensors) != tensors)
      return fail(fmt::format("{} is not that of the first part", kTensors));
    found += static_cast<int64_t>(part.tensors().size());
  }
  if (tensors && *tensors != found) {
    return Failure{
        fmt::format("{}: the {} files have {} tensors together, {} says {}: one of them is damaged "
                    "or of another model, fetch them again",
                    parts.front().name(), count, found, kTensors, *tensors)};
  }
  Gguf joined = std::move(parts.front());
  for (size_t i = 1; i < parts.size(); ++i) {
    for (GgufTensor& tensor : parts[i].tensors_) {
      if (!joined.index_.try_emplace(tensor.name, joined.tensors_.size()).second) {
        return Failure{fmt::format("{}: tensor {} is also in a part before it: fetch the files again",
                                   parts[i].name(), Printable(tensor.name))};
      }
      joined.tensors_.push_back(std::move(tensor));
    }
    for (MappedFile& file : parts[i].files_) joined.files_.push_back(std::move(file));
  }
  return joined;
}

}  // namespace rung::io
