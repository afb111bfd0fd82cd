// For tests of this room and those above: golden files, and an Exec that is planned before it runs.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "kernels/cpu/isa.h"
#include "model/backbone.h"

namespace rung::model {

class Golden {
 public:
  explicit Golden(const Path& path) : file_(io::Safetensors::Open(path).OrThrow()) {}

  bool Has(const std::string& name) const { return file_.Find(name) != nullptr; }
  std::vector<float> Floats(const std::string& name) const { return Read<float>(name, "F32"); }
  std::vector<int32_t> Ints(const std::string& name) const { return Read<int32_t>(name, "I32"); }
  const io::Safetensors& file() const { return file_; }

 private:
  template <class T>
  std::vector<T> Read(const std::string& name, const std::string& dtype) const {
    const io::TensorEntry* entry = file_.Find(name);
    if (!entry || entry->dtype != dtype)
      throw Error(ExitCode::kBadInput, "golden: no " + dtype + " tensor " + name);
    std::vector<T> values(entry->bytes / sizeof(T));
    Status read = file_.Read(*entry, 0, std::as_writable_bytes(std::span(values)));
    if (!read.ok()) throw Error(ExitCode::kBadInput, read.failure().message);
    return values;
  }
  io::Safetensors file_;
};

// Runs `body` once with a planning Exec, then in a slab of exactly the planned size.
inline void PlanAndRun(const cpu::Context& context, DType compute, const std::function<void(Exec&)>& body) {
  Exec plan = Exec::Planning(context, compute);
  body(plan);
  const Slab slab(plan.arena().peak().bytes);
  Exec run(Arena(slab.base(), slab.bytes()), context, compute);
  body(run);
  EXPECT_EQ(run.arena().peak().bytes, plan.arena().peak().bytes);
  EXPECT_EQ(run.fingerprint(), plan.fingerprint());
}

// Largest difference over the largest magnitude wanted.
inline double RelativeError(const std::vector<float>& got, const std::vector<float>& want) {
  EXPECT_EQ(got.size(), want.size());
  double apart = 0.0, largest = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    apart = std::max(apart, std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i])));
    largest = std::max(largest, std::abs(static_cast<double>(want[i])));
    if (!std::isfinite(got[i])) return std::numeric_limits<double>::infinity();
  }
  return apart / largest;
}

// Packed sequences as a layout: positions restart at each start.
struct PackedRows {
  std::vector<int32_t> positions;
  nn::RowLayout layout;
  explicit PackedRows(const std::vector<int32_t>& starts) {
    for (size_t s = 0; s + 1 < starts.size(); ++s) {
      const int64_t begin = starts[s], count = starts[s + 1] - starts[s];
      layout.spans.push_back({begin, count, begin, count});
      for (int32_t i = 0; i < count; ++i) positions.push_back(i);
    }
    layout.position = View(positions.data(), 1, static_cast<int64_t>(positions.size()));
  }
};

}  // namespace rung::model
