#include "train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "kernels/cpu/peak.h"
#include "model/adapter_file.h"
#include "train/calibrate.h"
#include "train/fisher.h"
#include "train/step.h"

namespace rung::train {
namespace {

uint64_t DataBytes(const EncodedData& data) {
  // Rows, the order of an epoch and its batches, which are lists of their own.
  return data.examples.resident_bytes() + 6 * data.rows.capacity() * sizeof(int64_t);
}

}  // namespace

Trainer::Trainer(const TrainOptions& options, const RunEvents& events, const std::atomic<bool>& interrupt)
    : options_(options), events_(events), interrupt_(interrupt) {}

void Trainer::Note(const std::string& line) const {
  if (events_.on_note) events_.on_note(line);
}

void Trainer::Prepare() {
  config_ = model::ReadConfig(options_.model).OrThrow();
  identity_.weights = WeightsIdentity(options_.model);
  spec_ = ResolveAdapter(options_, config_).OrThrow();
  base_rate_ = ResolveLearningRate(options_, spec_, config_);
  if (!options_.tap_cache.empty() && !spec_.ladder) {
    throw Error(ExitCode::kUsage,
                "--tap-cache: low-rank pairs have no taps; it is for --method ladder, xladder");
  }
  if (options_.max_length > config_.context) {
    throw Error(ExitCode::kUsage, fmt::format("--max-length {}: this model attends over {} tokens at most",
                                              options_.max_length, config_.context));
  }
  text_ = std::make_unique<model::ModelText>(
      model::LoadText(options_.model, options_.raw, "", config_.V).OrThrow());
  const bool split = options_.data_options.valid_fraction > 0.0;
  data_ = LoadData(options_.data, split ? data::Part::kTrain : data::Part::kAll, *text_, options_);
  identity_.data = DataIdentity(data_);
  ReportEncoding(options_.data, data_);
  if (split || !options_.eval_data.empty()) {
    const std::vector<data::DataFile>& files = split ? options_.data : options_.eval_data;
    eval_data_ = LoadData(files, split ? data::Part::kValid : data::Part::kAll, *text_, options_);
    ReportEncoding(files, eval_data_);
  }
  CountSteps();
  FindCheckpoint();
  Plan();
  CheckDisk();
}

void Trainer::ReportEncoding(std::span<const data::DataFile> files, const EncodedData& data) const {
  const data::EncodeReport& report = data.report;
  for (const std::string& note : data.notes) Note(note);
  for (const data::EncodeReport::Dropped& dropped : report.dropped) {
    Note(fmt::format("{}:{}: left out: {}", dropped.file, dropped.row, dropped.reason));
  }
  if (report.dropped_count > 0) {
    Note(fmt::format("{}: {} of {} records are left out", data::Describe(files), report.dropped_count,
                     report.records));
  }
  if (report.truncated > 0) {
    const bool split = options_.data_options.truncation == data::Truncation::kSplit;
    Note(fmt::format("{}: {} records are longer than --max-length {} and were {}", data::Describe(files),
                     report.truncated, options_.max_length, split ? "split" : "cut"));
  }
}

void Trainer::FindCheckpoint() {
  checkpoint_ = NewestCheckpoint(options_.out).OrThrow();
  const bool finished = std::filesystem::exists(options_.out / "adapter_config.json");
  if (finished && options_.resume) {
    throw Error(ExitCode::kUsage,
                fmt::format("--resume: {} holds a finished run: nothing is left to do; choose "
                            "another --out to train again",
                            options_.out.string()));
  }
  if (!options_.resume && (finished || checkpoint_.position.step > 0)) {
    throw Error(ExitCode::kUsage,
                fmt::format("{} holds an earlier run: {}choose another --out", options_.out.string(),
                            finished ? "" : "go on with --resume, or "));
  }
  if (!options_.resume) return;
  const std::string fingerprint = Fingerprint();
  if (checkpoint_.position.step == 0) {
    Note(fmt::format("--resume: no checkpoint in {}: starting from the beginning", options_.out.string()));
  } else if (checkpoint_.fingerprint != fingerprint) {
    throw Error(ExitCode::kUsage,
                fmt::format("--resume: {} was made with other settings, model or data:\n  then {}\n  now  {}",
                            checkpoint_.folder.string(), checkpoint_.fingerprint, fingerprint));
  }
}

void Trainer::Plan() {
  model::BackboneOptions backbone = options_.backbone;
  backbone.positions = options_.max_length;
  const model::Backbone shape = model::Backbone::PlannedFrom(options_.model, backbone).OrThrow();
  model::Adapter planned = model::Adapter::Planned(config_, spec_, options_.max_length);
  planned.policy = options_.policy;
  LargestBatch largest, largest_eval;
  for (uint32_t epoch = 0; epoch < epochs_; ++epoch) {
    const data::EpochPlan order =
        data::PlanEpoch(data_.rows, options_.tokens, options_.seed, epoch).OrThrow();
    FindLargestBatch(options_.compute, shape, planned, data_, order, true, kPlannedBatches, &largest);
  }
  if (!eval_data_.rows.empty()) {
    const data::EpochPlan order = data::PlanInOrder(eval_data_.rows, options_.tokens).OrThrow();
    FindLargestBatch(options_.compute, shape, planned, eval_data_, order, false,
                     static_cast<int64_t>(order.batches.size()), &largest_eval);
  }
  slab_bytes_ = std::max(largest.bytes, largest_eval.bytes);
  const PlanInputs inputs{TokenizerBytes(config_.V), DataBytes(data_) + DataBytes(eval_data_), true,
                          options_.optimizer};
  plan_ = MakePlan(options_.compute.context, options_.compute.compute, shape, planned, largest.batch, inputs);
  if (slab_bytes_ > largest.bytes) {
    plan_.items.push_back(
        {"evaluation", slab_bytes_ - largest.bytes, "arena beyond the training step's", "--tokens"});
  }
  PlanImportance(shape);
  if (events_.on_plan) events_.on_plan(plan_, spec_, config_);
  const uint64_t limit = options_.memory_limit > 0 ? options_.memory_limit : AvailableMemory();
  if (limit > 0 && plan_.total() > limit) {
    throw Error(ExitCode::kNoMemory,
                plan_.Refusal(limit, options_.memory_limit > 0 ? "--memory-limit" : "free memory"));
  }
}

// What the run will write, compared with what may be and what the disk has: before anything is loaded.
void Trainer::CheckDisk() {
  const auto n =
      static_cast<uint64_t>(model::Adapter::Planned(config_, spec_, options_.max_length).parameter_count());
  // Kept checkpoints, one being written, and the adapter.
  const uint64_t needed = n * sizeof(float) * (3 * static_cast<uint64_t>(options_.save_limit + 1) + 1);
  Path folder = std::filesystem::absolute(options_.out);
  std::error_code error;
  while (!std::filesystem::exists(folder, error) && folder != folder.parent_path())
    folder = folder.parent_path();
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (!error && space.available < needed) {
    throw Error(
        ExitCode::kFailed,
        fmt::format("{}: {} are free on this disk, checkpoints and adapter need {}: free some, choose "
                    "another --out, or lower --save-limit",
                    options_.out.string(), FormatBytes(space.available), FormatBytes(needed)));
  }
  if (options_.tap_cache.empty()) return;
  const uint64_t need = model::TapCache::Need(
      StateEntryBytes(spec_, options_.policy, options_.compute.compute, config_, data_.examples));
  Note(fmt::format("tap cache: {} on disk in {}", FormatBytes(need), options_.tap_cache.string()));
  if (epochs_ <= 1) Note("tap cache: read from the second epoch on; this run has one");
  if (Status fits = model::TapCache::Check(options_.tap_cache, need, options_.tap_cache_limit); !fits.ok()) {
    throw Error(fits.failure().code, fits.failure().message);
  }
}

void Trainer::CountSteps() {
  // Packing differs a little from epoch to epoch, hence so may the number of micro-batches.
  int64_t steps = 0, last = 0;
  const auto more = [&] {
    return options_.max_steps > 0 ? steps < options_.max_steps
                                  : static_cast<double>(epochs_) < options_.epochs;
  };
  for (epochs_ = 0; more(); ++epochs_) {
    const data::EpochPlan plan =
        data::PlanEpoch(data_.rows, options_.tokens, options_.seed, epochs_).OrThrow();
    const auto batches = static_cast<int64_t>(plan.batches.size());
    last = (batches + options_.gradient_accumulation - 1) / options_.gradient_accumulation;
    steps += last;
  }
  // A fraction of the last epoch counts as that fraction of its steps.
  const double missing = static_cast<double>(epochs_) - options_.epochs;
  total_steps_ =
      options_.max_steps > 0
          ? options_.max_steps
          : std::max<int64_t>(1, steps - static_cast<int64_t>(missing * static_cast<double>(last)));
  warmup_steps_ = static_cast<int64_t>(std::ceil(options_.warmup_ratio * static_cast<double>(total_steps_)));
}

void Trainer::Start() {
  model::BackboneOptions backbone = options_.backbone;
  backbone.positions = options_.max_length;
  backbone_ = model::Backbone::Load(options_.model, backbone).OrThrow();
  MakeFolder();
  MakeAdapter();
  Reserve(slab_bytes_);
  optimizer_.emplace(options_.optimizer, adapter_->params().begins);
  log_.emplace(options_.out);
  const cpu::Context& context = options_.compute.context;
  peak_flops_ = options_.compute.compute == DType::kBf16 ? cpu::MeasurePeakFlops<Bf16>(context)
                                                         : cpu::MeasurePeakFlops<float>(context);
  ResumeOrBegin();
  OpenStateCache();
}

// The first examples of the first epoch: a random draw that every run with this seed makes.
std::vector<data::Example> Trainer::FisherExamples() const {
  const data::EpochPlan plan = data::PlanEpoch(data_.rows, options_.tokens, options_.seed, 0).OrThrow();
  std::vector<data::Example> examples;
  for (const std::vector<int64_t>& batch : plan.batches) {
    for (const int64_t i : batch) {
      if (static_cast<int64_t>(examples.size()) == options_.ladder.fisher_samples) return examples;
      examples.push_back(data_.examples.Get(i));
    }
  }
  return examples;
}

// Importances are measured and gone before anything of the training step exists: what counts is how much more
// they take.
void Trainer::PlanImportance(const model::Backbone& shape) {
  if (!spec_.ladder || options_.ladder.init != LadderInit::kFisher || checkpoint_.position.step > 0) return;
  const std::vector<data::Example> examples = FisherExamples();
  const Fisher::Need need = Fisher::Plan(options_.compute, shape, spec_.ladder->taps, examples);
  uint64_t later = 0;
  for (const PlanItem& item : plan_.items) {
    const bool there = item.name == "weights" || item.name == "tokenizer and data" || item.name == "program";
    if (!there) later += item.bytes;
  }
  if (need.total() > later) {
    plan_.items.push_back({"importance", need.total() - later,
                           "Fisher information, before training and beyond it",
                           "--ladder-init pruned, fewer --taps"});
  }
  Note(fmt::format("ladder init: Fisher information of {} examples in {}, given back before training",
                   examples.size(), FormatBytes(need.total())));
}

model::PrunedSelection Trainer::SelectRungs() const {
  const model::LadderSpec& ladder = *spec_.ladder;
  if (options_.ladder.init == LadderInit::kPruned) {
    return model::SelectPruned(*backbone_, ladder, model::Magnitude(*backbone_)).OrThrow();
  }
  const Fisher fisher(options_.compute, *backbone_, ladder.taps, FisherExamples());
  return model::SelectPruned(*backbone_, ladder, fisher.importance()).OrThrow();
}

void Trainer::MakeAdapter() {
  std::optional<model::PrunedSelection> selection;
  const bool pruned = spec_.ladder && options_.ladder.init != LadderInit::kRandom;
  if (pruned && checkpoint_.position.step > 0) {
    // The weights will come from the checkpoint; which frequencies they turn by is its ladder's shape.
    const model::AdapterInfo info = model::ReadAdapterInfo(checkpoint_.folder, config_).OrThrow();
    const size_t pairs = static_cast<size_t>(spec_.ladder->head_dim / 2);
    if (!info.spec.ladder || info.spec.ladder->rope_pairs.size() != pairs) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: its ladder must have {} rope_pairs", checkpoint_.folder.string(), pairs));
    }
    spec_.ladder->rope_pairs = info.spec.ladder->rope_pairs;
  } else if (pruned) {
    selection = SelectRungs();
    spec_.ladder->rope_pairs = selection->rope_pairs;
  }
  adapter_ = model::Adapter::Make(config_, spec_, options_.seed, true, options_.max_length);
  adapter_->policy = options_.policy;
  if (selection) model::FillPruned(*backbone_, *selection, adapter_->ladder());
}

void Trainer::MakeFolder() {
  std::error_code error;
  std::filesystem::create_directories(options_.out, error);
  if (error) {
    throw Error(ExitCode::kFailed,
                fmt::format("cannot create {}: {}", options_.out.string(), error.message()));
  }
  RemoveUnfinishedCheckpoints(options_.out);
}

void Trainer::Reserve(size_t bytes) {
  if (slab_ && bytes <= slab_->bytes()) return;
  exec_.reset();
  slab_.reset();  // before its successor is made
  slab_ = std::make_unique<Slab>(bytes);
  exec_.emplace(Arena(slab_->base(), slab_->bytes()), options_.compute.context, options_.compute.compute);
}

void Trainer::OpenStateCache() {
  if (options_.tap_cache.empty()) return;
  cache_ = StateCache::Open(options_, *adapter_, config_, identity_.text(config_), data_.examples).OrThrow();
  if (!cache_->store().note().empty()) Note(cache_->store().note());
  if (cache_->store().complete() > 0) {
    Note(fmt::format("tap cache: {} of {} examples are already there", cache_->store().complete(),
                     cache_->store().entries()));
  }
}

void Trainer::ResumeOrBegin() {
  if (checkpoint_.position.step > 0) {
    Status loaded = LoadCheckpoint(checkpoint_, &*adapter_, &*optimizer_);
    if (!loaded.ok()) throw Error(loaded.failure().code, loaded.failure().message);
    position_ = checkpoint_.position;
    first_step_ = position_.step;
    Note(fmt::format("resumed from {}", checkpoint_.folder.string()));
    return;
  }
  model::Ladder* ladder = adapter_->ladder();
  if (!ladder || ladder->spec().tap_norm == model::TapNorm::kNone) return;
  const data::EpochPlan plan = data::PlanEpoch(data_.rows, options_.tokens, options_.seed, 0).OrThrow();
  Calibrate(*exec_, *backbone_, plan, data_.examples, static_cast<float>(options_.ladder.output_scale),
            ladder);
  Note(fmt::format("calibrated: output scale {:.2f}", ladder->spec().output_scale));
}

std::string Trainer::Fingerprint() const {
  return train::Fingerprint(options_, spec_, config_, identity_, {total_steps_, warmup_steps_, base_rate_});
}

}  // namespace rung::train
