#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/data.h"
#include "cli/print.h"
#include "cli/progress.h"
#include "cli/say.h"
#include "data/dataset.h"
#include "data/lengths.h"
#include "data/packer.h"
#include "train/identity.h"

namespace rung::cli {
namespace {

constexpr int64_t kBins = 12, kBarWidth = 40;

struct StatsCommand : DataCommand {
  uint64_t seed = 42;
};

void Print(const StatsCommand& command, int64_t max_length, const data::Dataset& set,
           const data::Lengths& lengths, const data::EpochPlan& plan) {
  const data::EncodeReport& report = set.report;
  const double tokens = static_cast<double>(lengths.total);
  fmt::print("records         {}\n", report.records);
  fmt::print("left out        {}\n", report.dropped_count);
  fmt::print("truncated       {}  (longer than {} tokens, --truncate {})\n", report.truncated, max_length,
             command.flags.truncate);
  fmt::print("examples        {} an epoch\n", set.examples.size());
  fmt::print("tokens          {} an epoch, {} of them learned ({:.1f} %)\n", lengths.total, lengths.learned,
             100.0 * static_cast<double>(lengths.learned) / tokens);
  fmt::print("lengths         shortest {}, median {}, mean {:.1f}, 95 % {}, longest {}\n",
             lengths.sorted.front(), lengths.At(0.5), tokens / static_cast<double>(lengths.sorted.size()),
             lengths.At(0.95), lengths.sorted.back());
  fmt::print("micro-batches   {} of {} tokens, {:.1f} % full\n\n", plan.batches.size(), plan.tokens,
             100.0 * plan.Fill());
  const std::vector<data::LengthBin> bins = lengths.Bins(kBins);
  int64_t most = 1;
  for (const data::LengthBin& bin : bins) most = std::max(most, bin.count);
  for (const data::LengthBin& bin : bins) {
    const int64_t width = (bin.count * kBarWidth + most - 1) / most;
    fmt::print("{:>7} to {:>7}  {:>8}  {}\n", bin.low, bin.high, bin.count,
               std::string(static_cast<size_t>(width), '#'));
  }
  for (const data::EncodeReport::Dropped& dropped : report.dropped) {
    fmt::print("left out: {}:{}: {}\n", dropped.file, dropped.row, Printable(dropped.reason));
  }
}

nlohmann::ordered_json ToJson(const data::Dataset& set, const data::Lengths& lengths,
                              const data::EpochPlan& plan) {
  const data::EncodeReport& report = set.report;
  nlohmann::ordered_json bins = nlohmann::ordered_json::array(), dropped = nlohmann::ordered_json::array();
  for (const data::LengthBin& bin : lengths.Bins(kBins))
    bins.push_back({{"low", bin.low}, {"high", bin.high}, {"count", bin.count}});
  for (const auto& record : report.dropped) {
    dropped.push_back({{"file", record.file}, {"row", record.row}, {"reason", record.reason}});
  }
  return {{"records", report.records},
          {"left_out", report.dropped_count},
          {"truncated", report.truncated},
          {"examples", set.examples.size()},
          {"tokens", lengths.total},
          {"learned", lengths.learned},
          {"length_min", lengths.sorted.front()},
          {"length_median", lengths.At(0.5)},
          {"length_p95", lengths.At(0.95)},
          {"length_max", lengths.sorted.back()},
          {"batches", plan.batches.size()},
          {"batch_tokens", plan.tokens},
          {"fill", plan.Fill()},
          {"histogram", bins},
          {"left_out_records", dropped}};
}

void RunStats(const StatsCommand& command) {
  const LoadedModel model = LoadTextOf(command);
  const data::Encoder encoder = EncoderOf(command, model);
  const train::DataOptions options = Resolve(command.flags);
  const bool split = options.valid_fraction > 0.0;
  const std::vector<data::DataFile> files = data::FindDataFiles(command.data, data::Split::kTrain).OrThrow();
  data::DatasetOptions wanted =
      train::DatasetOf(files, split ? data::Part::kTrain : data::Part::kAll, options);
  wanted.threads = command.thread_count();
  if (!wanted.cache.empty())
    wanted.encoder_identity = train::TextIdentity(command.model, model.text().chat_identity());
  Progress progress(ParseProgress("auto"));
  wanted.on_progress = [&](uint64_t done, uint64_t total) { progress.Encoding(done, total); };
  CatchSignals();
  wanted.interrupt = &InterruptFlag();
  const data::Dataset set = data::LoadDataset(wanted, encoder).OrThrow();
  progress.EndLine();
  for (const std::string& row : set.bad_rows) Say("left out: {}\n", Printable(row));
  for (const std::string& note : set.notes) Say("{}\n", Printable(note));
  const data::Lengths lengths = data::LengthsOf(set.examples);
  const data::EpochPlan plan =
      data::PlanEpoch(data::RowsOf(set.examples), command.tokens, command.seed, 0).OrThrow();
  if (command.json) {
    PrintJson(ToJson(set, lengths, plan));
  } else {
    Print(command, encoder.options().max_length, set, lengths, plan);
  }
}

}  // namespace

Action AddDataStats(CLI::App& app) {
  auto command = std::make_shared<StatsCommand>();
  AddDataFlags(app, command.get(), true);
  app.add_option("--seed", command->seed, "of the order")->capture_default_str();
  return [command] { RunStats(*command); };
}

}  // namespace rung::cli
