// A config.json, or where it begins as one a GGUF file: what describes a model. Whatever the bytes: a
// message, or a config that can be calculated with; and a config.json made of it, if any, says the same.
#include <cstdint>
#include <cstdlib>

#include "model/config_difference.h"
#include "model/shapes.h"

namespace {

using namespace rung;

void Require(bool condition) {
  if (!condition) std::abort();
}

// `config` as a folder has it.
void CheckConfig(const model::Config& config) {
  Require(config.L > 0 && config.V > 0 && config.D > 0 && config.Hq % config.Hkv == 0);
  Require(config.parameter_count() > 0);
  Require(model::ConfigDifference(config, config).empty());
  for (const int64_t layer : {int64_t{0}, config.L - 1}) Require(config.block(layer).window >= 0);
  const Result<std::string> text = model::HfConfigJson(config);
  if (!text.ok()) return Require(!text.failure().message.empty());
  const Result<model::Config> again = model::ParseHfConfig(text.value(), "config.json");
  Require(again.ok() && model::ConfigDifference(config, again.value()).empty());
  // What was read from our own text is said again.
  const Result<std::string> twice = model::HfConfigJson(again.value());
  Require(twice.ok());
  Require(model::ParseHfConfig(twice.value(), "config.json").OrThrow() == again.value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (!text.starts_with("GGUF")) {
    const Result<model::Config> config = model::ParseHfConfig(text, "config.json");
    if (!config.ok()) return Require(!config.failure().message.empty()), 0;
    CheckConfig(config.value());
    return 0;
  }
  const Result<io::Gguf> gguf = io::Gguf::Parse(std::as_bytes(std::span(data, size)), "model.gguf");
  if (!gguf.ok()) return 0;
  for (const std::string& warning : model::ConfigWarnings(gguf.value())) Require(!warning.empty());
  const Result<model::Config> config = model::ConfigFromGguf(gguf.value());
  if (!config.ok()) return Require(!config.failure().message.empty()), 0;
  CheckConfig(model::AsFolder(config.value()));
  return 0;
}
