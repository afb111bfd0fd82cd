// What a Hugging Face folder says about how its matrices are quantised.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/files.h"
#include "base/result.h"

namespace rung::model {

struct Quantization {
  enum class Method : uint8_t { kNone, kBitsAndBytes, kGptq, kAwq, kFloat8 };
  Method method = Method::kNone;
  // kGptq, kAwq: columns that share a scale; 0: all of a row.
  int64_t group = 0;
  // kGptq: zero points are stored less one, unless the file's checkpoint_format is "gptq_v2".
  bool zeros_less_one = true;
  // kFloat8: the tile of weight_scale_inv, and of a weight_scale of tiles.
  int64_t tile_rows = 128, tile_cols = 128;

  bool operator==(const Quantization&) const = default;
};

// The text of a config.json (its quantization_config), or of the quantize_config.json and quant_config.json
// of older programs, which are that object themselves. A method, a number of bits or a layout that is not
// read is a failure that says what is. `name` stands in messages.
Result<Quantization> ParseQuantization(std::string_view text, const std::string& name);
// Of a folder; one without config.json has none.
Result<Quantization> ReadQuantization(const Path& folder);

}  // namespace rung::model
