// The files of a model and their checksums.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <sstream>

#include "base/text.h"
#include "io/gguf.h"
#include "io/sha256.h"
#include "verify/parts.h"

namespace rung::verify {
namespace {

constexpr uint64_t kSumsLimit = uint64_t{1} << 20;
constexpr const char* kSumsNames[] = {"SHA256SUMS", "SHA256SUMS.txt", "sha256sums.txt", "sha256sum.txt"};

bool IsSum(std::string_view text) {
  return text.size() == 64 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
}

// Of a folder: weights, and what decides how they are used. Of a GGUF file that was split: all parts.
std::vector<Path> FilesOf(const Path& model) {
  std::error_code error;
  if (!std::filesystem::is_directory(model, error)) return io::GgufFiles(model);
  std::vector<Path> files;
  for (const auto& item : std::filesystem::directory_iterator(model, error)) {
    const Path extension = item.path().extension();
    if (!std::filesystem::is_regular_file(item.path(), error)) continue;
    if (extension == ".safetensors" || extension == ".json" || extension == ".model")
      files.push_back(item.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

bool IsWeights(const Path& file) { return file.extension() != ".json" && file.extension() != ".model"; }

// A line of sha256sum: the sum, and the file's name behind spaces and perhaps a star.
std::string SumFromText(const std::string& text, const std::string& file, bool any_name) {
  std::istringstream lines(text);
  std::string sum, name;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    sum.clear();
    name.clear();
    words >> sum >> name;
    if (name.starts_with("*")) name.erase(0, 1);
    const bool named = Path(name).filename() == file || (any_name && name.empty());
    if (IsSum(sum) && named) return Lowered(sum);
  }
  return "";
}

struct Expected {
  std::string sum, where;
};

// What stands beside a file about it.
Expected ExpectedSum(const Path& file) {
  std::error_code error;
  const std::string name = file.filename().string();
  const Path own = Path(file) += ".sha256";
  std::vector<Path> places = {own};
  for (const char* sums : kSumsNames) places.push_back(file.parent_path() / sums);
  for (const Path& place : places) {
    if (!std::filesystem::is_regular_file(place, error)) continue;
    const Result<std::string> text = ReadTextFile(place, kSumsLimit);
    const std::string sum = text.ok() ? SumFromText(text.value(), name, place == own) : "";
    if (!sum.empty()) return {sum, place.filename().string()};
  }
  // The Hugging Face cache names the large files by their sum.
  const std::string stored = std::filesystem::canonical(file, error).filename().string();
  if (!error && IsSum(stored)) return {Lowered(stored), "the cache's name of the file"};
  return {};
}

}  // namespace

void VerifyFiles(const VerifyOptions& options, const VerifyProgress& on_progress, Verification* found) {
  std::vector<Path> files = FilesOf(options.model);
  if (!options.checksums) {
    return found->Add("files", Finding::kSkipped, "checksums: not asked for");
  }
  const std::string given = Lowered(options.sha256);
  const auto weights = std::count_if(files.begin(), files.end(), IsWeights);
  if (!given.empty() && !IsSum(given)) {
    throw Error(ExitCode::kUsage,
                fmt::format("--sha256 {}: 64 hexadecimal digits are expected", options.sha256));
  }
  if (!given.empty() && weights != 1) {
    throw Error(ExitCode::kUsage,
                fmt::format("--sha256: {} has {} files of weights; put a SHA256SUMS beside them",
                            options.model.string(), weights));
  }
  uint64_t total = 0, done = 0;
  std::error_code error;
  const auto size_of = [&error](const Path& file) {
    const uintmax_t size = std::filesystem::file_size(file, error);
    return error ? uintmax_t{0} : size;  // what is missing is a problem below
  };
  for (const Path& file : files) total += size_of(file);
  for (const Path& file : files) {
    const std::string name = file.filename().string();
    const Result<std::string> sum = io::Sha256OfFile(file, [&](uint64_t bytes) {
      done += bytes;
      return !on_progress || on_progress("checksums, MiB", static_cast<size_t>(done >> 20),
                                         static_cast<size_t>(std::max<uint64_t>(1, total >> 20)));
    });
    if (!sum.ok()) {
      found->Add("files", Finding::kProblem, sum.failure().message);
      found->damaged.push_back(name);
      continue;
    }
    found->sha256[name] = sum.value();
    Expected expected = ExpectedSum(file);
    if (!given.empty() && IsWeights(file)) expected = {given, "--sha256"};
    const std::string size = FormatBytes(size_of(file));
    if (expected.sum.empty()) {
      found->Add("files", Finding::kOk, fmt::format("{}: {}, sha256 {}", name, size, sum.value()));
    } else if (expected.sum == sum.value()) {
      found->Add("files", Finding::kOk,
                 fmt::format("{}: {}, sha256 {} as {} says", name, size, sum.value(), expected.where));
    } else {
      found->damaged.push_back(name);
      found->Add("files", Finding::kProblem,
                 fmt::format("{}: {}, sha256 is {}, {} says {}: damaged, or another version; get it again",
                             name, size, sum.value(), expected.where, expected.sum));
    }
  }
}

}  // namespace rung::verify
