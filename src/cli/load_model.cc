#include "cli/load_model.h"

#include <fmt/format.h>

#include <cstdio>
#include <optional>
#include <string>

#include "base/text.h"
#include "cli/say.h"
#include "io/gguf.h"

namespace rung::cli {
namespace {

// Says that the adapter was trained beside weights of other formats than `here`; nothing when it was not, or
// nobody knows.
void WarnOfFormats(const Path& adapter, const model::BaseFormats& trained, const model::BaseFormats& here) {
  const std::string difference = model::Difference(trained, here);
  if (difference.empty()) return;
  Say("warning: {}: when it was trained, {}: its answers are others than it learned to give; "
      "take the model it was trained beside, or read it as then (--quantize, --quantize-embeddings, "
      "--keep)\n",
      Printable(adapter.string()), difference);
}

}  // namespace

void WarnOfConfig(const Path& model) {
  if (!model::IsGgufFile(model)) return;
  Result<io::Gguf> gguf = io::Gguf::Open(model);
  if (!gguf.ok()) return;  // said where the file is used
  for (const std::string& warning : model::ConfigWarnings(gguf.value())) {
    Say("warning: {}\n", Printable(warning));
  }
}

LoadedModel LoadedModel::ReadText(const Path& model, const Path& adapter, const TemplateFlags& flags) {
  LoadedModel loaded;
  loaded.model_ = model;
  loaded.adapter_path_ = adapter;
  loaded.config_ = model::ReadConfig(model).OrThrow();
  WarnOfConfig(model);
  std::string chat_template = ReadTemplate(flags);
  bool raw = flags.raw;
  std::optional<int64_t> time;
  if (!adapter.empty()) {
    const model::AdapterInfo info = model::ReadAdapterInfo(adapter, loaded.config_).OrThrow();
    if (raw && !info.chat_template.empty()) {
      throw Error(ExitCode::kUsage, fmt::format("--raw: {} was trained with a chat template; leave --raw out",
                                                adapter.string()));
    }
    loaded.trained_beside_ = info.base_formats;
    // An adapter of another program says nothing: the model's own template, unless asked otherwise.
    if (info.has_template_choice) {
      if (!chat_template.empty() && chat_template != info.chat_template) {
        throw Error(
            ExitCode::kUsage,
            fmt::format(
                "--chat-template: {} was trained {}; leave --chat-template out, its own is used",
                adapter.string(),
                info.chat_template.empty() ? "without a chat template" : "with another chat template"));
      }
      chat_template = info.chat_template;
      raw = chat_template.empty();
      time = info.template_time;
    }
  }
  loaded.text_ = std::make_unique<model::ModelText>(
      model::LoadText(model, raw, chat_template, loaded.config_.V, time).OrThrow());
  return loaded;
}

void LoadedModel::ReadWeights(const model::BackboneOptions& options, int64_t positions) {
  model::BackboneOptions chosen = options;
  chosen.positions = positions;
  // The adapter is small: what is wrong with it is found before gigabytes are read.
  if (!adapter_path_.empty())
    adapter_ = model::LoadAdapter(adapter_path_, config_, false, positions).OrThrow();
  backbone_ = model::Backbone::Load(model_, chosen).OrThrow();
  WarnOfFormats(adapter_path_, trained_beside_, backbone_->formats());
}

}  // namespace rung::cli
