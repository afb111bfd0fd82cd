// RoPE as config.json describes it. A part of hf_config.cc.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "model/config.h"

namespace rung::model {

// What stands outside of the description and counts for it.
struct RopeSurroundings {
  std::string where;  // for messages
  std::string key;    // of the description
  int64_t context = 0;
  int64_t original_context = 0;  // 0: not said
  int64_t D = 0;
  bool phi = false;  // Phi-3 once called its long RoPE "su" and "yarn"
};

// Reads rope_scaling or rope_parameters, an object, into `rope`. Types, keys and values that are not known
// are refused by name.
Status ReadRopeObject(const nlohmann::json& object, const RopeSurroundings& around, RopeConfig* rope);
// "partial_rotary_factor": how many of D elements turn; 0: all.
Status SetRotary(double part, const RopeSurroundings& around, RopeConfig* rope);

}  // namespace rung::model
