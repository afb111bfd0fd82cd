// What a decoder-only model is, whatever file it came from: shapes and orthogonal switches.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "io/gguf.h"
#include "nn/block.h"

namespace rung::model {

// Frequencies theta^(-2i/rotary), i < rotary/2, and how they are stretched for longer contexts.
enum class RopeScaling : uint8_t { kNone, kLinear, kLlama3, kYarn, kLongRope };

struct RopeConfig {
  double theta = 10000.0;
  int64_t rotary = 0;  // leading elements of a head that turn; 0: all D
  bool half = true;    // see ops::RopeTable
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;               // kLinear: positions divided by it; kLlama3, kYarn: the stretch
  double original_context = 8192.0;  // kLlama3, kYarn, kLongRope: tokens the model was first made for
  // kLlama3: wavelengths beyond original_context / low_factor are stretched by factor, those below
  // original_context / high_factor kept, between them interpolated.
  double low_factor = 1.0, high_factor = 4.0;
  // kYarn (arXiv 2309.00071): pairs that turn more often than beta_fast within the original context are kept,
  // those below beta_slow stretched, between them a ramp, whose ends are rounded outwards when `truncate`.
  double beta_fast = 32.0, beta_slow = 1.0;
  bool truncate = true;
  double magnitude = 1.0;  // cos and sin are multiplied by it (YaRN's and LongRoPE's attention factor)
  // (rotary/2) or empty: each frequency divided by its own. GGUF's rope_freqs; of kLongRope those up to
  // original_context positions, and `long_divisors` where more are run.
  std::vector<float> divisors, long_divisors;

  bool operator==(const RopeConfig&) const = default;
};

struct Config {
  std::string family;  // Hugging Face's model_type: "llama", "gpt_neox", "gemma2", ...
  std::string name;    // as the file calls itself, for messages and reports
  int64_t L = 0, C = 0, F = 0, Hq = 0, Hkv = 0, D = 0, V = 0;
  int64_t E = 0;  // width of the embedding and the head where it is not C (projected in and out); 0: C
  nn::NormKind norm = nn::NormKind::kRms;
  float norm_eps = 1e-5f;
  float norm_offset = 0.0f;  // of gains: 1 where files store gain - 1
  bool norm_bias = false;
  bool final_norm = true;
  // Where norms stand: see nn::BlockShape.
  bool norms = true, output_norms = false, norm_after_sum = false, parallel = false;
  nn::QkvRows qkv = nn::QkvRows::kSeparate;
  nn::QkNorm qk_norm = nn::QkNorm::kNone;
  bool gated_mlp = true, fused_gate_up = false;
  cpu::Activation activation = cpu::Activation::kSilu;
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  bool transposed = false;  // linear layers are stored (in, out), as GPT-2's Hugging Face files do
  bool tied_head = false;

  RopeConfig rope;
  std::optional<RopeConfig> local_rope;  // of layers with a window, where it differs
  std::vector<int64_t> unrotated;        // layers without RoPE, ascending
  bool no_rope = false;                  // no layer has it
  int64_t position_rows = 0;             // of a learned table of positions, or 0
  int64_t first_position = 0;            // the table's row of position 0

  float embedding_scale = 1.0f;  // of the token's embedding, not of the position's
  float residual_scale = 1.0f;
  float score_scale = 0.0f, score_cap = 0.0f;  // of attention: see nn::BlockShape
  float logit_scale = 1.0f, logit_cap = 0.0f;  // logits = cap(scale * head . h)
  int64_t context = 2048;                      // longest sequence the model was made for
  int64_t window = 0;                          // sliding attention window of some or all layers; 0: none
  std::vector<int64_t> windowed;               // layers that have it, ascending; empty: all

  bool has_window(int64_t layer) const;
  bool has_rope(int64_t layer) const;
  int64_t embedding_width() const { return E > 0 ? E : C; }
  int64_t rotary() const { return rope.rotary > 0 ? rope.rotary : D; }
  nn::BlockShape block(int64_t layer) const;
  int64_t parameter_count() const;  // norms and embeddings included, a tied head once
  bool operator==(const Config&) const = default;
};

// "llama, mistral, ...": the families we read.
std::string KnownFamilies();

// The text of a Hugging Face folder's config.json. `name` stands in messages.
Result<Config> ParseHfConfig(std::string_view text, const std::string& name);
Result<Config> ConfigFromGguf(const io::Gguf& gguf);
// A line for each metadata key of the architecture's own that is not read and may change the computation, and
// for each kind of tensor that the model would not use.
std::vector<std::string> ConfigWarnings(const io::Gguf& gguf);
// True for a file that begins as GGUF files do, whatever its name.
bool IsGgufFile(const Path& path);
// A config.json, a folder with one, or a GGUF file: the header alone, no weights.
Result<Config> ReadConfig(const Path& path);

// Cosines and sines of positions [0, positions), (positions, rotary/2) each, row-major.
struct RopeAngles {
  std::vector<float> cos, sin;
};
RopeAngles MakeRopeAngles(const RopeConfig& rope, int64_t rotary, int64_t positions);
// What Llama 3's scaling divides a frequency of this wavelength, in tokens, by.
double Llama3Divisor(const RopeConfig& rope, double wavelength);

}  // namespace rung::model
