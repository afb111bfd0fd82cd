// Which format each matrix of a folder gets.
#include <fmt/format.h>

#include <array>
#include <map>

#include "base/text.h"
#include "io/safetensors.h"
#include "model/four_bit.h"
#include "model/quantization.h"
#include "model/stored_tensors.h"
#include "model/weights.h"

namespace rung::model {
namespace {

// In the order of Quantize.
constexpr std::array<std::string_view, 12> kNames = {"none", "nf4",  "nf4-single", "q8_0", "q4_0", "q4_1",
                                                     "q5_0", "q5_1", "bf16",       "f16",  "f32",  "mxfp4"};

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

Result<Quantize> ParseQuantize(const std::string& name, const std::string& flag) {
  if (const std::optional<Quantize> found = Find(name)) return *found;
  return UsageFailure(fmt::format("{} {}: known are {}", flag, Printable(name), QuantizeNames()));
}

Result<std::pair<std::string, Quantize>> ParsePattern(const std::string& text, const std::string& flag) {
  const size_t equals = text.rfind('=');
  const std::string pattern = text.substr(0, equals == std::string::npos ? 0 : equals);
  if (pattern.empty()) {
    return UsageFailure(fmt::format("{} {}: PATTERN=FORMAT is expected, as in \"model.layers.0.*=bf16\"",
                                    flag, Printable(text)));
  }
  const std::optional<Quantize> format = Find(std::string_view(text).substr(equals + 1));
  if (!format) {
    return UsageFailure(fmt::format("{} {}: {} is no format; known are {}", flag, Printable(text),
                                    Printable(text.substr(equals + 1)), QuantizeNames()));
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

namespace {

// Of a folder's matrices, as far as a recipe decides.
struct Deciding {
  std::string stored, name;  // as the folder has it, and without ".weight"
  bool is_end = false;       // the embedding or the head
  bool packed = false, nf4 = false;
};

std::vector<Deciding> DecidedTensors(const io::Safetensors& tensors, const Path& model) {
  const Result<Quantization> quantization = ReadQuantization(model);
  const Result<Config> config = ReadConfig(model);
  if (!quantization.ok() || !config.ok()) return {};  // what is wrong, loading says
  const auto has = [&](const std::string& name) {
    return tensors.Find(name + ".weight") || tensors.Find(name + ".qweight");
  };
  const Names& names = FindHfNames(config.value(), has);
  std::vector<Deciding> decided;
  for (const StoredTensor& tensor : StoredTensors(tensors, quantization.value())) {
    const bool packed = FourBitOf(tensors, tensor.name) || tensor.format == "int4";
    const std::string module = tensor.name.substr(0, tensor.name.rfind('.'));
    if ((!packed && tensor.shape.size() != 2) || module == names.position) continue;
    decided.push_back({tensor.name, module, module == names.embedding || module == names.head, packed,
                       tensor.format.starts_with("nf4")});
  }
  return decided;
}

}  // namespace

std::map<std::string, Quantize> ChoicesOf(const Recipe& recipe, const Path& folder) {
  std::map<std::string, Quantize> choices;
  const Result<io::Safetensors> tensors = io::Safetensors::OpenFolder(folder);
  if (!tensors.ok()) return choices;
  for (const Deciding& tensor : DecidedTensors(tensors.value(), folder)) {
    if (!tensor.packed) choices[tensor.stored] = recipe.For(tensor.name, tensor.is_end);
  }
  return choices;
}

Status CheckRecipe(const Recipe& recipe, const Path& model, const RecipeFlags& given) {
  const auto usage = [&](const std::string& flag, const std::string& why) {
    return UsageFailure(fmt::format("{}: {}", flag, why));
  };
  const auto packed = [&](const std::string& flag, const char* what) {
    return usage(flag, fmt::format("{} {} already and are used as they are; leave {} out, or make another "
                                   "file of the model with rung quantize",
                                   model.string(), what, flag.substr(0, flag.find(' '))));
  };
  const auto keep = [&](const std::string& pattern) { return given.patterns + " " + Printable(pattern); };
  if (IsGgufFile(model)) {
    constexpr const char* kFile = "is a GGUF file, whose tensors have their formats";
    if (!given.matrices.empty()) return packed(given.matrices, kFile);
    if (!given.embeddings.empty()) return packed(given.embeddings, kFile);
    if (!recipe.patterns.empty()) return packed(keep(recipe.patterns.front().first), kFile);
    return Ok{};
  }
  Result<io::Safetensors> tensors = io::Safetensors::OpenFolder(model);
  if (!tensors.ok()) return Ok{};  // a config alone is planned; what is wrong else, loading says
  for (const auto& [pattern, format] : recipe.patterns) {
    bool found = false;
    for (const auto& [name, entry] : tensors.value().tensors()) found = found || MatchesTensor(pattern, name);
    if (!found) {
      return usage(keep(pattern), fmt::format("no tensor of {} has such a name; rung inspect {} --tensors "
                                              "lists them",
                                              model.string(), model.string()));
    }
  }
  const std::vector<Deciding> decided = DecidedTensors(tensors.value(), model);
  // Some of those that `concerned` names are packed, and none is not.
  const auto no_use = [&](const auto& concerned) {
    bool any = false, plain = false;
    for (const Deciding& tensor : decided) {
      if (!concerned(tensor)) continue;
      any = any || tensor.packed;
      plain = plain || !tensor.packed;
    }
    return any && !plain;
  };
  // Asking for NF4 of what is NF4 is no contradiction: files of other programs' settings do.
  const bool nf4 = recipe.matrices == Quantize::kNf4 || recipe.matrices == Quantize::kNf4Single;
  if (!given.matrices.empty() && no_use([&](const Deciding& t) { return !t.is_end && !(nf4 && t.nf4); })) {
    return packed(given.matrices, "has layers that are packed");
  }
  if (!given.embeddings.empty() && no_use([](const Deciding& t) { return t.is_end; })) {
    return packed(given.embeddings, "has an embedding and a head that are packed");
  }
  for (const auto& kept : recipe.patterns) {
    if (no_use([&](const Deciding& t) { return MatchesTensor(kept.first, t.name); })) {
      return packed(keep(kept.first), "has tensors of this name that are packed");
    }
  }
  return Ok{};
}

}  // namespace rung::model
