#include "train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "kernels/cpu/peak.h"
#include "model/adapter.h"
#include "train/calibrate.h"
#include "train/step.h"

namespace rung::train {
namespace {

uint64_t Hash(uint64_t h, const void* data, size_t size) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < size; ++i) h = (h ^ bytes[i]) * 0x100000001b3ull;
  return h;
}

// Of the token ids and learn marks: what training really sees of a data file.
uint64_t HashOf(const EncodedData& data) {
  uint64_t h = 0xcbf29ce484222325ull;
  for (const data::Example& example : data.examples) {
    h = Hash(h, example.ids.data(), example.ids.size() * sizeof(int32_t));
    h = Hash(h, example.learn.data(), example.learn.size());
  }
  return h;
}

uint64_t DataBytes(const EncodedData& data) {
  uint64_t bytes = 0;
  for (const data::Example& e : data.examples)
    bytes += e.ids.capacity() * sizeof(int32_t) + e.learn.capacity() + 96;
  return bytes;
}

}  // namespace

Trainer::Trainer(const TrainOptions& options, const RunEvents& events, const std::atomic<bool>& interrupt)
    : options_(options), events_(events), interrupt_(interrupt) {}

void Trainer::Note(const std::string& line) const {
  if (events_.on_note) events_.on_note(line);
}

void Trainer::Prepare() {
  config_ = model::ReadConfig(options_.model).OrThrow();
  spec_ = ResolveLadder(options_, config_).OrThrow();
  base_rate_ = ResolveLearningRate(options_, spec_);
  const int64_t longest = config_.window > 0 ? std::min(config_.window, config_.context) : config_.context;
  if (options_.max_length > longest) {
    throw Error(ExitCode::kUsage, fmt::format("--max-length {}: this model attends over {} tokens at most",
                                              options_.max_length, longest));
  }
  text_ = std::make_unique<model::ModelText>(
      model::LoadText(options_.model, options_.raw, "", config_.V).OrThrow());
  data_ = LoadData(options_.data, *text_, options_);
  ReportEncoding(options_.data, data_.report);
  if (!options_.eval_data.empty()) {
    eval_data_ = LoadData(options_.eval_data, *text_, options_);
    ReportEncoding(options_.eval_data, eval_data_.report);
  }
  CountSteps();
  FindCheckpoint();
  Plan();
}

void Trainer::ReportEncoding(const Path& path, const data::EncodeReport& report) const {
  for (const data::EncodeReport::Dropped& dropped : report.dropped) {
    Note(fmt::format("{}:{}: left out: {}", path.string(), dropped.row, dropped.reason));
  }
  if (report.truncated > 0) {
    Note(fmt::format("{}: {} records are longer than --max-length {} and were cut", path.string(),
                     report.truncated, options_.max_length));
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
  if (checkpoint_.position.step == 0) {
    Note(fmt::format("--resume: no checkpoint in {}: starting from the beginning", options_.out.string()));
  } else if (checkpoint_.fingerprint != Fingerprint()) {
    throw Error(ExitCode::kUsage,
                fmt::format("--resume: {} was made with other settings, model or data:\n  then {}\n  now  {}",
                            checkpoint_.folder.string(), checkpoint_.fingerprint, Fingerprint()));
  }
}

void Trainer::Plan() {
  model::BackboneOptions backbone = options_.backbone;
  backbone.positions = options_.max_length;
  const model::Backbone shape = model::Backbone::PlannedFrom(options_.model, backbone).OrThrow();
  const model::Ladder planned_ladder = model::Ladder::Planned(config_, spec_, options_.max_length);
  LargestBatch largest, largest_eval;
  for (uint32_t epoch = 0; epoch < epochs_; ++epoch) {
    const data::EpochPlan order =
        data::PlanEpoch(data_.rows, options_.tokens, options_.seed, epoch).OrThrow();
    FindLargestBatch(options_.compute, shape, planned_ladder, data_, order, true, &largest);
  }
  if (!eval_data_.rows.empty()) {
    const data::EpochPlan order = data::PlanInOrder(eval_data_.rows, options_.tokens).OrThrow();
    FindLargestBatch(options_.compute, shape, planned_ladder, eval_data_, order, false, &largest_eval);
  }
  slab_bytes_ = std::max(largest.bytes, largest_eval.bytes);
  const PlanInputs inputs{TokenizerBytes(config_.V), DataBytes(data_) + DataBytes(eval_data_), true};
  plan_ = MakePlan(options_.compute.context, options_.compute.compute, shape, planned_ladder, largest.batch,
                   inputs);
  if (slab_bytes_ > largest.bytes) {
    plan_.items.push_back(
        {"evaluation", slab_bytes_ - largest.bytes, "arena beyond the training step's", "--tokens"});
  }
  if (events_.on_plan) events_.on_plan(plan_, options_, spec_);
  const uint64_t limit = options_.memory_limit > 0 ? options_.memory_limit : AvailableMemory();
  if (limit > 0 && plan_.total() > limit) {
    throw Error(ExitCode::kNoMemory,
                plan_.Refusal(limit, options_.memory_limit > 0 ? "--memory-limit" : "free memory"));
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
  ladder_ = model::Ladder::Make(config_, spec_, options_.seed, true, options_.max_length);
  MakeFolder();
  Reserve(slab_bytes_);
  optimizer_.emplace(options_.optimizer, ladder_->parameter_count());
  log_.emplace(options_.out);
  const cpu::Context& context = options_.compute.context;
  peak_flops_ = options_.compute.compute == DType::kBf16 ? cpu::MeasurePeakFlops<Bf16>(context)
                                                         : cpu::MeasurePeakFlops<float>(context);
  ResumeOrCalibrate();
}

void Trainer::MakeFolder() {
  std::error_code error;
  std::filesystem::create_directories(options_.out, error);
  if (error) {
    throw Error(ExitCode::kFailed,
                fmt::format("cannot create {}: {}", options_.out.string(), error.message()));
  }
  RemoveUnfinishedCheckpoints(options_.out);
  // Kept checkpoints, one being written, and the adapter.
  const auto n = static_cast<uint64_t>(ladder_->parameter_count());
  const uint64_t needed = n * sizeof(float) * (3 * static_cast<uint64_t>(options_.save_limit + 1) + 1);
  const std::filesystem::space_info space = std::filesystem::space(options_.out, error);
  if (!error && space.available < needed) {
    throw Error(ExitCode::kFailed,
                fmt::format("{}: {} are free on this disk, checkpoints and adapter need {}: free "
                            "some, choose another --out, or lower --save-limit",
                            options_.out.string(), FormatBytes(space.available), FormatBytes(needed)));
  }
}

void Trainer::Reserve(size_t bytes) {
  if (slab_ && bytes <= slab_->bytes()) return;
  exec_.reset();
  slab_.reset();  // before its successor is made
  slab_ = std::make_unique<Slab>(bytes);
  exec_.emplace(Arena(slab_->base(), slab_->bytes()), options_.compute.context, options_.compute.compute);
}

void Trainer::ResumeOrCalibrate() {
  if (checkpoint_.position.step > 0) {
    Status loaded = LoadCheckpoint(checkpoint_, &*ladder_, &*optimizer_);
    if (!loaded.ok()) throw Error(loaded.failure().code, loaded.failure().message);
    position_ = checkpoint_.position;
    first_step_ = position_.step;
    Note(fmt::format("resumed from {}", checkpoint_.folder.string()));
    return;
  }
  const data::EpochPlan plan = data::PlanEpoch(data_.rows, options_.tokens, options_.seed, 0).OrThrow();
  Calibrate(*exec_, *backbone_, plan, data_.examples, &*ladder_);
  if (options_.output_scale > 0) ladder_->spec().output_scale = static_cast<float>(options_.output_scale);
  Note(fmt::format("calibrated: output scale {:.2f}", ladder_->spec().output_scale));
}

// Everything that changes the resulting bits, as text that a person can compare.
std::string Trainer::Fingerprint() const {
  std::string taps;
  for (const int64_t tap : spec_.taps) taps += fmt::format("{}{}", taps.empty() ? "" : ",", tap);
  return fmt::format(
      "model={}x{}x{} data={:016x} seed={} tokens={} max_length={} accumulation={} steps={} warmup={} "
      "schedule={} "
      "lr={:.6g} betas={:.6g},{:.6g} decay={:.6g} clip={:.6g} taps={} rungs={} width={} gate={} tap_norm={} "
      "scale={:.6g} quantize={}{} compute={} isa={} threads={}",
      config_.L, config_.C, config_.V, HashOf(data_), options_.seed, options_.tokens, options_.max_length,
      options_.gradient_accumulation, total_steps_, warmup_steps_, NameOf(options_.schedule), base_rate_,
      options_.optimizer.beta1, options_.optimizer.beta2, options_.optimizer.weight_decay,
      options_.optimizer.max_grad_norm, taps, spec_.rungs, spec_.S, static_cast<int>(spec_.gate),
      static_cast<int>(spec_.tap_norm), options_.output_scale, static_cast<int>(options_.backbone.quantize),
      options_.backbone.quantize_embeddings ? "+embeddings" : "", NameOf(options_.compute.compute),
      cpu::NameOf(options_.compute.context.isa), options_.compute.context.threads);
}

}  // namespace rung::train
