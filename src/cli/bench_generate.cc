#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/clock.h"
#include "base/memory.h"
#include "base/text.h"
#include "cli/bench.h"
#include "cli/print.h"
#include "infer/generate.h"
#include "kernels/cpu/peak.h"
#include "model/adapter_file.h"
#include "train/plan.h"

namespace rung::cli {
namespace {

struct BenchGenerateCommand {
  ComputeFlags compute;
  ModelFlags model;
  std::string adapter;
  int64_t prompt_tokens = 512, new_tokens = 64;
  bool trace = false, json = false;
};

struct GenerateTimes {
  double prefill = 0.0, decode = 0.0;  // seconds
  Trace prefill_trace, decode_trace;
};

// Greedy, from a random prompt; an end token does not end it.
GenerateTimes RunSession(infer::Session& session, int64_t vocabulary, int64_t prompt_tokens,
                         int64_t new_tokens) {
  GenerateTimes times;
  const std::vector<int32_t> prompt = RandomIds(prompt_tokens, vocabulary, 4);
  Tensor logits;
  const auto feed = [&](std::span<const int32_t> ids) {
    const infer::Advance part{0, ids};
    logits = session.Step({&part, 1});
  };
  // Memory is touched and code made before the clock starts.
  feed(std::span(prompt).first(static_cast<size_t>(std::min(prompt_tokens, infer::kPrefillChunk))));
  session.Clear(0);

  session.set_trace(&times.prefill_trace);
  const auto begin = std::chrono::steady_clock::now();
  for (int64_t fed = 0; fed < prompt_tokens; fed += infer::kPrefillChunk) {
    const int64_t count = std::min(infer::kPrefillChunk, prompt_tokens - fed);
    feed(std::span(prompt).subspan(static_cast<size_t>(fed), static_cast<size_t>(count)));
  }
  times.prefill = SecondsSince(begin);

  session.set_trace(&times.decode_trace);
  const auto decoding = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < new_tokens; ++i) {
    const float* row = In(logits).as<float>();
    const auto id = static_cast<int32_t>(std::max_element(row, row + vocabulary) - row);
    feed({&id, 1});
  }
  times.decode = SecondsSince(decoding);
  session.set_trace(nullptr);
  return times;
}

// What the products of one token read: all weights but an embedding that is not the head too.
double WeightBytesPerToken(const model::Backbone& backbone, const model::Adapter* adapter) {
  auto bytes = static_cast<double>(backbone.weight_totals().total);
  if (!backbone.config().tied_head) bytes -= static_cast<double>(format::TotalBytes(backbone.embedding()));
  if (adapter) bytes += static_cast<double>(adapter->parameter_count()) * sizeof(float);
  return bytes;
}

struct GenerateFacts {
  const BenchGenerateCommand& command;
  const train::ComputeOptions& compute;
  const model::Config& config;
  const GenerateTimes& times;
  const PeakRates& peaks;
  double stream = 0.0;        // bytes/s the machine reads
  double weight_bytes = 0.0;  // of a token
  uint64_t resident = 0;

  double prefill_rate() const { return static_cast<double>(command.prompt_tokens) / times.prefill; }
  double decode_rate() const { return static_cast<double>(command.new_tokens) / times.decode; }
  double read_rate() const { return weight_bytes * decode_rate(); }
};

nlohmann::ordered_json ToJson(const GenerateFacts& f) {
  const DType type = f.compute.compute;
  nlohmann::ordered_json json = {{"model", f.command.model.model},
                                 {"adapter", f.command.adapter},
                                 {"isa", cpu::NameOf(f.compute.context.isa)},
                                 {"compute", NameOfArithmetic(f.compute)},
                                 {"threads", f.compute.context.threads},
                                 {"prompt_tokens", f.command.prompt_tokens},
                                 {"new_tokens", f.command.new_tokens},
                                 {"prefill_tokens_per_second", f.prefill_rate()},
                                 {"decode_tokens_per_second", f.decode_rate()},
                                 {"weight_bytes_per_token", f.weight_bytes},
                                 {"decode_gb_per_second", f.read_rate() / 1e9},
                                 {"stream_gb_per_second", f.stream / 1e9},
                                 {"bandwidth_share", f.read_rate() / f.stream},
                                 {"vm_hwm_bytes", f.resident}};
  if (f.command.trace) {
    json["prefill_trace"] = TraceJson(f.times.prefill_trace, f.times.prefill, f.peaks, type);
    json["decode_trace"] = TraceJson(f.times.decode_trace, f.times.decode, f.peaks, type);
  }
  return json;
}

void Print(const GenerateFacts& f) {
  const DType type = f.compute.compute;
  fmt::print("{}: {} prompt tokens, {} new ones, {}, {}, {} threads\n", f.config.name,
             f.command.prompt_tokens, f.command.new_tokens, cpu::NameOf(f.compute.context.isa),
             NameOfArithmetic(f.compute), f.compute.context.threads);
  fmt::print("  {:<24}{:>10.1f} tokens/s\n", "prefill", f.prefill_rate());
  fmt::print("  {:<24}{:>10.1f} tokens/s: {} of weights a token, {:.1f} GB/s, {:.1f}% of {:.1f} GB/s\n",
             "decoding", f.decode_rate(), FormatBytes(static_cast<uint64_t>(f.weight_bytes)),
             f.read_rate() / 1e9, 100 * f.read_rate() / f.stream, f.stream / 1e9);
  fmt::print("  {:<24}{:>10}\n", "memory (VmHWM)", FormatBytes(f.resident));
  if (!f.command.trace) return;
  fmt::print("\nprefill\n{}\ndecoding\n{}", TraceTable(f.times.prefill_trace, f.times.prefill, f.peaks, type),
             TraceTable(f.times.decode_trace, f.times.decode, f.peaks, type));
}

void RunBenchGenerate(const BenchGenerateCommand& command) {
  const train::ComputeOptions compute = Resolve(command.compute);
  const model::Config config = model::ReadConfig(command.model.model).OrThrow();
  const int64_t positions = command.prompt_tokens + command.new_tokens;
  if (positions > config.context) {
    throw Error(ExitCode::kUsage,
                fmt::format("--prompt-tokens and --new-tokens: {} together, the model takes {}", positions,
                            config.context));
  }
  std::optional<model::Adapter> loaded;
  if (!command.adapter.empty())
    loaded = model::LoadAdapter(command.adapter, config, false, positions).OrThrow();
  const model::Adapter* adapter = loaded ? &*loaded : nullptr;
  model::BackboneOptions options = Resolve(command.model, compute);
  options.positions = positions;
  const model::Backbone backbone = model::Backbone::Load(command.model.model, options).OrThrow();

  infer::Session session(compute.context, compute.compute, backbone, adapter, 1, positions);
  const GenerateTimes times = RunSession(session, config.V, command.prompt_tokens, command.new_tokens);
  // Before the bandwidth is measured with a buffer of its own.
  const uint64_t resident = ResidentPeak();
  const PeakRates peaks = MeasurePeaks(compute.context);
  const GenerateFacts facts{command,
                            compute,
                            config,
                            times,
                            peaks,
                            cpu::MeasureStreamBandwidth(compute.context),
                            WeightBytesPerToken(backbone, adapter),
                            resident};
  if (command.json) {
    PrintJson(ToJson(facts));
  } else {
    Print(facts);
  }
}

}  // namespace

Action AddBenchGenerate(CLI::App& app) {
  auto command = std::make_shared<BenchGenerateCommand>();
  AddModelFlags(app, &command->model);
  app.add_option("--adapter", command->adapter, "folder of a trained adapter");
  app.add_option("--prompt-tokens", command->prompt_tokens, "random tokens of the prompt")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 24));
  app.add_option("--new-tokens", command->new_tokens, "tokens generated, the most probable ones")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 24));
  app.add_flag("--trace", command->trace, "time, rate and share of peak of every op");
  app.add_flag("--json", command->json, "print one JSON object");
  AddComputeFlags(app, &command->compute);
  return [command] { RunBenchGenerate(*command); };
}

}  // namespace rung::cli
