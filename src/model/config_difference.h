// Whether two files of other kinds are configs of one model.
#pragma once

#include <string>

#include "model/config.h"

namespace rung::model {

// The config of a GGUF file as a folder of the same model has it: its order of rows, its way of storing.
Config AsFolder(const Config& config);

// The first thing that the two say differently of what is computed, "" when there is none. Names, and how
// weights are stored, do not count.
std::string ConfigDifference(const Config& want, const Config& got);

// What numbers that files keep as f32 may differ by.
bool IsNear(double a, double b);
// Of attention, the usual one said.
double ScoreScale(const Config& config);

}  // namespace rung::model
