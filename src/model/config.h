// What a decoder-only model is, whatever file it came from: shapes and orthogonal switches.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "io/gguf.h"
#include "nn/block.h"

namespace rung::model {

struct RopeConfig {
  double theta = 10000.0;
  bool half = true;            // see ops::RopeTable
  double linear_factor = 1.0;  // positions divided by it
  // Llama 3's scaling: wavelengths beyond original_context / low_factor are stretched by factor, those below
  // original_context / high_factor kept, between them interpolated. factor 1: none.
  double factor = 1.0, low_factor = 1.0, high_factor = 4.0, original_context = 8192.0;
  std::vector<float> divisors;  // (rotary/2) or empty: each frequency divided by its own (GGUF's rope_freqs)

  bool operator==(const RopeConfig&) const = default;
};

struct Config {
  std::string family;  // "llama", "mistral", "qwen2", "qwen3"
  std::string name;    // as the file calls itself, for messages and reports
  int64_t L = 0, C = 0, F = 0, Hq = 0, Hkv = 0, D = 0, V = 0;
  float norm_eps = 1e-5f;
  RopeConfig rope;
  bool qkv_bias = false, qk_norm = false, tied_head = false;
  bool gated_mlp = true;
  cpu::Activation activation = cpu::Activation::kSilu;
  // Of shapes that are planned but not run (model/shapes.h): biases of every linear layer and norm but the
  // head, and rows of a learned table of positions in RoPE's place.
  bool bias_everywhere = false;
  int64_t position_rows = 0;
  int64_t context = 2048;  // longest sequence the model was made for
  int64_t window = 0;      // sliding attention window; 0: none. Longer sequences are refused

  nn::BlockShape block() const;
  int64_t parameter_count() const;  // norms and embeddings included, a tied head once
  bool operator==(const Config&) const = default;
};

// "llama, mistral, ...": the families we read.
std::string KnownFamilies();

// The text of a Hugging Face folder's config.json. `name` stands in messages.
Result<Config> ParseHfConfig(std::string_view text, const std::string& name);
Result<Config> ConfigFromGguf(const io::Gguf& gguf);
// True for a file that begins as GGUF files do, whatever its name.
bool IsGgufFile(const Path& path);
// A config.json, a folder with one, or a GGUF file: the header alone, no weights.
Result<Config> ReadConfig(const Path& path);

// Cosines and sines of positions [0, positions) by the config's frequencies, (positions, D/2) each,
// row-major.
struct RopeAngles {
  std::vector<float> cos, sin;
};
RopeAngles MakeRopeAngles(const Config& config, int64_t positions);

}  // namespace rung::model
