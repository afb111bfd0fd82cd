// Which format each matrix of a folder gets.
#include <fmt/format.h>

#include <array>
#include <map>

#include "base/text.h"
#include "io/safetensors.h"
#include "model/weights.h"

namespace rung::model {
namespace {

// In the order of Quantize.
constexpr std::array<std::string_view, 11> kNames = {"none", "nf4",  "nf4-single", "q8_0", "q4_0", "q4_1",
                                                     "q5_0", "q5_1", "bf16",       "f16",  "f32"};

constexpr std::string_view kWeight = ".weight";

std::optional<Quantize> Find(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<Quantize>(i);
  }
  return std::nullopt;
}

// * stands for any characters, none included, ? for one. Time: the product of the lengths at most.
bool Matches(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0;
  size_t star = std::string_view::npos, resume = 0;  // the last *, and where its characters end
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

// With and without ".weight".
bool MatchesTensor(std::string_view pattern, std::string_view name) {
  if (name.ends_with(kWeight)) name.remove_suffix(kWeight.size());
  return Matches(pattern, name) || Matches(pattern, std::string(name) + std::string(kWeight));
}

}  // namespace

std::string_view NameOf(Quantize quantize) { return kNames[static_cast<size_t>(quantize)]; }

std::string QuantizeNames() {
  std::string names;
  for (const std::string_view name : kNames) names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
  return names;
}

Result<Quantize> ParseQuantize(const std::string& name) {
  if (const std::optional<Quantize> found = Find(name)) return *found;
  return Failure{fmt::format("--quantize {}: known are {}", Printable(name), QuantizeNames()),
                 ExitCode::kUsage};
}

Result<std::pair<std::string, Quantize>> ParsePattern(const std::string& text, const std::string& flag) {
  const size_t equals = text.rfind('=');
  const std::string pattern = text.substr(0, equals == std::string::npos ? 0 : equals);
  if (pattern.empty()) {
    return Failure{fmt::format("{} {}: PATTERN=FORMAT is expected, as in \"model.layers.0.*=bf16\"", flag,
                               Printable(text)),
                   ExitCode::kUsage};
  }
  const std::optional<Quantize> format = Find(std::string_view(text).substr(equals + 1));
  if (!format) {
    return Failure{fmt::format("{} {}: {} is no format; known are {}", flag, Printable(text),
                               Printable(text.substr(equals + 1)), QuantizeNames()),
                   ExitCode::kUsage};
  }
  return std::pair{pattern, *format};
}

Quantize Recipe::For(std::string_view name, bool is_embedding) const {
  for (const auto& [pattern, format] : patterns) {
    if (MatchesTensor(pattern, name)) return format;
  }
  return is_embedding ? embeddings : matrices;
}

std::string Recipe::Key() const {
  std::string key = std::to_string(static_cast<int>(matrices));
  if (embeddings != Quantize::kNone) {
    key += embeddings == matrices ? "+embeddings" : fmt::format("+embeddings:{}", NameOf(embeddings));
  }
  for (const auto& [pattern, format] : patterns) key += fmt::format("+{:?}={}", pattern, NameOf(format));
  return key;
}

Status CheckPatterns(const Recipe& recipe, const Path& model, const std::string& flag) {
  if (recipe.patterns.empty()) return Ok{};
  const auto usage = [&](const std::string& pattern, const std::string& why) {
    return Failure{fmt::format("{} {}: {}", flag, Printable(pattern), why), ExitCode::kUsage};
  };
  if (IsGgufFile(model)) {
    return usage(recipe.patterns.front().first,
                 fmt::format("{} is a GGUF file, whose tensors are used as they are", model.string()));
  }
  Result<io::Safetensors> tensors = io::Safetensors::OpenFolder(model);
  if (!tensors.ok()) return Ok{};  // a config alone is planned; what is wrong else, loading says
  for (const auto& [pattern, format] : recipe.patterns) {
    bool found = false;
    for (const auto& [name, entry] : tensors.value().tensors()) found = found || MatchesTensor(pattern, name);
    if (!found) {
      return usage(pattern,
                   fmt::format("no tensor of {} has such a name; rung inspect {} --tensors lists them",
                               model.string(), model.string()));
    }
  }
  return Ok{};
}

}  // namespace rung::model
