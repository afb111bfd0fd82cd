// Adapter folders: a trained ladder on disk (docs/formats/adapter.md).
//
//   adapter_model.safetensors   parameters by name, f32, and the calibrated arrays
//   adapter_config.json         peft_type "LADDER", the spec, and the shape of the model it was trained for
#pragma once

#include <optional>
#include <string>

#include "model/ladder.h"

namespace rung::model {

struct AdapterInfo {
  LadderSpec spec;
  std::string base_model;     // as given to `rung train`
  std::string chat_template;  // empty: trained without
  // Of the backbone it belongs to.
  std::string family;
  int64_t L = 0, C = 0, V = 0;
};

// Written atomically, the config last: a folder with a config is complete.
Status SaveAdapter(const Path& folder, Ladder& ladder, const Config& config, const std::string& base_model,
                   const std::string& chat_template);
Result<AdapterInfo> ReadAdapterInfo(const Path& folder);
// Refuses, naming both, an adapter trained for a model of another shape, and tensors that do not fit the spec
// before memory is taken for them. `positions`: the longest sequence that will be run.
Result<Ladder> LoadAdapter(const Path& folder, const Config& config, bool with_gradients, int64_t positions);
// Parameters and calibrated arrays of `folder` into a ladder of the same spec (resuming a run).
Status LoadAdapterValues(const Path& folder, Ladder* ladder);

}  // namespace rung::model
