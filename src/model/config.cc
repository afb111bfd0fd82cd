#include "model/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>

#include "io/json_file.h"

namespace rung::model {
namespace {

// Pairs of a head from the first on that YaRN keeps, and those from the second on that it stretches.
std::pair<double, double> YarnRamp(const RopeConfig& rope, int64_t rotary) {
  const auto dims = static_cast<double>(rotary);
  const auto pair_that_turns = [&](double times) {
    return dims * std::log(rope.original_context / (times * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(rope.theta));
  };
  double low = pair_that_turns(rope.beta_fast), high = pair_that_turns(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dims - 1.0);
  return {low, low == high ? high + 0.001 : high};
}

std::vector<double> Frequencies(const RopeConfig& rope, int64_t rotary, int64_t positions) {
  const bool is_long =
      rope.scaling == RopeScaling::kLongRope && static_cast<double>(positions) > rope.original_context;
  const std::vector<float>& divisors = is_long ? rope.long_divisors : rope.divisors;
  std::vector<double> frequencies;
  for (int64_t i = 0; i < rotary / 2; ++i) {
    double f = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(rotary));
    if (rope.scaling == RopeScaling::kLinear) f /= rope.factor;
    if (rope.scaling == RopeScaling::kLlama3) f /= Llama3Divisor(rope, 2.0 * std::numbers::pi / f);
    if (rope.scaling == RopeScaling::kYarn) {
      const auto [low, high] = YarnRamp(rope, rotary);
      const double stretched = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
      f = f / rope.factor * stretched + f * (1.0 - stretched);
    }
    if (!divisors.empty()) f /= static_cast<double>(divisors[static_cast<size_t>(i)]);
    frequencies.push_back(f);
  }
  return frequencies;
}

}  // namespace

double Llama3Divisor(const RopeConfig& rope, double wavelength) {
  const double context = rope.original_context;
  if (wavelength > context / rope.low_factor) return rope.factor;
  // With equality: where the two factors are one, nothing is between them.
  if (wavelength <= context / rope.high_factor) return 1.0;
  const double smooth = (context / wavelength - rope.low_factor) / (rope.high_factor - rope.low_factor);
  return 1.0 / ((1.0 - smooth) / rope.factor + smooth);
}

bool Config::has_window(int64_t layer) const {
  return window > 0 && (windowed.empty() || std::binary_search(windowed.begin(), windowed.end(), layer));
}

bool Config::has_rope(int64_t layer) const {
  return !no_rope && !std::binary_search(unrotated.begin(), unrotated.end(), layer);
}

nn::BlockShape Config::block(int64_t layer) const {
  nn::BlockShape shape;
  shape.C = C;
  shape.Hq = Hq;
  shape.Hkv = Hkv;
  shape.D = D;
  shape.F = F;
  shape.activation = activation;
  shape.gated = gated_mlp;
  shape.fused_gate_up = fused_gate_up;
  shape.qkv = qkv;
  shape.qk_norm = qk_norm;
  shape.norms = norms;
  shape.output_norms = output_norms;
  shape.norm_after_sum = norm_after_sum;
  shape.parallel = parallel;
  shape.residual_scale = residual_scale;
  shape.score_scale = score_scale;
  shape.score_cap = score_cap;
  shape.window = has_window(layer) ? window : 0;
  return shape;
}

int64_t Config::parameter_count() const {
  const int64_t q = Hq * D, kv = Hkv * D, E_ = embedding_width();
  const int64_t norm_size = norm_bias ? 2 * C : C;
  int64_t layer = C * (q + 2 * kv) + C * q + (gated_mlp ? 3 : 2) * C * F;
  if (qkv_bias) layer += q + 2 * kv;
  if (o_bias) layer += C;
  if (mlp_bias) layer += (gated_mlp ? 2 : 1) * F + C;
  if (qk_norm == nn::QkNorm::kHead) layer += 2 * D;
  if (qk_norm == nn::QkNorm::kWide) layer += q + kv;
  if (norms || norm_after_sum) layer += 2 * norm_size;
  if (output_norms) layer += 2 * norm_size;
  int64_t ends = V * E_ * (tied_head ? 1 : 2) + position_rows * C;
  if (E_ != C) ends += 2 * E_ * C;
  if (final_norm) ends += norm_size;
  return L * layer + ends;
}

RopeAngles MakeRopeAngles(const RopeConfig& rope, int64_t rotary, int64_t positions) {
  const std::vector<double> frequencies = Frequencies(rope, rotary, positions);
  RopeAngles angles;
  angles.cos.reserve(static_cast<size_t>(positions * rotary / 2));
  angles.sin.reserve(static_cast<size_t>(positions * rotary / 2));
  for (int64_t p = 0; p < positions; ++p) {
    for (const double f : frequencies) {
      angles.cos.push_back(static_cast<float>(rope.magnitude * std::cos(static_cast<double>(p) * f)));
      angles.sin.push_back(static_cast<float>(rope.magnitude * std::sin(static_cast<double>(p) * f)));
    }
  }
  return angles;
}

bool IsGgufFile(const Path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return false;
  Result<RandomAccessFile> file = RandomAccessFile::Open(path);
  std::array<std::byte, 4> magic{};
  return file.ok() && file.value().Read(0, magic).ok() &&
         std::memcmp(magic.data(), "GGUF", magic.size()) == 0;
}

Result<Config> ReadConfig(const Path& path) {
  if (IsGgufFile(path)) {
    Result<io::Gguf> gguf = io::Gguf::Open(path);
    if (!gguf.ok()) return gguf.failure();
    return ConfigFromGguf(gguf.value());
  }
  const bool folder = std::filesystem::is_directory(path);
  const Path file = folder ? path / "config.json" : path;
  Result<std::string> text = ReadTextFile(file, io::kJsonFileLimit);
  const bool is_object =
      text.ok() &&
      text.value().substr(0, text.value().find('{') + 1).find_first_not_of(" \t\r\n{") == std::string::npos;
  if (!folder && std::filesystem::exists(path) && !is_object) {
    return Failure{fmt::format("{}: neither a GGUF file nor a config.json", path.string())};
  }
  if (!text.ok()) return text.failure();
  return ParseHfConfig(text.value(), file.string());
}

}  // namespace rung::model
