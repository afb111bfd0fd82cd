#include "model/hf_rope.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/text.h"

namespace rung::model {
namespace {

using nlohmann::json;

constexpr std::string_view kKeys[] = {"rope_type",
                                      "type",
                                      "rope_theta",
                                      "factor",
                                      "original_max_position_embeddings",
                                      "attention_factor",
                                      "beta_fast",
                                      "beta_slow",
                                      "truncate",
                                      "mscale",
                                      "mscale_all_dim",
                                      "short_factor",
                                      "long_factor",
                                      "low_freq_factor",
                                      "high_freq_factor",
                                      "partial_rotary_factor",
                                      "finetuned"};

class RopeReader {
 public:
  RopeReader(const json& object, const RopeSurroundings& around, RopeConfig* rope)
      : object_(object), around_(around), rope_(rope) {}

  Status Read() {
    if (Status keys = CheckKeys(); !keys.ok()) return keys;
    rope_->theta = Number("rope_theta", rope_->theta);
    if (Has("partial_rotary_factor")) {
      Status rotary = SetRotary(Number("partial_rotary_factor", 1.0), around_, rope_);
      if (!rotary.ok()) return rotary;
    }
    const json kind =
        object_.contains("rope_type") ? object_["rope_type"] : object_.value("type", json("default"));
    if (!kind.is_string()) {
      return Failure{fmt::format("{}: the type in {} is not a text", around_.where, around_.key)};
    }
    auto type = kind.get<std::string>();
    if (around_.phi && (type == "su" || type == "yarn")) type = "longrope";
    const Status read = ReadType(type);
    if (!read.ok()) return read;
    return failure_.empty() ? Status(Ok{}) : Status(Failure{failure_});
  }

 private:
  bool Has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }

  double Number(const char* key, double otherwise) {
    if (!Has(key)) return otherwise;
    if (object_[key].is_number()) return object_[key].get<double>();
    if (failure_.empty()) {
      failure_ = fmt::format("{}: {} in {} is not a number", around_.where, key, around_.key);
    }
    return otherwise;
  }

  Status CheckKeys() const {
    for (const auto& [key, value] : object_.items()) {
      if (std::find(std::begin(kKeys), std::end(kKeys), key) != std::end(kKeys) || value.is_null()) continue;
      return Failure{fmt::format(
          "{}: {} {} in {} is not supported: it may change the positions", around_.where, Printable(key),
          Printable(value.dump(-1, ' ', false, json::error_handler_t::replace)), around_.key)};
    }
    return Ok{};
  }

  Status ReadType(const std::string& type) {
    if (type == "default") return Ok{};
    if (type == "linear") {
      rope_->scaling = RopeScaling::kLinear;
      rope_->factor = Number("factor", 1.0);
      return Ok{};
    }
    const auto context = static_cast<double>(around_.context);
    rope_->original_context = around_.original_context > 0
                                  ? static_cast<double>(around_.original_context)
                                  : Number("original_max_position_embeddings", context);
    if (type == "llama3") {
      rope_->scaling = RopeScaling::kLlama3;
      rope_->factor = Number("factor", 8.0);
      rope_->low_factor = Number("low_freq_factor", 1.0);
      rope_->high_factor = Number("high_freq_factor", 4.0);
      return Ok{};
    }
    if (type == "yarn") return ReadYarn(context);
    if (type == "longrope") return ReadLongRope(context);
    return Failure{
        fmt::format("{}: {} of type \"{}\" is not known; known are: default, linear, llama3, yarn, longrope",
                    around_.where, around_.key, Printable(type))};
  }

  Status ReadYarn(double context) {
    rope_->scaling = RopeScaling::kYarn;
    rope_->factor = Number("factor", context / rope_->original_context);
    rope_->beta_fast = Number("beta_fast", 32.0);
    rope_->beta_slow = Number("beta_slow", 1.0);
    if (Has("truncate")) {
      if (!object_["truncate"].is_boolean()) {
        return Failure{fmt::format("{}: truncate in {} is not true or false", around_.where, around_.key)};
      }
      rope_->truncate = object_["truncate"].get<bool>();
    }
    const auto magnitude = [&](double scale) {
      return rope_->factor <= 1.0 ? 1.0 : 0.1 * scale * std::log(rope_->factor) + 1.0;
    };
    const double scale = Number("mscale", 0.0), all = Number("mscale_all_dim", 0.0);
    const double inferred = scale != 0.0 && all != 0.0 ? magnitude(scale) / magnitude(all) : magnitude(1.0);
    rope_->magnitude = Number("attention_factor", inferred);
    return Ok{};
  }

  Status ReadLongRope(double context) {
    rope_->scaling = RopeScaling::kLongRope;
    const double stretch = Number("factor", context / rope_->original_context);
    const double inferred =
        stretch <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(stretch) / std::log(rope_->original_context));
    rope_->magnitude = Number("attention_factor", inferred);
    if (Status read = ReadFactors("short_factor", &rope_->divisors); !read.ok()) return read;
    return ReadFactors("long_factor", &rope_->long_divisors);
  }

  Status ReadFactors(const char* key, std::vector<float>* factors) const {
    const auto bad = [&] {
      return Failure{fmt::format("{}: {} in {} is not a list of numbers", around_.where, key, around_.key)};
    };
    if (!object_.contains(key) || !object_[key].is_array()) return bad();
    for (const json& value : object_[key]) {
      if (!value.is_number()) return bad();
      factors->push_back(value.get<float>());
    }
    return factors->empty() ? Status(bad()) : Status(Ok{});
  }

  const json& object_;
  const RopeSurroundings& around_;
  RopeConfig* rope_;
  std::string failure_;
};

}  // namespace

Status ReadRopeObject(const json& object, const RopeSurroundings& around, RopeConfig* rope) {
  if (!object.is_object()) return Failure{fmt::format("{}: {} is not an object", around.where, around.key)};
  return RopeReader(object, around, rope).Read();
}

Status SetRotary(double part, const RopeSurroundings& around, RopeConfig* rope) {
  if (!(part > 0.0 && part <= 1.0)) {
    return Failure{fmt::format("{}: {} of a head is to turn by RoPE: not a part of it", around.where, part)};
  }
  const auto rotary = static_cast<int64_t>(static_cast<double>(around.D) * part);
  rope->rotary = rotary == around.D ? 0 : rotary;
  if (rotary == 0) return Failure{fmt::format("{}: no element of a head turns by RoPE", around.where)};
  return Ok{};
}

}  // namespace rung::model
