#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/threads.h"
#include "cli/data.h"
#include "data/dataset.h"
#include "data/packer.h"
#include "train/identity.h"

namespace rung::cli {
namespace {

constexpr int64_t kBins = 12, kBarWidth = 40;
// Examples looked at before their pages are let go of.
constexpr int64_t kReleaseEvery = 1 << 14;

struct StatsCommand : DataCommand {
  uint64_t seed = 42;
};

struct Lengths {
  std::vector<int64_t> sorted;
  int64_t total = 0, learned = 0;  // of all examples together
  int64_t At(double share) const {
    return sorted[static_cast<size_t>(share * static_cast<double>(sorted.size() - 1))];
  }
};

struct Bin {
  int64_t low = 0, high = 0, count = 0;  // lengths from low to high
};

Lengths LengthsOf(const data::Examples& examples) {
  Lengths lengths;
  for (int64_t i = 0; i < examples.size(); ++i) {
    lengths.sorted.push_back(examples.length(i));
    lengths.learned += examples.target_count(i);
    if (i % kReleaseEvery == 0) examples.Prefetch({});
  }
  std::sort(lengths.sorted.begin(), lengths.sorted.end());
  for (const int64_t length : lengths.sorted) lengths.total += length;
  return lengths;
}

std::vector<Bin> BinsOf(const Lengths& lengths) {
  const int64_t low = lengths.sorted.front(), high = lengths.sorted.back();
  const int64_t width = std::max<int64_t>(1, (high - low + kBins) / kBins);
  std::vector<Bin> bins;
  for (int64_t begin = low; begin <= high; begin += width) {
    const auto at = [&](int64_t length) {
      return std::lower_bound(lengths.sorted.begin(), lengths.sorted.end(), length);
    };
    bins.push_back({begin, begin + width - 1, at(begin + width) - at(begin)});
  }
  return bins;
}

void Print(const StatsCommand& command, const data::Dataset& set, const Lengths& lengths,
           const data::EpochPlan& plan) {
  const data::EncodeReport& report = set.report;
  const double tokens = static_cast<double>(lengths.total);
  fmt::print("records         {}\n", report.records);
  fmt::print("left out        {}\n", report.dropped_count);
  fmt::print("truncated       {}  (longer than --max-length {}, --truncate {})\n", report.truncated,
             command.max_length, command.flags.truncate);
  fmt::print("examples        {} an epoch\n", set.examples.size());
  fmt::print("tokens          {} an epoch, {} of them learned ({:.1f} %)\n", lengths.total, lengths.learned,
             100.0 * static_cast<double>(lengths.learned) / tokens);
  fmt::print("lengths         shortest {}, median {}, mean {:.1f}, 95 % {}, longest {}\n",
             lengths.sorted.front(), lengths.At(0.5), tokens / static_cast<double>(lengths.sorted.size()),
             lengths.At(0.95), lengths.sorted.back());
  fmt::print("micro-batches   {} of {} tokens, {:.1f} % full\n\n", plan.batches.size(), plan.tokens,
             100.0 * plan.Fill());
  const std::vector<Bin> bins = BinsOf(lengths);
  int64_t most = 1;
  for (const Bin& bin : bins) most = std::max(most, bin.count);
  for (const Bin& bin : bins) {
    const int64_t width = (bin.count * kBarWidth + most - 1) / most;
    fmt::print("{:>7} to {:>7}  {:>8}  {}\n", bin.low, bin.high, bin.count,
               std::string(static_cast<size_t>(width), '#'));
  }
  for (const data::EncodeReport::Dropped& dropped : report.dropped) {
    fmt::print("left out: {}:{}: {}\n", dropped.file, dropped.row, dropped.reason);
  }
}

nlohmann::ordered_json ToJson(const data::Dataset& set, const Lengths& lengths, const data::EpochPlan& plan) {
  const data::EncodeReport& report = set.report;
  nlohmann::ordered_json bins = nlohmann::ordered_json::array(), dropped = nlohmann::ordered_json::array();
  for (const Bin& bin : BinsOf(lengths))
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
  const model::ModelText text = LoadTextOf(command);
  const train::DataOptions options = Resolve(command.flags);
  data::DatasetOptions wanted;
  wanted.files = data::FindDataFiles(command.data, data::Split::kTrain).OrThrow();
  wanted.read = options.read;
  wanted.threads = Resolve(ComputeFlags{command.threads, "auto", "auto"}).context.threads;
  wanted.cache = options.cache.value_or(data::DefaultCache(wanted.files));
  if (!wanted.cache.empty()) {
    wanted.encoder_identity = train::TextIdentity(command.model, text.chat ? text.chat->source() : "");
  }
  const data::Dataset set = data::LoadDataset(wanted, EncoderOf(command, text)).OrThrow();
  for (const std::string& row : set.bad_rows) fmt::print(stderr, "left out: {}\n", row);
  if (!set.note.empty()) fmt::print(stderr, "{}\n", set.note);
  const Lengths lengths = LengthsOf(set.examples);
  const data::EpochPlan plan =
      data::PlanEpoch(data::RowsOf(set.examples), command.tokens, command.seed, 0).OrThrow();
  if (command.json) {
    fmt::print("{}\n", ToJson(set, lengths, plan).dump(2));
  } else {
    Print(command, set, lengths, plan);
  }
}

}  // namespace

Action AddDataStats(CLI::App& app) {
  auto command = std::make_shared<StatsCommand>();
  AddDataFlags(app, command.get(), true);
  app.add_option("--tokens", command->tokens, "tokens of a micro-batch")
      ->capture_default_str()
      ->check(CLI::Range(2, 1 << 22));
  app.add_option("--seed", command->seed, "of the order")->capture_default_str();
  app.add_option("--threads", command->threads, "0: all")->check(CLI::NonNegativeNumber);
  app.add_option("--token-cache", command->flags.token_cache, "as of rung train")->capture_default_str();
  return [command] { RunStats(*command); };
}

}  // namespace rung::cli
