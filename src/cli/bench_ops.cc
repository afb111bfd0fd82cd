#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/clock.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "cli/print.h"
#include "kernels/cpu/int8.h"
#include "kernels/cpu/panel.h"
#include "ops/attention.h"
#include "ops/products.h"

namespace rung::cli {
namespace {

struct OpsCommand {
  ComputeFlags compute;
  bool quick = false, json = false;
};

// Matrices (O,K) of a model of width 576 with an MLP of 1536, and square ones of a 1B and a 7B model. A
// format whose blocks do not fill a row is left out.
struct MatrixShape {
  int64_t O, K;
};
constexpr MatrixShape kShapes[] = {{576, 576}, {1536, 576}, {576, 1536}, {2048, 2048}, {3584, 3584}};
constexpr int64_t kRows[] = {1, 8, 32, 256, 2048};
constexpr MatrixShape kQuickShapes[] = {{1536, 768}};
constexpr int64_t kQuickRows[] = {1, 32, 256};
// Backward passes come with many rows. The widest matrix of a 7B model, in one format.
constexpr int64_t kGradRows = 512;
constexpr MatrixShape kGradShapes[] = {{1536, 576}, {576, 1536}, {3584, 3584}};
constexpr MatrixShape kWideShape{3584, 18944};

constexpr double kBudget = 0.03;  // seconds of one row of the table
constexpr double kTurnsBudget =
    0.15;  // of a row that is timed in turns with another: a ratio needs more calls

// Numbers in [-1,1), in f32 or rounded to bf16.
class RandomTensor {
 public:
  RandomTensor(DType dtype, int64_t rows, int64_t cols, uint32_t substream)
      : memory_(static_cast<size_t>(rows * cols) * SizeOf(dtype)),
        tensor_{memory_.base(), dtype, rows, cols, cols} {
    const Rng rng(2, Stream::kInit, substream);
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float value = 2.0f * rng.Uniform(static_cast<uint64_t>(i)) - 1.0f;
      if (dtype == DType::kBf16) {
        memory_.as<Bf16>()[i] = ToBf16(value);
      } else {
        memory_.as<float>()[i] = value;
      }
    }
  }
  const Tensor& tensor() const { return tensor_; }

 private:
  Slab memory_;
  Tensor tensor_;
};

struct OpRow {
  std::string op, format, shape;
  int64_t N = 0;
  DType arithmetic = DType::kF32;
  bool int8 = false;  // in 8 bits, and `arithmetic` is the type of what goes in and comes out
  double seconds = 0.0, flops = 0.0, bytes = 0.0;
  double to_bf16 = 0.0;  // best time of a frozen product to that of the same product from bf16; 0: not taken
};

const char* TypeOf(const OpRow& row) { return row.int8 ? "int8" : NameOf(row.arithmetic); }

double TimeOf(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return SecondsSince(begin);
}

double Least(const std::vector<double>& seconds) { return *std::min_element(seconds.begin(), seconds.end()); }

bool Fits(format::Format format, int64_t cols) {
  const format::Info& info = format::Of(format);
  return cols % info.block == 0;
}

class OpBench {
 public:
  using Body = std::function<void(Exec&)>;

  OpBench(const train::ComputeOptions& compute, bool quick, bool print)
      : compute_(compute), quick_(quick), print_(print), peaks_(MeasurePeaks(compute.context)) {
    if (print_) {
      fmt::print("{}, {} threads, peak f32 {:.1f} GFLOP/s", cpu::NameOf(compute.context.isa),
                 compute.context.threads, peaks_.f32 / 1e9);
      if (peaks_.bf16 > 0) fmt::print(", bf16 {:.1f}", peaks_.bf16 / 1e9);
      fmt::print("\n  {:<20}{:<9}{:<20}{:>6}{:>6}{:>12}{:>11}{:>9}{:>10}{:>9}\n", "op", "format", "shape",
                 "N", "type", "us", "GFLOP/s", "GB/s", "of peak", "to bf16");
    }
  }

  void Frozen() {
    const std::span<const MatrixShape> shapes = quick_ ? std::span<const MatrixShape>(kQuickShapes) : kShapes;
    const std::span<const int64_t> rows = quick_ ? std::span<const int64_t>(kQuickRows) : kRows;
    for (const MatrixShape& shape : shapes) {
      const RandomMatrix plain(format::Format::kBf16, shape.O, shape.K);
      for (int f = 0; f < format::kFormatCount; ++f) {
        const auto format = static_cast<format::Format>(f);
        if (!Fits(format, shape.K)) continue;
        const RandomMatrix weight(format, shape.O, shape.K);
        for (const int64_t N : rows) FrozenProduct(weight.matrix(), plain.matrix(), N);
      }
    }
  }

  // The gradient towards the input of a frozen product.
  void FrozenGrad() {
    for (const MatrixShape& shape : quick_ ? std::span<const MatrixShape>(kQuickShapes) : kGradShapes) {
      for (int f = 0; f < format::kFormatCount; ++f) {
        const auto format = static_cast<format::Format>(f);
        if (Fits(format, shape.K)) FrozenGradInput(format, shape);
      }
    }
    if (!quick_) FrozenGradInput(format::Format::kNf4, kWideShape);
  }

  // The second factor of a low-rank pair, of rank 16, added to what the frozen matrix gave.
  void LowRank() {
    constexpr int64_t kRank = 16;
    for (const MatrixShape& shape : quick_ ? std::span<const MatrixShape>(kQuickShapes) : kGradShapes) {
      const RandomTensor x(compute_.compute, kGradRows, kRank, 0), w(DType::kF32, shape.O, kRank, 1),
          y(compute_.compute, kGradRows, shape.O, 2);
      const format::Matrix factor = ops::AsMatrix(w.tensor());
      const ops::FrozenProduct product{&factor, nullptr, y.tensor(), true};
      Measure({"low-rank added", "f32", fmt::format("{}x{}", shape.O, kRank), kGradRows, compute_.compute},
              [&](Exec& ex) {
                ops::ProjectFrozen(ex, x.tensor(), {&product, 1});
              });
    }
  }

  // The attention of the model of width 576: 9 query heads and 3 of keys, 64 wide.
  void Attention() {
    constexpr int64_t kHeads = 9, kKvHeads = 3, kWidth = 64;
    const cpu::AttentionShape shape{kHeads, kKvHeads, kWidth, 1.0f / std::sqrt(static_cast<float>(kWidth))};
    for (const int64_t T : {512, 2048}) {
      if (quick_ && T > 512) continue;
      for (const DType type : {DType::kF32, DType::kBf16}) {
        if (peaks_.Of(type) == 0) continue;
        const RandomTensor q(type, T, kHeads * kWidth, 0), k(type, T, kKvHeads * kWidth, 1),
            v(type, T, kKvHeads * kWidth, 2), out(type, T, kHeads * kWidth, 3);
        const cpu::AttentionSpan span{0, T, 0, T};
        Measure({"attention", "", fmt::format("{}/{} heads of {}", kHeads, kKvHeads, kWidth), T, type},
                [&](Exec& ex) {
                  ops::Attention(ex, shape, {&span, 1}, q.tensor(), k.tensor(), v.tensor(), Out{out.tensor()},
                                 nullptr, Use::kBackbone);
                });
      }
    }
  }

  // A ladder of width 128 on four sequences.
  void SideAttention() {
    constexpr int64_t kHeads = 4, kWidth = 32, kSequences = 4;
    const int64_t T = quick_ ? 128 : 512, N = T * kSequences, S = kHeads * kWidth;
    const cpu::AttentionShape shape{kHeads, kHeads, kWidth, 1.0f / std::sqrt(static_cast<float>(kWidth))};
    std::vector<cpu::AttentionSpan> spans;
    for (int64_t s = 0; s < kSequences; ++s) spans.push_back({s * T, T, s * T, T});
    std::vector<std::unique_ptr<RandomTensor>> t;
    for (uint32_t i = 0; i < 8; ++i) t.push_back(std::make_unique<RandomTensor>(DType::kF32, N, S, i));
    const Tensor &q = t[0]->tensor(), &k = t[1]->tensor(), &v = t[2]->tensor(), &out = t[3]->tensor();
    const RandomTensor lse(DType::kF32, N, kHeads, 9);
    const Out kept{lse.tensor()};
    const std::string name = fmt::format("{} heads of {}, T {}", kHeads, kWidth, T);
    Measure({"side attention", "", name, N},
            [&](Exec& ex) { ops::Attention(ex, shape, spans, q, k, v, Out{out}, &kept, Use::kRungs); });
    Measure({"side attention grad", "", name, N}, [&](Exec& ex) {
      ops::AttentionGrad(ex, shape, spans, q, k, v, out, t[4]->tensor(), lse.tensor(), Out{t[5]->tensor()},
                         Out{t[6]->tensor()}, Out{t[7]->tensor()}, Use::kRungs);
    });
  }

  void Head() {
    constexpr int64_t kVocabulary = 49152, kWidth = 576;
    const int64_t M = quick_ ? 64 : 256;
    const RandomTensor x(compute_.compute, M, kWidth, 0), dx(DType::kF32, M, kWidth, 1),
        loss(DType::kF32, 1, M, 2);
    std::vector<int32_t> target = RandomIds(M, kVocabulary, 3);
    const Out gradient{dx.tensor()};
    for (int f = 0; f < format::kFormatCount; ++f) {
      if (!Fits(static_cast<format::Format>(f), kWidth)) continue;
      const RandomMatrix head(static_cast<format::Format>(f), kVocabulary, kWidth);
      for (const bool learn : {false, true}) {
        if (quick_ && !learn) continue;
        Measure({learn ? "head loss + grad" : "head loss", std::string(format::Of(head.matrix().format).name),
                 fmt::format("{}x{}", kVocabulary, kWidth), M, compute_.compute},
                [&](Exec& ex) {
                  ops::HeadLoss(ex, x.tensor(), head.matrix(), 0.0f, View(target.data(), 1, M),
                                Out{loss.tensor()}, learn ? &gradient : nullptr, nullptr);
                });
      }
    }
  }

  // Products of the trained side of a ladder of width 128: tap, attention, MLP, up.
  void Dense() {
    for (const MatrixShape& shape : {MatrixShape{128, 576}, {128, 128}, {336, 128}, {576, 128}}) {
      const int64_t N = quick_ ? 512 : 2048;
      const RandomTensor x(DType::kF32, N, shape.K, 0), w(DType::kF32, shape.O, shape.K, 1),
          y(DType::kF32, N, shape.O, 2), dw(DType::kF32, shape.O, shape.K, 3);
      const std::string name = fmt::format("{}x{}", shape.O, shape.K);
      Measure({"dense", "", name, N},
              [&](Exec& ex) { ops::Project(ex, x.tensor(), w.tensor(), Out{y.tensor()}); });
      Measure({"dense grad input", "", name, N},
              [&](Exec& ex) { ops::ProjectGradInput(ex, y.tensor(), w.tensor(), Out{x.tensor()}); });
      Measure({"dense grad weight", "", name, N},
              [&](Exec& ex) { ops::ProjectGradWeight(ex, y.tensor(), x.tensor(), Acc{dw.tensor()}); });
    }
  }

  nlohmann::ordered_json Json() const {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const OpRow& row : rows_) {
      rows.push_back({{"op", row.op},
                      {"format", row.format},
                      {"shape", row.shape},
                      {"n", row.N},
                      {"type", TypeOf(row)},
                      {"seconds", row.seconds},
                      {"gflops", row.flops / row.seconds / 1e9},
                      {"gb_per_second", row.bytes / row.seconds / 1e9},
                      {"peak_share", Share(row)}});
      if (row.to_bf16 > 0) rows.back()["to_bf16"] = row.to_bf16;
    }
    return {{"isa", cpu::NameOf(compute_.context.isa)},
            {"threads", compute_.context.threads},
            {"peak_f32_gflops", peaks_.f32 / 1e9},
            {"peak_bf16_gflops", peaks_.bf16 / 1e9},
            {"rows", rows}};
  }

 private:
  // Timed in turns with the product from bf16: what else the machine does slows both.
  void FrozenProduct(const format::Matrix& weight, const format::Matrix& plain, int64_t N) {
    const RandomTensor x(compute_.compute, N, weight.cols, 0), y(compute_.compute, N, weight.rows, 1);
    const auto product = [&](const format::Matrix& of) {
      return [&x, &y, matrix = &of](Exec& ex) {
        const ops::FrozenProduct one{matrix, nullptr, y.tensor(), false};
        ops::ProjectFrozen(ex, x.tensor(), {&one, 1});
      };
    };
    const Body beside = product(plain);
    Measure({"frozen product", std::string(format::Of(weight.format).name),
             fmt::format("{}x{}", weight.rows, weight.cols), N, compute_.compute,
             cpu::UsesInt8(compute_.context, N, weight.cols) && weight.format != format::Format::kF32},
            product(weight), &beside);
  }

  void FrozenGradInput(format::Format format, const MatrixShape& shape) {
    const RandomMatrix weight(format, shape.O, shape.K);
    const RandomTensor dy(compute_.compute, kGradRows, shape.O, 0), dx(DType::kF32, kGradRows, shape.K, 1);
    Measure(
        {"frozen grad input", std::string(format::Of(format).name), fmt::format("{}x{}", shape.O, shape.K),
         kGradRows, compute_.compute},
        [&](Exec& ex) { ops::ProjectFrozenGradInput(ex, dy.tensor(), weight.matrix(), Out{dx.tensor()}); });
  }

  void Measure(OpRow row, const Body& body, const Body* beside = nullptr) {
    Exec planning = Exec::Planning(compute_.context, compute_.compute);
    body(planning);
    row.flops = planning.flops();
    if (beside) (*beside)(planning);
    const Slab slab(std::max<size_t>(planning.arena().peak().bytes, Arena::kAlignment));
    Exec ex(Arena(slab.base(), slab.bytes()), compute_.context, compute_.compute);
    Trace trace;
    ex.set_trace(&trace);
    body(ex);
    row.bytes = trace.begin()->second.bytes;
    ex.set_trace(nullptr);
    std::vector<double> seconds, besides;
    TimeCalls(beside ? kTurnsBudget : kBudget, [&] {
      seconds.push_back(TimeOf([&] { body(ex); }));
      if (beside) besides.push_back(TimeOf([&] { (*beside)(ex); }));
    });
    seconds.erase(seconds.begin());  // the call that TimeCalls does not count
    row.seconds = Median(seconds);
    // The best of both: a few calls that something else held up would spoil a ratio of medians.
    if (beside) row.to_bf16 = Least(seconds) / Least(besides);
    if (print_) Print(row);
    rows_.push_back(std::move(row));
  }

  double Share(const OpRow& row) const { return row.flops / row.seconds / peaks_.Of(row.arithmetic); }

  void Print(const OpRow& row) const {
    const std::string bandwidth = row.bytes > 0 ? fmt::format("{:.2f}", row.bytes / row.seconds / 1e9) : "";
    const std::string to_bf16 = row.to_bf16 > 0 ? fmt::format("{:.3f}", row.to_bf16) : "";
    fmt::print("  {:<20}{:<9}{:<20}{:>6}{:>6}{:>12.1f}{:>11.1f}{:>9}{:>9.1f}%{:>9}\n", row.op, row.format,
               row.shape, row.N, TypeOf(row), row.seconds * 1e6, row.flops / row.seconds / 1e9, bandwidth,
               100 * Share(row), to_bf16);
    std::fflush(stdout);
  }

  train::ComputeOptions compute_;
  bool quick_, print_;
  PeakRates peaks_;
  std::vector<OpRow> rows_;
};

void RunOps(const OpsCommand& command) {
  OpBench bench(Resolve(command.compute), command.quick, !command.json);
  bench.Frozen();
  bench.FrozenGrad();
  bench.LowRank();
  bench.Attention();
  bench.SideAttention();
  bench.Head();
  bench.Dense();
  if (command.json) PrintJson(bench.Json());
}

}  // namespace

Action AddBenchOps(CLI::App& app) {
  auto command = std::make_shared<OpsCommand>();
  app.add_flag("--quick", command->quick, "few shapes: about fifteen seconds");
  app.add_flag("--json", command->json, "print one JSON object");
  AddComputeFlags(app, &command->compute);
  return [command] { RunOps(*command); };
}

}  // namespace rung::cli
