// Adapter folders: what was trained, on disk (docs/formats/adapter.md).
//
//   adapter_model.safetensors   parameters by name, and the calibrated arrays of a ladder
//   adapter_config.json         a ladder, with or without low-rank pairs: peft_type "LADDER".
//                               Pairs alone: PEFT's own file, so that PEFT's programs read the folder and
//                               we read theirs
//   rung_adapter.json           beside PEFT's file: what PEFT has no place for. Absent in foreign folders
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "model/adapter.h"
#include "model/base_formats.h"

namespace rung::model {

// Written last: its folder is whole.
inline constexpr const char* kAdapterConfig = "adapter_config.json";

struct AdapterInfo {
  AdapterSpec spec;
  std::string base_model;     // as given to `rung train`
  std::string chat_template;  // empty: trained without
  // What that template took for the time: text::RenderOptions::now. Nothing where it does not ask.
  std::optional<int64_t> template_time = std::nullopt;
  // False for an adapter that says nothing about templates: PEFT's. The model's own is then used.
  bool has_template_choice = true;
  // Of the backbone it belongs to; a foreign adapter does not say: those of the model it is read for, or 0.
  std::string family;
  int64_t L = 0, C = 0, V = 0;
  BaseFormats base_formats = {};  // of its weights; empty: the adapter does not say
};

// What an adapter was trained beside and with: as of AdapterInfo.
struct AdapterOrigin {
  std::string base_model = "", chat_template = "";
  std::optional<int64_t> template_time = std::nullopt;
  BaseFormats base_formats = {};
};

// Written atomically, the config last: a folder with a config is complete.
Status SaveAdapter(const Path& folder, const Adapter& adapter, const Config& config,
                   const AdapterOrigin& origin);
// Refuses, naming both, an adapter trained for a model of another shape.
Result<AdapterInfo> ReadAdapterInfo(const Path& folder, const Config& config);
// What the folder says of itself, for no model in particular.
Result<AdapterInfo> ReadAdapterInfo(const Path& folder);
// Refuses tensors that do not fit before memory is taken for them. `positions`: the longest sequence that
// will be run.
Result<Adapter> LoadAdapter(const Path& folder, const Config& config, bool with_gradients, int64_t positions);
// Parameters and calibrated arrays of `folder` into an adapter of the same spec (resuming a run).
Status LoadAdapterValues(const Path& folder, Adapter* adapter);

}  // namespace rung::model
