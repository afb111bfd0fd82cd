#include "train/state_cache.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/hash.h"
#include "kernels/cpu/panel.h"

namespace rung::train {
namespace {

std::span<std::byte> RowBytes(const Tensor& t, int64_t begin, int64_t count) {
  RUNG_CHECK(t.contiguous(), "state cache: rows behind each other");
  const size_t row = static_cast<size_t>(t.cols()) * SizeOf(t.dtype);
  return {t.data + static_cast<size_t>(begin) * row, static_cast<size_t>(count) * row};
}

// Of the numbers that pooled taps were standardised with.
std::string CalibrationOf(const model::Adapter& adapter) {
  std::string numbers;
  adapter.ForEachBuffer([&](const std::string&, const Tensor& tensor) {
    numbers.append(reinterpret_cast<const char*>(tensor.data),
                   static_cast<size_t>(tensor.size()) * sizeof(float));
  });
  return HashText(numbers);
}

// Raised by whatever changes the bits of the frozen forward pass: states of an older program are then not
// found.
constexpr int kNumerics = 1;

std::string KeyOf(const TrainOptions& options, const model::Adapter& adapter, const std::string& identity) {
  const model::LadderSpec& ladder = adapter.ladder()->spec();
  std::string key = fmt::format(
      "numerics={} {} max_length={} quantize={} compute={}{} isa={} taps={} rejoin={} storage={}", kNumerics,
      identity, options.max_length, HashText(options.backbone.recipe.Key()), NameOf(options.compute.compute),
      options.compute.context.int8 ? "+int8" : "", cpu::NameOf(options.compute.context.isa),
      fmt::join(ladder.taps, ","), ladder.rejoin, static_cast<int>(options.policy.taps));
  if (ladder.tap_map == model::TapMap::kPooled) {
    key += fmt::format(" pooled_to={} norm={} calibration={}", ladder.S, static_cast<int>(ladder.tap_norm),
                       CalibrationOf(adapter));
  }
  return key;
}

}  // namespace

StateEntries StateEntriesOf(const model::AdapterSpec& spec, const model::MemoryPolicy& policy, DType compute,
                            const model::Config& config, const data::Examples& examples) {
  RUNG_CHECK(spec.ladder.has_value(), "state cache: only a ladder has taps");
  const uint64_t tap_row = model::StoredTapRowBytes(*spec.ladder, policy.taps, compute, config.C);
  const uint64_t x_row = static_cast<uint64_t>(config.C) * sizeof(float);
  StateEntries entries;
  for (int64_t e = 0; e < examples.size(); ++e) {
    const auto next = static_cast<int64_t>(entries.bytes.size());
    if (!entries.of_record.try_emplace(examples.record(e), next).second) continue;
    const auto rows = static_cast<uint64_t>(examples.length(e) - 1);
    const auto x_rows =
        spec.first_crossed(config.L) < config.L ? rows : static_cast<uint64_t>(examples.target_count(e));
    entries.bytes.push_back(rows * tap_row * spec.ladder->taps.size() + x_rows * x_row);
  }
  return entries;
}

Result<std::unique_ptr<StateCache>> StateCache::Open(const TrainOptions& options,
                                                     const model::Adapter& adapter,
                                                     const model::Config& config, const std::string& identity,
                                                     const data::Examples& examples) {
  auto cache = std::unique_ptr<StateCache>(new StateCache());
  StateEntries entries =
      StateEntriesOf(adapter.spec(), options.policy, options.compute.compute, config, examples);
  Result<std::unique_ptr<model::TapCache>> store =
      model::TapCache::Open(options.tap_cache, {KeyOf(options, adapter, identity)}, std::move(entries.bytes),
                            options.tap_cache_limit);
  if (!store.ok()) return store.failure();
  cache->store_ = std::move(store).value();
  cache->entry_of_record_ = std::move(entries.of_record);
  cache->rows_of_x_ = adapter.first_crossed(config.L) < config.L;
  return cache;
}

bool StateCache::Covers(const data::Batch& batch) const {
  return std::all_of(batch.records.begin(), batch.records.end(),
                     [&](int64_t record) { return store_->Has(entry_of_record_.at(record)); });
}

const model::CrossingIo* StateCache::For(const data::Batch& batch) {
  batch_ = &batch;
  load_failed_ = false;
  io_ = {};
  if (batch.rows() <= cpu::kFewRows) return nullptr;
  if (Covers(batch)) {
    for (const int64_t record : batch.records) store_->Expect(entry_of_record_.at(record));
    io_.load = [this](const model::CrossingStates& states) { Load(states); };
  } else if (storing_) {
    io_.store = [this](const model::CrossingStates& states) { Store(states); };
  } else {
    return nullptr;
  }
  return &io_;
}

std::string StateCache::TakeFailure() { return std::exchange(failure_, std::string()); }

Status StateCache::ForEachSample(
    const model::CrossingStates& states,
    const std::function<Status(int64_t, const std::vector<std::span<std::byte>>&)>& use) {
  int64_t picked = 0;  // rows of x that earlier samples took
  for (size_t s = 0; s < batch_->records.size(); ++s) {
    const int64_t begin = batch_->starts[s], count = batch_->starts[s + 1] - begin;
    const auto targets = std::count_if(batch_->target.begin() + begin, batch_->target.begin() + begin + count,
                                       [](int32_t id) { return id >= 0; });
    std::vector<std::span<std::byte>> parts;
    for (const model::StoredTap& tap : states.taps) {
      parts.push_back(RowBytes(tap.data, begin, count));
      if (!tap.scale.empty()) parts.push_back(RowBytes(tap.scale.Reshape(tap.scale.cols(), 1), begin, count));
    }
    parts.push_back(rows_of_x_ ? RowBytes(states.x, begin, count) : RowBytes(states.x, picked, targets));
    picked += targets;
    if (Status done = use(entry_of_record_.at(batch_->records[s]), parts); !done.ok()) return done;
  }
  return Ok{};
}

void StateCache::Load(const model::CrossingStates& states) {
  const Status loaded =
      ForEachSample(states, [&](int64_t entry, const std::vector<std::span<std::byte>>& parts) {
        return store_->Read(entry, parts);
      });
  load_failed_ = !loaded.ok();
  if (load_failed_) failure_ = fmt::format("{}; computed instead", loaded.failure().message);
}

void StateCache::Store(const model::CrossingStates& states) {
  const Status stored =
      ForEachSample(states, [&](int64_t entry, const std::vector<std::span<std::byte>>& parts) -> Status {
        if (store_->Has(entry)) return Ok{};
        return store_->Write(entry, std::vector<std::span<const std::byte>>(parts.begin(), parts.end()));
      });
  if (stored.ok()) return;
  storing_ = false;
  failure_ = fmt::format("{}; the run goes on, examples that are not there yet are computed in every epoch",
                         stored.failure().message);
}

}  // namespace rung::train
