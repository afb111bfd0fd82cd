#include "model/config_difference.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/families.h"

namespace rung::model {
namespace {

// The angles of two ropes differ where either would turn a head otherwise.
bool SameAngles(const RopeConfig& want, const RopeConfig& got, int64_t rotary) {
  const auto same = [&](const RopeConfig& a, const RopeConfig& b) {
    const RopeAngles x = MakeRopeAngles(a, rotary, 2), y = MakeRopeAngles(b, rotary, 2);
    for (size_t i = 0; i < x.sin.size(); ++i) {
      // Comparisons that a NaN fails.
      if (!(std::abs(x.cos[i] - y.cos[i]) <= 1e-5f)) return false;
      if (!(std::abs(x.sin[i] - y.sin[i]) <= 1e-4f * std::abs(x.sin[i]) + 1e-9f)) return false;
    }
    return true;
  };
  if (want.long_divisors.empty() != got.long_divisors.empty()) return false;
  for (size_t i = 0; i < want.long_divisors.size(); ++i) {
    if (i >= got.long_divisors.size()) return false;
    if (!IsNear(static_cast<double>(want.long_divisors[i]), static_cast<double>(got.long_divisors[i]))) {
      return false;
    }
  }
  return same(want, got);
}

std::string RopeDifference(const Config& want, const Config& got) {
  if (want.no_rope != got.no_rope) return "whether there is RoPE";
  if (want.no_rope) return "";
  if (want.rotary() != got.rotary()) return "the rotary part of a head";
  for (int64_t layer = 0; layer < want.L; ++layer) {
    if (want.has_rope(layer) != got.has_rope(layer)) return fmt::format("RoPE of layer {}", layer);
    if (want.has_window(layer) != got.has_window(layer)) {
      return fmt::format("the attention window of layer {}", layer);
    }
  }
  if (!SameAngles(want.rope, got.rope, want.rotary())) return "the angles of RoPE";
  if (!want.rope.long_divisors.empty() && !IsNear(want.rope.original_context, got.rope.original_context)) {
    return "the context beyond which RoPE is stretched";
  }
  if (want.window == 0) return "";
  const RopeConfig& local = want.local_rope ? *want.local_rope : want.rope;
  const RopeConfig& found = got.local_rope ? *got.local_rope : got.rope;
  return SameAngles(local, found, want.rotary()) ? "" : "the angles of RoPE in layers with a window";
}

}  // namespace

double ScoreScale(const Config& c) {
  return c.score_scale > 0.0f ? static_cast<double>(c.score_scale)
                              : 1.0 / std::sqrt(static_cast<double>(c.D));
}

bool IsNear(double a, double b) { return std::abs(a - b) <= 1e-5 * std::max(std::abs(a), std::abs(b)); }

Config AsFolder(const Config& config) {
  Config folder = config;
  const Family* family = FindFamily(config.family);
  RUNG_CHECK(family, "a GGUF file of a family that is not known");
  folder.rope.half = true;
  if (folder.local_rope) folder.local_rope->half = true;
  folder.norm_offset = family->norm_offset;
  folder.transposed = family->transposed;
  folder.qkv = family->qkv;
  return folder;
}

std::string ConfigDifference(const Config& want, const Config& got) {
  const auto number = [](const char* what, double a, double b) {
    return IsNear(a, b) ? "" : fmt::format("{}: {} and {}", what, a, b);
  };
  // Gemma's is the root of C, which transformers rounds to the type of the weights and llama.cpp does not.
  const bool rounded = want.family.starts_with("gemma") &&
                       std::abs(want.embedding_scale - got.embedding_scale) <= want.embedding_scale * 0x1p-8f;
  const auto real = [](auto x) { return static_cast<double>(x); };
  const std::string numbers[] = {
      number("layers", real(want.L), real(got.L)),
      number("hidden size", real(want.C), real(got.C)),
      number("MLP size", real(want.F), real(got.F)),
      number("heads", real(want.Hq), real(got.Hq)),
      number("key/value heads", real(want.Hkv), real(got.Hkv)),
      number("head size", real(want.D), real(got.D)),
      number("embedding size", real(want.embedding_width()), real(got.embedding_width())),
      number("vocabulary", real(want.V), real(got.V)),
      number("context", real(want.context), real(got.context)),
      number("attention window", real(want.window), real(got.window)),
      number("norm epsilon", real(want.norm_eps), real(got.norm_eps)),
      rounded ? "" : number("embedding scale", real(want.embedding_scale), real(got.embedding_scale)),
      number("residual scale", real(want.residual_scale), real(got.residual_scale)),
      number("attention scale", ScoreScale(want), ScoreScale(got)),
      number("soft cap of attention", real(want.score_cap), real(got.score_cap)),
      number("logit scale", real(want.logit_scale), real(got.logit_scale)),
      number("soft cap of logits", real(want.logit_cap), real(got.logit_cap)),
      number("positions", real(want.position_rows - want.first_position),
             real(got.position_rows - got.first_position))};
  for (const std::string& difference : numbers) {
    if (!difference.empty()) return difference;
  }
  const std::pair<const char*, bool> switches[] = {
      {"the kind of norms", want.norm == got.norm && want.norm_bias == got.norm_bias},
      {"where norms stand", want.norms == got.norms && want.output_norms == got.output_norms &&
                                want.norm_after_sum == got.norm_after_sum &&
                                want.final_norm == got.final_norm},
      {"whether attention and MLP are parallel", want.parallel == got.parallel},
      {"norms of queries and keys", want.qk_norm == got.qk_norm},
      {"the MLP", want.gated_mlp == got.gated_mlp && want.activation == got.activation},
      {"biases",
       want.qkv_bias == got.qkv_bias && want.o_bias == got.o_bias && want.mlp_bias == got.mlp_bias}};
  for (const auto& [what, same] : switches) {
    if (!same) return what;
  }
  return RopeDifference(want, got);
}

}  // namespace rung::model
