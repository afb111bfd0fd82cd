#include "data/data_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <system_error>

namespace rung::data {
namespace {

constexpr double kMaxWeight = 1000.0;
// "validation" is what Hugging Face's data sets say.
const std::vector<std::string>& NamesOf(Split split) {
  static const std::vector<std::string> kTrain = {"train"}, kValid = {"valid", "validation", "val", "dev"},
                                        kTest = {"test"};
  return split == Split::kTrain ? kTrain : split == Split::kValid ? kValid : kTest;
}
constexpr std::array<const char*, 6> kExtensions = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt"};
constexpr std::array<const char*, 3> kPacked = {"", ".gz", ".zst"};

// The part behind the last colon when it is a number and the name with it is no file.
std::optional<double> WeightOf(std::string_view* name) {
  std::error_code error;
  if (std::filesystem::exists(Path(*name), error)) return std::nullopt;
  const size_t colon = name->rfind(':');
  if (colon == name->npos || colon == 0) return std::nullopt;
  const std::string_view text = name->substr(colon + 1);
  double weight = 0.0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), weight);
  if (code != std::errc() || end != text.data() + text.size()) return std::nullopt;
  name->remove_suffix(text.size() + 1);
  return weight;
}

// The names between commas (a list in a configuration file is given so), unless a file has such a name.
std::vector<std::string_view> Listed(std::string_view given) {
  std::string_view whole = given;
  WeightOf(&whole);
  std::error_code error;
  if (std::filesystem::exists(Path(whole), error)) return {given};
  std::vector<std::string_view> names;
  for (size_t end = 0; end != given.npos;) {
    end = given.find(',');
    names.push_back(given.substr(0, end));
    if (end != given.npos) given.remove_prefix(end + 1);
  }
  return names;
}

}  // namespace

Result<Path> FindInFolder(const Path& folder, Split split) {
  std::error_code error;
  std::vector<Path> found;
  for (const std::string& name : NamesOf(split)) {
    for (const char* extension : kExtensions) {
      for (const char* packed : kPacked) {
        Path path = folder / (name + extension + packed);
        if (std::filesystem::is_regular_file(path, error)) found.push_back(std::move(path));
      }
    }
  }
  if (found.size() > 1) {
    return UsageFailure(fmt::format("{}: there are {} and {}: name the one you mean", folder.string(),
                                    found[0].filename().string(), found[1].filename().string()));
  }
  return found.empty() ? Path() : found[0];
}

Path FolderOf(std::string_view name) {
  WeightOf(&name);
  std::error_code error;
  return std::filesystem::is_directory(Path(name), error) ? Path(name) : Path();
}

Result<DataFile> FindDataFile(std::string_view name, Split split) {
  const std::string given(name);
  DataFile file;
  if (const std::optional<double> weight = WeightOf(&name)) {
    if (!(*weight > 0.0 && *weight <= kMaxWeight)) {
      return UsageFailure(fmt::format("{}: a weight is above 0 and at most {}", given, kMaxWeight));
    }
    file.weight = *weight;
  }
  file.path = name;
  std::error_code error;
  if (!std::filesystem::is_directory(file.path, error)) return file;
  Result<Path> found = FindInFolder(file.path, split);
  if (!found.ok()) return found.failure();
  if (found.value().empty()) {
    return Failure{
        fmt::format("{}: it is a directory, and there is no {}.jsonl in it (nor .json, .csv, .tsv, .txt, or "
                    "one of these packed as .gz or .zst): name a file",
                    file.path.string(), NamesOf(split).front())};
  }
  file.path = found.value();
  return file;
}

Result<std::vector<DataFile>> FindDataFiles(std::span<const std::string> names, Split split) {
  std::vector<DataFile> files;
  for (const std::string& given : names) {
    for (const std::string_view name : Listed(given)) {
      Result<DataFile> file = FindDataFile(name, split);
      if (!file.ok()) return file.failure();
      files.push_back(std::move(file).value());
    }
  }
  return files;
}

std::string Describe(std::span<const DataFile> files) {
  if (files.empty()) return "no data";
  const std::string first = files.front().path.string();
  return files.size() == 1 ? first : fmt::format("{} and {} more", first, files.size() - 1);
}

}  // namespace rung::data
