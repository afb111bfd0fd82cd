#include "train/trainer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/folders.h"
#include "base/memory.h"
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

// Another process's probe may take away a folder that is made meanwhile.
constexpr int kFolderTries = 20;

// What of two runs is known and can be compared: without what only the data decides, or the model's files.
struct Known {
  bool data = false, model = false;
  Settings operator()(Settings settings, const TrainOptions& options) const {
    std::erase_if(settings, [&](const auto& setting) {
      return (!data && NeedsData(setting.first, options)) ||
             (!model && setting.first.starts_with(kModelFile));
    });
    return settings;
  }
  // "the data is", empty where all is.
  const char* unread() const {
    if (!data && !model) return "model and data are";
    return data && model ? "" : data ? "the model is" : "the data is";
  }
};

// Than a run with the settings `then`.
bool EndsEarlyOtherwise(const EvalOptions& options, Settings then) {
  std::erase_if(then, [](const auto& setting) { return !setting.first.starts_with("early_stopping_"); });
  Settings now;
  AddEarlyStopping(options, &now);
  return then != now;
}

// What the template showed when the run in `folder` began; nothing: there is none, or it shows no time.
std::optional<int64_t> TimeOfRun(const Path& folder, const model::Config& config) {
  if (folder.empty()) return std::nullopt;
  return model::ReadAdapterInfo(folder, config).OrThrow().template_time;
}

void ReportEncoding(std::span<const data::DataFile> files, const EncodedData& data,
                    const TrainOptions& options, const std::function<void(const std::string&)>& note) {
  const data::EncodeReport& report = data.report;
  for (const std::string& line : data.notes) note(line);
  for (const data::EncodeReport::Dropped& dropped : report.dropped) {
    note(fmt::format("{}:{}: left out: {}", dropped.file, dropped.row, dropped.reason));
  }
  if (report.dropped_count > 0) {
    note(fmt::format("{}: {} of {} records are left out", data::Describe(files), report.dropped_count,
                     report.records));
  }
  if (report.special_texts > 0) {
    note(fmt::format(
        "warning: {}: {} of {} records hold the text of a special token, as \"{}\", which is read as "
        "plain text; if a chat template has written it: --special-tokens, for records of the format text",
        data::Describe(files), report.special_texts, report.records, Printable(report.special)));
  }
  if (report.truncated > 0) {
    const bool split = options.data_options.truncation == data::Truncation::kSplit;
    note(fmt::format("{}: {} records are longer than --max-length {} and were {}", data::Describe(files),
                     report.truncated, options.max_length, split ? "split" : "cut"));
  }
}

}  // namespace

Trainer::Trainer(const TrainOptions& options, const RunEvents& events, const std::atomic<bool>& interrupt)
    : options_(options), events_(events), interrupt_(interrupt), best_folder_(options.out / kBestFolder) {}

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
  // A run that was killed may have kept another than the checkpoint's; --resume-force counts that of a later
  // step.
  if (best_) {
    const Result<SavedBest> kept = ReadBest(options_.out / kBestFolder);
    if (kept.ok() && kept.value().of == MeasuredNow() &&
        kept.value().step <= std::max(first_step_, best_->step))
      log_->Best(kept.value().value, kept.value().step, kBestFolder);
  }
  log_->Plan(plan_);
  for (const std::string& line : early_notes_) log_->Event("note", line);
  early_notes_.clear();
}

void Trainer::Stopped(const std::string& reason) {
  if (log_) log_->Event("stopped", reason);
}

// What needs no data comes first: encoding it may take minutes.
void Trainer::Prepare() {
  ReadShape();
  if (options_.max_steps > 0) SetSteps(options_.max_steps);  // whatever the data
  LookAtFolder();
  if (!finished_) {
    FindCheckpoint();
  } else if (options_.max_steps > 0 || finished_->total_steps == 0) {
    if (!AsksForMore()) return NoteOtherSettings();
    GoOn();
  }
  text_ = std::make_unique<model::ModelText>(
      model::LoadText(options_.model, options_.raw, options_.chat_template, config_.V, options_.template_time)
          .OrThrow());
  if (options_.resume && text_->time) {
    const Path& folder = finished_ ? options_.out : checkpoint_.folder;
    text_->time = TimeOfRun(folder, config_).value_or(*text_->time);
  }
  ReadData();
  CountSteps();
  if (finished_) {
    if (!AsksForMore()) return NoteOtherSettings();
    GoOn();
  }
  CheckDisk();  // the number of steps is known
  if (checkpoint_.state.position.step > 0) CompareSettings();
  Plan();
  CheckTapCache();
  if (!preview_) HashModel();
}

void Trainer::ReadShape() {
  config_ = model::ReadConfig(options_.model).OrThrow();
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
  CheckEvaluation(options_).OrThrow();
}

void Trainer::ReadData() {
  const auto note = [&](const std::string& line) { Note(line); };
  const bool split = options_.data_options.valid_fraction > 0.0;
  data_ = LoadData(options_.data, split ? data::Part::kTrain : data::Part::kAll, *text_, options_, events_,
                   &interrupt_);
  identity_.data = DataIdentity(data_);
  ReportEncoding(options_.data, data_, options_, note);
  if (split || !options_.eval_data.empty()) {
    const std::vector<data::DataFile>& files = split ? options_.data : options_.eval_data;
    eval_data_ = LoadData(files, split ? data::Part::kValid : data::Part::kAll, *text_, options_, events_,
                          &interrupt_);
    ReportEncoding(files, eval_data_, options_, note);
  }
  LoadHeldOut();
  if (!eval_data_.examples.empty()) identity_.eval_data = DataIdentity(eval_data_);
}

void Trainer::HashModel() {
  if (!identity_.model.files.empty()) return;
  const auto begin = std::chrono::steady_clock::now();
  bool said = false;
  identity_.model = train::HashModel(options_.model, [&](uint64_t, uint64_t total) {
    if (!said && std::chrono::steady_clock::now() - begin > std::chrono::seconds(1)) {
      Note(fmt::format("reading the model's {} for its hash, once a run", FormatBytes(total)));
      said = true;
    }
    return !interrupt_.load();
  });
}

RunPreview Trainer::Preview() {
  preview_ = true;
  Prepare();
  if (finished_) return {{}, finished_};
  return {Begin(),
          std::nullopt,
          data_.examples.size(),
          eval_data_.examples.size(),
          static_cast<int64_t>(epochs_),
          plan_.total()};
}

RunBegin Trainer::Begin() const {
  return {identity_.model, identity_.data, identity_.eval_data, total_steps_, warmup_steps_,
          base_rate_,      resumed_};
}

bool Trainer::Lock() {
  std::optional<RunLock> lock = RunLock::TakeIfThere(options_.out).OrThrow();
  if (!lock) return false;
  lock_.emplace(std::move(*lock));
  if (!lock_->note().empty()) Note(lock_->note());
  return true;
}

void Trainer::LookAtFolder() {
  if (options_.resume) finished_ = FindFinishedRun(options_.out);
  probed_ = ProbeFolder(options_.out);
  if (finished_ && !probed_.ok()) return;  // there may be nothing left to write
  Status(probed_).OrThrow();
  if (preview_) {
    RunLock::Check(options_.out).OrThrow();
  } else {
    Lock();
  }
  if (options_.resume) {
    finished_ = FindFinishedRun(options_.out);  // nobody works on it now
  } else {
    RefuseAnEarlierRun(options_.out);
  }
}

void Trainer::FindCheckpoint() {
  if (!options_.resume) return CheckDisk();
  if (!preview_) CleanCheckpoints(options_.out).OrThrow();
  checkpoint_ = NewestCheckpoint(options_.out, &resumed_.damaged).OrThrow();
  CheckDisk();
  // A new run removes it, evaluations replace it.
  const bool changes_best = checkpoint_.state.position.step == 0 || options_.eval_steps > 0;
  if (changes_best && !checkpoint_.state.best) RefuseAnotherBest(options_.out);
  for (const std::string& line : resumed_.damaged) Note(fmt::format("damaged and passed over: {}", line));
  if (checkpoint_.state.position.step == 0 && finished_) {
    throw Error(ExitCode::kUsage,
                fmt::format("--resume: {} holds a finished run of {} steps, and no checkpoint to go on from: "
                            "choose another --out to train for {}",
                            options_.out.string(), finished_->steps, total_steps_));
  }
  if (checkpoint_.state.position.step == 0) {
    return Note(
        fmt::format("--resume: no checkpoint in {}: starting from the beginning", options_.out.string()));
  }
  if (const std::string& version = checkpoint_.rung_version; !version.empty() && version != RungVersion()) {
    Note(fmt::format("{} was made by rung {}, this is rung {}", checkpoint_.folder.string(), version,
                     RungVersion()));
  }
  // All settings will be compared. What refuses the run at once comes before what takes time.
  if (!options_.resume_force) CompareSettings();
  HashModel();
  if (!options_.resume_force) CompareSettings();
}

void Trainer::CheckDisk() const {
  const model::Adapter planned = model::Adapter::Planned(config_, spec_, options_.max_length);
  const uint64_t adapter = static_cast<uint64_t>(planned.parameter_count()) * sizeof(float);
  const uint64_t moments = Optimizer::StateBytes(options_.optimizer.moments, planned.params().begins);
  // Until the number of steps is known: one is made at least.
  const int64_t steps = std::max<int64_t>(1, total_steps_ - checkpoint_.state.position.step);
  const uint64_t needed = BytesToWrite(options_, steps, adapter, adapter + moments);
  const std::optional<uint64_t> free = FreeBytes(options_.out);
  if (free && *free < needed) {
    throw Error(
        ExitCode::kFailed,
        fmt::format("{}: {} are free on this disk, checkpoints and adapter need {}: free some, choose "
                    "another --out, or lower --save-limit",
                    options_.out.string(), FormatBytes(*free), FormatBytes(needed)));
  }
}

bool Trainer::AsksForMore() const {
  if (finished_->IsShorterThan(total_steps_)) return true;
  if (!finished_->EndedEarly() || total_steps_ <= finished_->steps) return false;
  std::vector<std::string> damaged;
  const Result<Checkpoint> newest = NewestCheckpoint(options_.out, &damaged);
  return newest.ok() && newest.value().state.position.step > 0 &&
         EndsEarlyOtherwise(options_.eval, newest.value().settings);
}

void Trainer::GoOn() {
  Status(probed_).OrThrow();
  FindCheckpoint();
  Note(fmt::format("--resume: {} holds a finished run of {} steps{}; {} are asked for", options_.out.string(),
                   finished_->steps, finished_->EndedEarly() ? ", which ended early" : "", total_steps_));
  finished_.reset();
}

// Nothing is computed: what differs is said and no reason to refuse.
void Trainer::NoteOtherSettings() {
  std::vector<std::string> damaged;
  const Result<Checkpoint> newest = NewestCheckpoint(options_.out, &damaged);
  if (!newest.ok() || newest.value().state.position.step == 0) return;
  // Fewer steps are no other run than the one that was done.
  const Known known{!data_.rows.empty(), false};
  const auto compared = [&](train::Settings settings) {
    settings.erase("steps");
    settings.erase("warmup_steps");
    return known(std::move(settings), options_);
  };
  const std::vector<std::string> differences =
      Differences(compared(newest.value().settings), compared(Settings()));
  if (differences.empty()) return;
  Note(fmt::format("--resume: the finished run in {} was made with other settings:\n  {}",
                   options_.out.string(), fmt::join(differences, "\n  ")));
}

void Trainer::CompareSettings() {
  resumed_.checkpoint = checkpoint_.folder;
  resumed_.step = checkpoint_.state.position.step;
  const Known known{!data_.rows.empty(), !identity_.model.files.empty()};
  resumed_.differences = Differences(known(checkpoint_.settings, options_), known(Settings(), options_));
  if (resumed_.differences.empty()) return;
  const std::string list = fmt::format("{}", fmt::join(resumed_.differences, "\n  "));
  if (!options_.resume_force) {
    const std::string unread = known.unread();
    throw Error(
        ExitCode::kUsage,
        fmt::format("--resume: {} was made with other settings, model or data:\n  {}\n{}restore them, "
                    "or give --resume-force to go on all the same",
                    checkpoint_.folder.string(), list,
                    unread.empty() ? "" : fmt::format("({} not read yet, and not compared) ", unread)));
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
  for (uint32_t epoch = 0; epoch < epochs_ && largest.planned < kPlannedBatches; ++epoch) {
    FindLargestBatch(options_.compute, shape, planned, data_, EpochOf(epoch), true, kPlannedBatches,
                     &largest);
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

void Trainer::CheckTapCache() {
  if (options_.tap_cache.empty()) return;
  const uint64_t need = model::TapCache::Need(
      StateEntriesOf(spec_, options_.policy, options_.compute.compute, config_, data_.examples).bytes);
  Note(fmt::format("tap cache: {} on disk in {}", FormatBytes(need), options_.tap_cache.string()));
  if (epochs_ <= 1) Note("tap cache: read from the second epoch on; this run has one");
  model::TapCache::Check(options_.tap_cache, need, options_.tap_cache_limit).OrThrow();
}

data::EpochPlan Trainer::EpochOf(int64_t epoch) const {
  return data::PlanEpoch(data_.rows, options_.tokens, options_.seed, static_cast<uint32_t>(epoch)).OrThrow();
}

void Trainer::CountSteps() {
  // Packing differs a little from epoch to epoch, hence so may the number of micro-batches.
  int64_t steps = 0, last = 0;
  const auto more = [&] {
    return options_.max_steps > 0 ? steps < options_.max_steps
                                  : static_cast<double>(epochs_) < options_.epochs;
  };
  for (epochs_ = 0; more(); ++epochs_) {
    const auto batches = static_cast<int64_t>(EpochOf(epochs_).batches.size());
    last = (batches + options_.gradient_accumulation - 1) / options_.gradient_accumulation;
    steps += last;
  }
  // A fraction of the last epoch counts as that fraction of its steps.
  const double missing = static_cast<double>(epochs_) - options_.epochs;
  SetSteps(options_.max_steps > 0
               ? options_.max_steps
               : std::max<int64_t>(1, steps - static_cast<int64_t>(missing * static_cast<double>(last))));
}

void Trainer::SetSteps(int64_t total) {
  total_steps_ = total;
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
  const data::EpochPlan plan = EpochOf(0);
  std::vector<data::Example> examples;
  for (const std::vector<int64_t>& batch : plan.batches) {
    for (const int64_t i : batch) {
      if (static_cast<int64_t>(examples.size()) == options_.ladder.fisher_samples) return examples;
      examples.push_back(data_.examples.Get(i));
    }
  }
  return examples;
}

void Trainer::PlanImportance(const model::Backbone& shape) {
  if (!spec_.ladder || options_.ladder.init != LadderInit::kFisher || checkpoint_.state.position.step > 0)
    return;
  const std::vector<data::Example> examples = FisherExamples();
  const Fisher::Need need = Fisher::Plan(options_.compute, shape, spec_.ladder->taps, examples);
  plan_.items.push_back(ImportanceItem(need, plan_));
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
    for (int tries = 1; !Lock(); ++tries) {
      if (tries == kFolderTries) {
        throw Error(
            ExitCode::kFailed,
            fmt::format("cannot write to {}: it is taken away as often as it is made: choose another --out",
                        options_.out.string()));
      }
      MakeFolders(options_.out).OrThrow();
    }
    RefuseAnEarlierRun(options_.out);
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
    LoadCheckpoint(checkpoint_, &*adapter_, &*optimizer_).OrThrow();
    position_ = checkpoint_.state.position;
    epoch_done_ = static_cast<double>(position_.epoch);
    if (position_.batch > 0) {
      const auto batches = static_cast<double>(EpochOf(position_.epoch).batches.size());
      epoch_done_ += static_cast<double>(position_.batch) / batches;
    }
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
  Calibrate(*exec_, *backbone_, EpochOf(0), data_.examples, static_cast<float>(options_.ladder.output_scale),
            ladder);
  Note(fmt::format("calibrated: output scale {:.2f}", ladder->spec().output_scale));
}

train::Settings Trainer::Settings() const {
  train::Settings settings =
      RunSettings(options_, spec_, config_, identity_, {total_steps_, warmup_steps_, base_rate_});
  if (!identity_.eval_data.empty()) {
    AddEvaluation(options_, identity_.eval_data, &settings);
  } else if (data_.rows.empty()) {
    AddEarlyStopping(options_.eval, &settings);  // the rest is not known yet
  }
  return settings;
}

}  // namespace rung::train
