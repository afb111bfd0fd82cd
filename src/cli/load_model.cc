#include "cli/load_model.h"

#include <fmt/format.h>

#include <algorithm>

namespace rung::cli {

LoadedModel LoadedModel::ReadText(const Path& model, const Path& adapter, bool raw) {
  LoadedModel loaded;
  loaded.model_ = model;
  loaded.adapter_ = adapter;
  loaded.config_ = model::ReadConfig(model).OrThrow();
  std::string chat_template;
  if (!adapter.empty()) {
    chat_template = model::ReadAdapterInfo(adapter).OrThrow().chat_template;
    if (raw && !chat_template.empty()) {
      throw Error(ExitCode::kUsage, fmt::format("--raw: {} was trained with a chat template; leave --raw out",
                                                adapter.string()));
    }
    raw = chat_template.empty();
  }
  loaded.text_ = std::make_unique<model::ModelText>(
      model::LoadText(model, raw, chat_template, loaded.config_.V).OrThrow());
  return loaded;
}

int64_t LoadedModel::context() const {
  return config_.window > 0 ? std::min(config_.window, config_.context) : config_.context;
}

void LoadedModel::ReadWeights(const model::BackboneOptions& options, int64_t positions) {
  model::BackboneOptions chosen = options;
  chosen.positions = positions;
  // The adapter is small: what is wrong with it is found before gigabytes are read.
  if (!adapter_.empty()) ladder_ = model::LoadAdapter(adapter_, config_, false, positions).OrThrow();
  backbone_ = model::Backbone::Load(model_, chosen).OrThrow();
}

}  // namespace rung::cli
