// What a run is made of, as texts: names of model and data, and everything that changes the resulting bits.
#pragma once

#include <string>
#include <vector>

#include "train/run.h"

namespace rung::train {

struct RunIdentity {
  std::string weights, data;  // 16 hex digits each
  // Model and data, for the key of a tap cache.
  std::string text(const model::Config& config) const;
};

// By samples of the bytes of every weight file, spread over it, and of a folder's settings: two models of one
// shape differ, and gigabytes need not be read. A copy of a model is the same model. Throws Error when a file
// cannot be read.
std::string WeightsIdentity(const Path& model);
// Of the token ids and learn marks: what training really sees of a data file.
std::string DataIdentity(const EncodedData& data);
// Of everything of a model that decides its tokens, and the chat template in use: for the key of cached
// tokens. Throws Error when a file cannot be read.
std::string TextIdentity(const Path& model, const std::string& chat_template);

struct RunSchedule {
  int64_t steps = 0, warmup = 0;
  double base_rate = 0.0;
};
// Everything that changes the resulting bits, by the names of the options where they have one.
Settings RunSettings(const TrainOptions& options, const model::AdapterSpec& spec, const model::Config& config,
                     const RunIdentity& identity, const RunSchedule& schedule);
// "seed: then 42, now 43", one text a setting, in the order of their names. One that only one side has is
// "none" on the other.
std::vector<std::string> Differences(const Settings& then, const Settings& now);

}  // namespace rung::train
