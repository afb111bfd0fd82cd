// Known models by name, without their weights: for plans, and for random models of such a shape.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "model/config.h"

namespace rung::model {

// The shape of a published model: "qwen2.5-7b", upper or lower case, or a Hugging Face id such as
// "Qwen/Qwen2.5-7B-Instruct". An unknown name is a failure (kUsage) that lists the known ones.
Result<Config> ShapeOf(const std::string& name);
std::vector<std::string> ShapeNames();

// A config.json that transformers accepts and that ParseHfConfig reads back to a config without
// ConfigDifference. A llama with a window, which only Mistral's has, is called mistral. A failure names what
// there are no words for.
Result<std::string> HfConfigJson(const Config& config);

}  // namespace rung::model
