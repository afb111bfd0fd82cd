// A model with its tokenizer and, perhaps, an adapter: what `rung eval` and `rung generate` run.
#pragma once

#include <memory>
#include <optional>

#include "cli/template_flags.h"
#include "cli/verb.h"
#include "model/adapter_file.h"
#include "model/model.h"

namespace rung::cli {

// Prints what a model's file says that is not read and may change the computation, on standard error.
void WarnOfConfig(const Path& model);

class LoadedModel {
 public:
  // Headers, tokenizer and chat template; no weights yet. `adapter` may be empty. Throws Error.
  //
  // The chat template is the one that the adapter was trained with, and shows the time that it showed then.
  // An adapter trained without one runs without one; asking for --raw with an adapter that was trained with a
  // template, or for another template than its own, is refused.
  static LoadedModel ReadText(const Path& model, const Path& adapter, const TemplateFlags& flags);
  // The weights, for sequences of up to `positions` tokens. Warns on standard error where the adapter was
  // trained beside weights of other formats.
  void ReadWeights(const model::BackboneOptions& options, int64_t positions);

  const model::Config& config() const { return config_; }
  // Longest sequence.
  int64_t context() const { return config_.context; }
  const model::ModelText& text() const { return *text_; }
  bool uses_template() const { return text_->chat.has_value(); }
  const model::Backbone& backbone() const { return *backbone_; }
  const model::Adapter* adapter() const { return adapter_ ? &*adapter_ : nullptr; }

 private:
  Path model_, adapter_path_;
  model::Config config_;
  std::unique_ptr<model::ModelText> text_;  // does not move: vocabularies refer to it
  model::BaseFormats trained_beside_;       // by the adapter
  std::optional<model::Backbone> backbone_;
  std::optional<model::Adapter> adapter_;
};

}  // namespace rung::cli
