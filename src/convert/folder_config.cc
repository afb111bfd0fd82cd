#include "convert/folder_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "base/text.h"
#include "io/json_file.h"
#include "model/config_difference.h"
#include "model/shapes.h"

namespace rung::convert {
namespace {

using nlohmann::ordered_json;

double Wavelength(const model::Config& config, size_t pair) {
  return 2.0 * std::numbers::pi *
         std::pow(config.rope.theta, 2.0 * static_cast<double>(pair) / static_cast<double>(config.rotary()));
}

std::string GgufConfig(const TensorReader& source) {
  const model::Config& want = source.folder_config();
  model::Config config = want;
  if (!IsUtf8(config.name)) config.name.clear();  // JSON has no place for it
  const bool llama3 = config.rope.scaling == model::RopeScaling::kNone && !config.rope.divisors.empty();
  if (llama3) config.rope = RopeOfDivisors(config, source.gguf()->name());
  config.tied_head = source.gguf()->Find("output.weight") == nullptr;
  const Result<std::string> text = model::HfConfigJson(config);
  std::string why = text.ok() ? "" : text.failure().message;
  if (llama3 && why.empty()) {
    // What the divisors were taken for.
    const model::Config got = model::ParseHfConfig(text.value(), "config.json").OrThrow();
    const std::string difference = model::ConfigDifference(want, got);
    if (!difference.empty()) why = "rope_freqs.weight as Llama 3's scaling: " + difference;
  }
  if (why.empty()) return text.value();
  throw Error(ExitCode::kBadInput,
              fmt::format("{}: no Hugging Face folder can say what this file does: {}; keep it a GGUF file "
                          "(rung quantize --out X.gguf), or begin with the folder that the file was made of",
                          source.gguf()->name(), why));
}

}  // namespace

std::vector<float> Llama3Divisors(const model::Config& config) {
  std::vector<float> divisors(static_cast<size_t>(config.rotary() / 2));
  for (size_t i = 0; i < divisors.size(); ++i) {
    divisors[i] = static_cast<float>(model::Llama3Divisor(config.rope, Wavelength(config, i)));
  }
  return divisors;
}

model::RopeConfig RopeOfDivisors(const model::Config& config, const std::string& where) {
  const std::vector<float>& divisors = config.rope.divisors;
  model::RopeConfig rope = config.rope;
  rope.divisors.clear();
  rope.factor = static_cast<double>(*std::max_element(divisors.begin(), divisors.end()));
  if (rope.factor == 1.0) return rope;  // nothing is divided
  rope.scaling = model::RopeScaling::kLlama3;
  // Only the quotients of original_context and the two factors count; every Llama has these factors.
  rope.low_factor = 1.0;
  rope.high_factor = 4.0;
  for (size_t i = 0; i < divisors.size(); ++i) {
    const auto d = static_cast<double>(divisors[i]);
    if (d <= 1.0 || d >= rope.factor) continue;
    // Between the two ends the divisor tells where it stands, and so the context.
    const double smooth = (1.0 / d - 1.0 / rope.factor) / (1.0 - 1.0 / rope.factor);
    rope.original_context =
        std::round(Wavelength(config, i) * (rope.low_factor + smooth * (rope.high_factor - rope.low_factor)));
    break;
  }
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double want = model::Llama3Divisor(rope, Wavelength(config, i));
    if (std::abs(static_cast<double>(divisors[i]) - want) <= 1e-3 * want) continue;
    throw Error(
        ExitCode::kBadInput,
        fmt::format("{}: rope_freqs.weight is not Llama 3's scaling, which config.json has no words for; "
                    "merge into the Hugging Face folder of this model",
                    where));
  }
  return rope;
}

std::string MergedConfig(const TensorReader& source, const Path& model, const std::string& dtype) {
  const std::string text = source.is_gguf()
                               ? GgufConfig(source)
                               : ReadTextFile(model / "config.json", io::kJsonFileLimit).OrThrow();
  // Parsed once by the rules for foreign files, then again to keep the order of its keys.
  io::ParseJson(text, "config.json").OrThrow();
  ordered_json config = ordered_json::parse(text);
  config.erase("quantization_config");
  config["torch_dtype"] = dtype;
  if (config.contains("dtype")) config["dtype"] = dtype;
  if (source.is_gguf()) {
    for (const char* end : {"bos", "eos"}) {
      const auto id = source.gguf()->GetInt(fmt::format("tokenizer.ggml.{}_token_id", end));
      if (id) config[fmt::format("{}_token_id", end)] = *id;
    }
  }
  return config.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace rung::convert
