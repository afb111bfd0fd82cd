#include "train/trainer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/folders.h"
#include "base/text.h"
#include "kernels/cpu/peak.h"
#include "model/adapter_file.h"
#include "train/calibrate.h"
#include "train/evaluation.h"
#include "train/fisher.h"
#include "train/step.h"

namespace rung::train {
namespace {

uint64_t DataBytes(const EncodedData& data) {
  // Rows, the order of an epoch and its batches, which are lists of their own.
  return data.examples.resident_bytes() + 6 * data.rows.capacity() * sizeof(int64_t);
}

uint64_t QuestionBytes(const std::vector<infer::Question>& questions) {
  uint64_t bytes = questions.size() * sizeof(infer::Question);
  for (const infer::Question& question : questions) {
    bytes += question.prompt.size() * sizeof(int32_t) + question.asked.size() + question.expected.size();
  }
  return bytes;
}

// What the template showed when the run in `out` began; `now` when there is none to resume.
int64_t TimeOfRun(const Path& out, const model::Config& config, int64_t now) {
  std::vector<std::string> damaged;  // FindCheckpoint says it
  const Checkpoint checkpoint = NewestCheckpoint(out, &damaged).OrThrow();
  if (checkpoint.state.position.step == 0) return now;
  return model::ReadAdapterInfo(checkpoint.folder, config).OrThrow().template_time.value_or(now);
}

}  // namespace

Trainer::Trainer(const TrainOptions& options, const RunEvents& events, const std::atomic<bool>& interrupt)
    : options_(options), events_(events), interrupt_(interrupt) {}

void Trainer::Note(const std::string& line) const {
  if (events_.on_note) events_.on_note(line);
  if (log_) {
    log_->Event("note", line);
  } else {
    early_notes_.push_back(line);
  }
}

void Trainer::OpenLog() {
  const double epochs = options_.max_steps > 0 ? static_cast<double>(epochs_) : options_.epochs;
  LogOptions log;
  log.out = options_.out;
  log.state = {total_steps_, options_.eval_steps, options_.save_steps, epochs};
  log.resumed_step = first_step_;
  log.earlier_seconds = earlier_seconds_;
  log.note = events_.on_note;
  log_.emplace(log);
  if (best_) log_->Best(best_->metric, best_->step, kBestFolder);
  log_->Plan(plan_);
  for (const std::string& line : early_notes_) log_->Event("note", line);
  early_notes_.clear();
}

void Trainer::Stopped(const std::string& reason) {
  if (log_) log_->Event("stopped", reason);
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
      model::LoadText(options_.model, options_.raw, options_.chat_template, config_.V, options_.template_time)
          .OrThrow());
  if (options_.resume && text_->time) text_->time = TimeOfRun(options_.out, config_, *text_->time);
  const bool split = options_.data_options.valid_fraction > 0.0;
  data_ = LoadData(options_.data, split ? data::Part::kTrain : data::Part::kAll, *text_, options_, events_,
                   &interrupt_);
  identity_.data = DataIdentity(data_);
  ReportEncoding(options_.data, data_);
  if (split || !options_.eval_data.empty()) {
    const std::vector<data::DataFile>& files = split ? options_.data : options_.eval_data;
    eval_data_ = LoadData(files, split ? data::Part::kValid : data::Part::kAll, *text_, options_, events_,
                          &interrupt_);
    ReportEncoding(files, eval_data_);
  }
  LoadHeldOut();
  CountSteps();
  FindCheckpoint();
  Plan();
  CheckDisk();
}

RunPreview Trainer::Preview() {
  preview_ = true;
  Prepare();
  return {Begin(), data_.examples.size(), eval_data_.examples.size(), static_cast<int64_t>(epochs_),
          plan_.total()};
}

RunBegin Trainer::Begin() const {
  return {identity_.weights, identity_.data, eval_data_.examples.empty() ? "" : DataIdentity(eval_data_),
          total_steps_,      warmup_steps_,  base_rate_,
          resumed_};
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
  if (report.special_texts > 0) {
    Note(fmt::format(
        "warning: {}: {} of {} records hold the text of a special token, as \"{}\", which is read as "
        "plain text; if a chat template has written it: --special-tokens, for records of the format text",
        data::Describe(files), report.special_texts, report.records, Printable(report.special)));
  }
  if (report.truncated > 0) {
    const bool split = options_.data_options.truncation == data::Truncation::kSplit;
    Note(fmt::format("{}: {} records are longer than --max-length {} and were {}", data::Describe(files),
                     report.truncated, options_.max_length, split ? "split" : "cut"));
  }
}

void Trainer::Lock() {
  lock_.emplace(RunLock::Take(options_.out).OrThrow());
  if (!lock_->note().empty()) Note(lock_->note());
}

void Trainer::FindCheckpoint() {
  std::error_code error;
  if (!preview_ && std::filesystem::is_directory(options_.out, error)) Lock();
  if (!options_.resume) return RefuseAnEarlierRun();
  if (std::filesystem::exists(options_.out / "adapter_config.json", error)) {
    throw Error(ExitCode::kUsage,
                fmt::format("--resume: {} holds a finished run: nothing is left to do; choose "
                            "another --out to train again",
                            options_.out.string()));
  }
  if (!preview_) CleanCheckpoints(options_.out).OrThrow();
  checkpoint_ = NewestCheckpoint(options_.out, &resumed_.damaged).OrThrow();
  for (const std::string& line : resumed_.damaged) Note(fmt::format("damaged and passed over: {}", line));
  if (checkpoint_.state.position.step == 0) {
    return Note(
        fmt::format("--resume: no checkpoint in {}: starting from the beginning", options_.out.string()));
  }
  if (const std::string& version = checkpoint_.rung_version; !version.empty() && version != RungVersion()) {
    Note(fmt::format("{} was made by rung {}, this is rung {}", checkpoint_.folder.string(), version,
                     RungVersion()));
  }
  CompareSettings();
}

void Trainer::RefuseAnEarlierRun() const {
  std::error_code error;
  const bool finished = std::filesystem::exists(options_.out / "adapter_config.json", error);
  if (!finished && !HasCheckpoint(options_.out)) return;
  throw Error(ExitCode::kUsage,
              fmt::format("{} holds an earlier run: {}choose another --out", options_.out.string(),
                          finished ? "" : "go on with --resume, or "));
}

void Trainer::CompareSettings() {
  resumed_.checkpoint = checkpoint_.folder;
  resumed_.step = checkpoint_.state.position.step;
  resumed_.differences = Differences(checkpoint_.settings, Settings());
  if (resumed_.differences.empty()) return;
  const std::string list = fmt::format("{}", fmt::join(resumed_.differences, "\n  "));
  if (!options_.resume_force) {
    throw Error(ExitCode::kUsage,
                fmt::format("--resume: {} was made with other settings, model or data:\n  {}\nrestore them, "
                            "or give --resume-force to go on all the same",
                            checkpoint_.folder.string(), list));
  }
  Note(fmt::format("--resume-force: going on from {}, which was made with other settings:\n  {}",
                   checkpoint_.folder.string(), list));
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
  const PlanInputs inputs{TokenizerBytes(config_.V),
                          DataBytes(data_) + DataBytes(eval_data_) + QuestionBytes(questions_), true,
                          options_.optimizer};
  plan_ = MakePlan(options_.compute.context, options_.compute.compute, shape, planned, largest.batch, inputs);
  if (slab_bytes_ > largest.bytes) {
    plan_.items.push_back(
        {"evaluation", slab_bytes_ - largest.bytes, "arena beyond the training step's", "--tokens"});
  }
  PlanImportance(shape);
  const uint64_t limit = options_.memory_limit > 0 ? options_.memory_limit : AvailableMemory();
  PlanAnswers(shape, planned, limit);
  if (events_.on_plan) events_.on_plan(plan_, spec_, config_);
  if (limit > 0 && plan_.total() > limit) {
    throw Error(ExitCode::kNoMemory,
                plan_.Refusal(limit, options_.memory_limit > 0 ? "--memory-limit" : "free memory"));
  }
}

// What the run will write, compared with what may be and what the disk has: before anything is loaded.
void Trainer::CheckDisk() {
  const auto n =
      static_cast<uint64_t>(model::Adapter::Planned(config_, spec_, options_.max_length).parameter_count());
  // Kept checkpoints, one being written, and the adapter; the best one and its successor.
  const uint64_t best = options_.eval_steps > 0 && !eval_data_.examples.empty() ? 2 : 0;
  const uint64_t needed = n * sizeof(float) * (3 * static_cast<uint64_t>(options_.save_limit + 1) + 1 + best);
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
  warmup_steps_ = options_.warmup_steps.value_or(
      static_cast<int64_t>(std::ceil(options_.warmup_ratio * static_cast<double>(total_steps_))));
}

void Trainer::Start() {
  model::BackboneOptions backbone = options_.backbone;
  backbone.positions = options_.max_length;
  backbone_ = model::Backbone::Load(options_.model, backbone).OrThrow();
  MakeFolder();
  MakeAdapter();
  Reserve(slab_bytes_);
  optimizer_.emplace(options_.optimizer, adapter_->params().begins);
  const cpu::Context& context = options_.compute.context;
  peak_flops_ = options_.compute.compute == DType::kBf16 ? cpu::MeasurePeakFlops<Bf16>(context)
                                                         : cpu::MeasurePeakFlops<float>(context);
  ResumeOrBegin();
  OpenLog();
  if (events_.on_begin) events_.on_begin(Begin());
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
  if (!spec_.ladder || options_.ladder.init != LadderInit::kFisher || checkpoint_.state.position.step > 0)
    return;
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
  if (pruned && checkpoint_.state.position.step > 0) {
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
  MakeFolders(options_.out).OrThrow();
  if (!lock_) {
    // The folder was not there when the run was prepared: nobody may have been faster.
    Lock();
    RefuseAnEarlierRun();
  }
  CleanCheckpoints(options_.out).OrThrow();
  const Path best = options_.out / kBestFolder;
  CleanFolder(best).OrThrow();
  // That of a run which left no checkpoint is of no use.
  if (checkpoint_.state.position.step == 0) RemoveAll(best).OrThrow();
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
  if (checkpoint_.state.position.step > 0) {
    Status loaded = LoadCheckpoint(checkpoint_, &*adapter_, &*optimizer_);
    if (!loaded.ok()) throw Error(loaded.failure().code, loaded.failure().message);
    position_ = checkpoint_.state.position;
    skipped_ = checkpoint_.state.skipped_steps;
    skipped_in_row_ = checkpoint_.state.skipped_in_row;
    evaluated_step_ = checkpoint_.state.evaluated_step;
    // Other settings are given to end a row of skipped steps.
    if (!resumed_.differences.empty()) skipped_in_row_ = 0;
    ResumeBest();
    first_step_ = position_.step;
    total_tokens_ = checkpoint_.state.tokens;
    earlier_seconds_ = checkpoint_.state.seconds;
    Note(fmt::format("resumed from {}", checkpoint_.folder.string()));
    if (events_.on_resume) events_.on_resume(resumed_);
    return;
  }
  model::Ladder* ladder = adapter_->ladder();
  if (!ladder || ladder->spec().tap_norm == model::TapNorm::kNone) return;
  const data::EpochPlan plan = data::PlanEpoch(data_.rows, options_.tokens, options_.seed, 0).OrThrow();
  Calibrate(*exec_, *backbone_, plan, data_.examples, static_cast<float>(options_.ladder.output_scale),
            ladder);
  Note(fmt::format("calibrated: output scale {:.2f}", ladder->spec().output_scale));
}

train::Settings Trainer::Settings() const {
  train::Settings settings =
      RunSettings(options_, spec_, config_, identity_, {total_steps_, warmup_steps_, base_rate_});
  if (!eval_data_.examples.empty()) AddEvaluation(options_, DataIdentity(eval_data_), &settings);
  return settings;
}

}  // namespace rung::train
