// rung data: what of a data set is learned, how it is distributed, and what is wrong with it.
#pragma once

#include <string>
#include <vector>

#include "cli/data_flags.h"
#include "cli/load_model.h"
#include "cli/verb.h"
#include "data/encode.h"

namespace rung::cli {

// What the three verbs share.
struct DataCommand {
  DataFlags flags;
  std::vector<std::string> data;
  std::string model, adapter, config;
  int64_t max_length = 512, tokens = 512;
  TemplateFlags templates;
  bool train_on_prompt = false, json = false;
  int threads = 0;  // 0: all that this process may run on
  const CLI::App* app = nullptr;
  int thread_count() const;
};
void AddDataFlags(CLI::App& app, DataCommand* command, bool needs_model);
// Of the command's model and adapter. The encoder refers to the text.
LoadedModel LoadTextOf(const DataCommand& command);
// What `rung train` with these options makes of a record: --tokens and the model's context limit an example's
// length as there.
data::Encoder EncoderOf(const DataCommand& command, const LoadedModel& model);

Action AddDataInspect(CLI::App& app);
Action AddDataStats(CLI::App& app);
Action AddDataCheck(CLI::App& app);

}  // namespace rung::cli
