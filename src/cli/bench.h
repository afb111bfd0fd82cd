// `rung bench`: what the machine can do, and how much of it the engine uses. Every number of speed stands
// beside the measured peak of the same arithmetic on the same threads.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cli/verb.h"
#include "exec/exec.h"
#include "format/format.h"

namespace rung::cli {

// The verbs below `rung bench`, one file each.
Action AddBenchPeak(CLI::App& app);
Action AddBenchOps(CLI::App& app);
Action AddBenchStep(CLI::App& app);
Action AddBenchGenerate(CLI::App& app);

// FLOP/s of all threads together, measured.
struct PeakRates {
  double f32 = 0.0, bf16 = 0.0;  // bf16 0: the instruction set has no bf16 products
  double Of(DType compute) const { return compute == DType::kBf16 ? bf16 : f32; }
  // Of the arithmetic that an op's row in a trace is made of: the trained side is f32 whatever the backbone
  // is.
  double OfOp(const std::string& name, DType compute) const;
};
// About 0.4 s; takes no memory worth counting. There is no peak of int8: its share of that of bf16 may pass
// 100 %.
PeakRates MeasurePeaks(const cpu::Context& context);

double Median(std::vector<double> values);
// Seconds of each call of `body`, in a loop of about `budget` seconds: at least two calls after one that is
// not counted.
std::vector<double> TimeCalls(double budget, const std::function<void()>& body);

// A frozen matrix of random valid bytes in a format, for timing.
class RandomMatrix {
 public:
  RandomMatrix(format::Format format, int64_t rows, int64_t cols);
  const format::Matrix& matrix() const { return matrix_; }

 private:
  void SetTiles();

  std::vector<std::byte> data_;
  std::vector<float> absmax_, map_;
  std::vector<uint8_t> codes_;
  format::Matrix matrix_;
};

// Ids in [0, vocabulary).
std::vector<int32_t> RandomIds(int64_t count, int64_t vocabulary, uint64_t seed);

// Ops by time, the slowest first, and what is left of `seconds`.
std::string TraceTable(const Trace& trace, double seconds, const PeakRates& peaks, DType compute);
nlohmann::ordered_json TraceJson(const Trace& trace, double seconds, const PeakRates& peaks, DType compute);

}  // namespace rung::cli
