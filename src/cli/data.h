// rung data: what of a data set is learned, how it is distributed, and what is wrong with it.
#pragma once

#include <string>
#include <vector>

#include "cli/data_flags.h"
#include "cli/verb.h"
#include "model/model.h"

namespace rung::cli {

// What the three verbs share.
struct DataCommand {
  DataFlags flags;
  std::vector<std::string> data;
  std::string model;
  int64_t max_length = 512, tokens = 512;
  bool raw = false, train_on_prompt = false, json = false;
  int threads = 0;  // 0: all that this process may run on
};
void AddDataFlags(CLI::App& app, DataCommand* command, bool needs_model);
// Of the command's model. The encoder refers to the text.
model::ModelText LoadTextOf(const DataCommand& command);
data::Encoder EncoderOf(const DataCommand& command, const model::ModelText& text);

Action AddDataInspect(CLI::App& app);
Action AddDataStats(CLI::App& app);
Action AddDataCheck(CLI::App& app);

}  // namespace rung::cli
