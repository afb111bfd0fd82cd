// What a run is made of, as texts: names of model and data, and everything that changes the resulting bits.
#pragma once

#include <string>
#include <vector>

#include "train/model_hash.h"
#include "train/run.h"

namespace rung::train {

struct RunIdentity {
  ModelHash model;
  std::string data;       // 16 hex digits
  std::string eval_data;  // the same; empty: there is none
  // Model and data, for the key of a tap cache.
  std::string text(const model::Config& config) const;
};

// Of the token ids and learn marks: what training really sees of a data file.
std::string DataIdentity(const EncodedData& data);
// Of everything of a model that decides its tokens, and the chat template in use: for the key of cached
// tokens. Throws Error when a file cannot be read.
std::string TextIdentity(const Path& model, const std::string& chat_template);

struct RunSchedule {
  int64_t steps = 0, warmup = 0;
  double base_rate = 0.0;
};
// How the keys of the model's files begin, which the file's name follows.
inline constexpr const char* kModelFile = "model file";
// Everything that changes the resulting bits, by the names of the options where they have one.
Settings RunSettings(const TrainOptions& options, const model::AdapterSpec& spec, const model::Config& config,
                     const RunIdentity& identity, const RunSchedule& schedule);
// Whether the value of a setting can be told only when the data is read.
bool NeedsData(const std::string& setting, const TrainOptions& options);
// "seed: then 42, now 43", one text a setting, in the order of their names. One that only one side has is
// "none" on the other.
std::vector<std::string> Differences(const Settings& then, const Settings& now);

}  // namespace rung::train
