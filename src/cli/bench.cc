#include "cli/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/rng.h"
#include "cli/print.h"
#include "kernels/cpu/peak.h"

namespace rung::cli {
namespace {

constexpr Verb kBenchVerbs[] = {
    {"peak", "peak FLOP/s and memory bandwidth of this machine", "rung bench peak --json", AddBenchPeak},
    {"ops", "products, attention and head loss at typical shapes", "rung bench ops --quick", AddBenchOps},
    {"step", "a training step of a model",
     "rung bench step --model smollm2.gguf --tokens 2048 --sequence 512 --trace", AddBenchStep},
    {"generate", "prefill and decoding of a model",
     "rung bench generate --model smollm2.gguf --prompt-tokens 512 --new-tokens 64", AddBenchGenerate},
};

struct PeakCommand {
  ComputeFlags compute;
  bool json = false;
};

void RunPeak(const PeakCommand& command) {
  const cpu::Context context = Resolve(command.compute).context;
  const PeakRates one = MeasurePeaks({context.isa, 1});
  const PeakRates all = MeasurePeaks(context);
  const double stream = cpu::MeasureStreamBandwidth(context);
  if (command.json) {
    const auto rates = [](double single, double together) -> nlohmann::ordered_json {
      if (together == 0) return nullptr;
      return {{"one_thread", single / 1e9}, {"all_threads", together / 1e9}};
    };
    const nlohmann::ordered_json json = {{"isa", cpu::NameOf(context.isa)},
                                         {"threads", context.threads},
                                         {"f32_gflops", rates(one.f32, all.f32)},
                                         {"bf16_gflops", rates(one.bf16, all.bf16)},
                                         {"stream_gb_per_second", stream / 1e9}};
    PrintJson(json);
    return;
  }
  fmt::print("{}, {} threads\n", cpu::NameOf(context.isa), context.threads);
  fmt::print("  {:<24}{:>12}{:>14}\n", "", "one thread", "all threads");
  fmt::print("  {:<24}{:>12.1f}{:>14.1f}\n", "f32 GFLOP/s", one.f32 / 1e9, all.f32 / 1e9);
  if (all.bf16 > 0) {
    fmt::print("  {:<24}{:>12.1f}{:>14.1f}\n", "bf16 GFLOP/s", one.bf16 / 1e9, all.bf16 / 1e9);
  }
  fmt::print("  {:<24}{:>26.1f}\n", "memory read GB/s", stream / 1e9);
}

std::vector<std::pair<std::string, TraceRow>> SlowestFirst(const Trace& trace) {
  std::vector<std::pair<std::string, TraceRow>> rows(trace.begin(), trace.end());
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  return rows;
}

double Ratio(double part, double whole) { return whole > 0 ? part / whole : 0.0; }

}  // namespace

double PeakRates::OfOp(const std::string& name, DType compute) const {
  const bool trained = name == "project" || name.starts_with("project_grad") || name == "attention_grad";
  return trained ? f32 : Of(compute);
}

PeakRates MeasurePeaks(const cpu::Context& context) {
  return {cpu::MeasurePeakFlops<float>(context), cpu::MeasurePeakFlops<Bf16>(context)};
}

double Median(std::vector<double> values) {
  RUNG_CHECK(!values.empty(), "median of nothing");
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::vector<double> TimeCalls(double budget, const std::function<void()>& body) {
  constexpr size_t kLeast = 2;
  body();
  std::vector<double> seconds;
  for (double total = 0.0; total < budget || seconds.size() < kLeast; total += seconds.back()) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    seconds.push_back(SecondsSince(begin));
  }
  return seconds;
}

RandomMatrix::RandomMatrix(format::Format format, int64_t rows, int64_t cols)
    : data_(static_cast<size_t>(format::DataBytes(format, rows, cols))) {
  // Bytes 0x30 to 0x3b make a small, normal, positive number in every floating-point format, whichever byte
  // of it they are, and a valid code in every block. Subnormal numbers would be slow on some machines.
  const Rng rng(1, Stream::kInit);
  for (size_t i = 0; i < data_.size(); i += 4) {
    const uint32_t bits = rng.Bits(i / 4);
    for (size_t j = i; j < std::min(data_.size(), i + 4); ++j) {
      data_[j] = static_cast<std::byte>(0x30 + (bits >> (8 * (j - i)) & 0xff) % 12);
    }
  }
  matrix_ = {format, rows, cols, data_.data(), {}, {}};
  if (format == format::Format::kF8E4m3 || format == format::Format::kInt4) {
    SetTiles();
    return;
  }
  // Blocks that hold four-bit codes and nothing else have their scales apart: here quantised themselves, as
  // files have them (format::BlockScales).
  const format::Info& info = format::Of(format);
  if (info.block == 1 || info.block_bytes * 2 != info.block) return;
  constexpr int64_t kSecondLevel = 256;
  const int64_t blocks = (rows * cols + info.block - 1) / info.block;
  codes_.assign(static_cast<size_t>(blocks), 128);
  absmax_.assign(static_cast<size_t>((blocks + kSecondLevel - 1) / kSecondLevel), 0.5f);
  map_.assign(kSecondLevel, 0.5f);
  matrix_.scales = {absmax_.data(), codes_.data(), map_.data(), 1.0f};
}

void RandomMatrix::SetTiles() {
  constexpr int64_t kSide = 128;  // as files have them: tiles of 128 x 128, groups of 128 columns
  const bool codes = matrix_.format == format::Format::kInt4;
  format::TileScales& tiles = matrix_.tiles;
  tiles.rows = codes ? 1 : kSide;
  tiles.cols = kSide;
  tiles.groups = (matrix_.cols + kSide - 1) / kSide;
  absmax_.assign(static_cast<size_t>((matrix_.rows + tiles.rows - 1) / tiles.rows * tiles.groups), 0.5f);
  tiles.scale = absmax_.data();
  if (!codes) return;
  codes_.assign(static_cast<size_t>(matrix_.rows * tiles.groups), 8);
  tiles.zero = codes_.data();
}

std::vector<int32_t> RandomIds(int64_t count, int64_t vocabulary, uint64_t seed) {
  const Rng rng(seed, Stream::kSample);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int32_t>(rng.Below(i, static_cast<uint32_t>(vocabulary)));
  }
  return ids;
}

std::string TraceTable(const Trace& trace, double seconds, const PeakRates& peaks, DType compute) {
  std::string table = fmt::format("  {:<22}{:>8}{:>12}{:>9}{:>12}{:>10}\n", "op", "calls", "ms", "time",
                                  "GFLOP/s", "of peak");
  double traced = 0.0;
  for (const auto& [name, row] : SlowestFirst(trace)) {
    traced += row.seconds;
    table += fmt::format("  {:<22}{:>8}{:>12.2f}{:>8.1f}%", name, row.calls, row.seconds * 1e3,
                         100 * Ratio(row.seconds, seconds));
    if (row.flops > 0) {
      const double rate = Ratio(row.flops, row.seconds);
      table += fmt::format("{:>12.1f}{:>9.1f}%", rate / 1e9, 100 * Ratio(rate, peaks.OfOp(name, compute)));
    }
    table += "\n";
  }
  const double rest = std::max(0.0, seconds - traced);
  return table + fmt::format("  {:<22}{:>8}{:>12.2f}{:>8.1f}%\n", "between ops", "", rest * 1e3,
                             100 * Ratio(rest, seconds));
}

nlohmann::ordered_json TraceJson(const Trace& trace, double seconds, const PeakRates& peaks, DType compute) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const auto& [name, row] : SlowestFirst(trace)) {
    const double rate = Ratio(row.flops, row.seconds);
    rows.push_back({{"op", name},
                    {"calls", row.calls},
                    {"seconds", row.seconds},
                    {"time_share", Ratio(row.seconds, seconds)},
                    {"gflops", rate / 1e9},
                    {"peak_share", Ratio(rate, peaks.OfOp(name, compute))}});
  }
  return rows;
}

Action AddBenchPeak(CLI::App& app) {
  auto command = std::make_shared<PeakCommand>();
  AddComputeFlags(app, &command->compute);
  app.add_flag("--json", command->json, "print one JSON object");
  return [command] { RunPeak(*command); };
}

Action AddBench(CLI::App& app) { return AddVerbs(app, kBenchVerbs); }

}  // namespace rung::cli
