// How long the examples of a data set are, in tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "data/examples.h"

namespace rung::data {

struct LengthBin {
  int64_t low = 0, high = 0, count = 0;  // lengths from low to high
};

struct Lengths {
  std::vector<int64_t> sorted;
  int64_t total = 0, learned = 0;  // tokens of all examples together

  // The length that a `share` (0 to 1) of the examples does not exceed. There are examples; so for Bins.
  int64_t At(double share) const;
  // At most `count`, equally wide, from the shortest length on.
  std::vector<LengthBin> Bins(int64_t count) const;
};
// Memory is bounded, whatever the examples' size: mapped pages are let go of.
Lengths LengthsOf(const Examples& examples);

}  // namespace rung::data
