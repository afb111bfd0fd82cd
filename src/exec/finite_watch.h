// Finds the first launch that wrote a number that is not finite: what an infinity or NaN at the end of a step
// began with.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "tensor/tensor.h"

namespace rung {

// A part of a model: a name and, where it is one of many, its number (-1: it is not).
struct Place {
  const char* part = "";
  int64_t index = -1;
};

class FiniteWatch {
 public:
  struct Finding {
    std::string op, part;
    int64_t index = -1;                // of the part; -1: none
    int64_t launch = 0;                // its number since the watch began, from 1
    int64_t not_finite = 0, size = 0;  // of the numbers that it wrote
    // "rms_norm in layer 3: 576 of 4608 numbers are not finite"
    std::string text() const;
  };

  // Passes over tensors of integers. Costs a pass over memory until something is found, then nothing.
  void Check(const char* op, const Place& place, std::span<const Tensor> written);
  const std::optional<Finding>& first() const { return first_; }

 private:
  std::optional<Finding> first_;
  int64_t launches_ = 0;
};

// How many numbers are not finite; 0 of integers.
int64_t CountNotFinite(const Tensor& tensor);

}  // namespace rung
