// Prompts and answers as a person reads them on a terminal.
#pragma once

#include <string>
#include <vector>

#include "train/run.h"

namespace rung::cli {

// One line: control characters become spaces, and of a long text the end, or else the beginning, stays:
// enough to recognise it.
std::string ShortText(const std::string& text, bool keep_end);
// A block of a few lines a sample.
std::string SamplesText(const std::vector<train::Sample>& samples);

}  // namespace rung::cli
