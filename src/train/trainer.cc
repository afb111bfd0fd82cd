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

// Of a vocabulary entry in memory: text, hash slots, merge.
constexpr uint64_t kBytesPerToken = 320;

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
  if (config_.window > 0 && options_.max_length > config_.window) {
    throw Error(ExitCode::kUsage,
                fmt::format("--max-length {}: this model attends {} tokens back; longer examples "
                            "are not supported",
                            options_.max_length, config_.window));
  }
  text_ = std::make_unique<model::ModelText>(model::LoadText(options_.model, options_.raw, "").OrThrow());
  data_ = LoadData(options_.data, *text_, options_);
  if (!options_.eval_data.empty()) eval_data_ = LoadData(options_.eval_data, *text_, options_);
  for (const data::EncodeReport::Dropped& dropped : data_.report.dropped) {
    Note(fmt::format("{}:{}: left out: {}", options_.data.string(), dropped.row, dropped.reason));
  }
  CountSteps();
  Plan();
}

void Trainer::Plan() {
  model::BackboneOptions backbone = options_.backbone;
  backbone.positions = options_.max_length;
  // A GGUF file is only mapped: its real formats are free to know. A folder is planned by its shapes.
  const bool mapped = options_.model.extension() == ".gguf";
  if (mapped) backbone_ = model::Backbone::Load(options_.model, backbone).OrThrow();
  std::optional<model::Backbone> planned;
  if (!mapped) planned = model::Backbone::Planned(config_, backbone).OrThrow();
  const model::Backbone& shape = mapped ? *backbone_ : *planned;

  const model::Ladder planned_ladder = model::Ladder::Planned(config_, spec_);
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
  const PlanInputs inputs{static_cast<uint64_t>(config_.V) * kBytesPerToken,
                          DataBytes(data_) + DataBytes(eval_data_), true};
  plan_ = MakePlan(options_.compute.context, options_.compute.compute, shape, planned_ladder, largest.batch,
                   inputs);
  slab_bytes_ = std::max(largest.bytes, largest_eval.bytes);
  if (events_.on_plan) events_.on_plan(plan_, options_, spec_);
  const uint64_t limit = options_.memory_limit > 0 ? options_.memory_limit : AvailableMemory();
  if (limit > 0 && plan_.total() > limit) {
    throw Error(ExitCode::kNoMemory,
                plan_.Refusal(limit, options_.memory_limit > 0 ? "--memory-limit" : "free memory"));
  }
}

void Trainer::CountSteps() {
  // Packing differs a little from epoch to epoch, hence so may the number of micro-batches.
  epochs_ = static_cast<uint32_t>(std::ceil(options_.epochs));
  int64_t steps = 0, last = 0;
  for (uint32_t epoch = 0; epoch < epochs_; ++epoch) {
    const data::EpochPlan plan = data::PlanEpoch(data_.rows, options_.tokens, options_.seed, epoch).OrThrow();
    const auto batches = static_cast<int64_t>(plan.batches.size());
    last = (batches + options_.gradient_accumulation - 1) / options_.gradient_accumulation;
    steps += last;
  }
  // A fraction of the last epoch counts as that fraction of its steps.
  const double missing = std::ceil(options_.epochs) - options_.epochs;
  total_steps_ = std::max<int64_t>(1, steps - static_cast<int64_t>(missing * static_cast<double>(last)));
  if (options_.max_steps > 0) total_steps_ = options_.max_steps;
  warmup_steps_ = static_cast<int64_t>(std::ceil(options_.warmup_ratio * static_cast<double>(total_steps_)));
}

void Trainer::Start() {
  if (!backbone_) {
    model::BackboneOptions backbone = options_.backbone;
    backbone.positions = options_.max_length;
    backbone_ = model::Backbone::Load(options_.model, backbone).OrThrow();
  }
  std::error_code error;
  std::filesystem::create_directories(options_.out, error);
  if (error) {
    throw Error(ExitCode::kFailed,
                fmt::format("cannot create {}: {}", options_.out.string(), error.message()));
  }
  Reserve(slab_bytes_);
  ladder_ = model::Ladder::Make(config_, spec_, options_.seed, true);
  optimizer_.emplace(options_.optimizer, ladder_->parameter_count());
  log_.emplace(options_.out);
  const cpu::Context& context = options_.compute.context;
  peak_flops_ = options_.compute.compute == DType::kBf16 ? cpu::MeasurePeakFlops<Bf16>(context)
                                                         : cpu::MeasurePeakFlops<float>(context);
  ResumeOrCalibrate();
}

void Trainer::Reserve(size_t bytes) {
  if (slab_ && bytes <= slab_->bytes()) return;
  exec_.reset();
  slab_.reset();  // before its successor is made
  slab_ = std::make_unique<Slab>(bytes);
  exec_.emplace(Arena(slab_->base(), slab_->bytes()), options_.compute.context, options_.compute.compute);
}

void Trainer::ResumeOrCalibrate() {
  const Checkpoint checkpoint = NewestCheckpoint(options_.out).OrThrow();
  if (options_.resume && checkpoint.position.step > 0) {
    if (checkpoint.fingerprint != Fingerprint()) {
      throw Error(
          ExitCode::kUsage,
          fmt::format("--resume: {} was made with other settings, model or data:\n  then {}\n  now  {}",
                      checkpoint.folder.string(), checkpoint.fingerprint, Fingerprint()));
    }
    Status loaded = LoadCheckpoint(checkpoint, &*ladder_, &*optimizer_);
    if (!loaded.ok()) throw Error(loaded.failure().code, loaded.failure().message);
    position_ = checkpoint.position;
    first_step_ = position_.step;
    Note(fmt::format("resumed from {}", checkpoint.folder.string()));
    return;
  }
  if (checkpoint.position.step > 0 || std::filesystem::exists(options_.out / "adapter_config.json")) {
    throw Error(ExitCode::kUsage,
                fmt::format("{} holds an earlier run: go on with --resume, or choose another --out",
                            options_.out.string()));
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
      "lr={:.6g} decay={:.6g} clip={:.6g} taps={} rungs={} width={} gate={} tap_norm={} compute={} isa={} "
      "threads={}",
      config_.L, config_.C, config_.V, HashOf(data_), options_.seed, options_.tokens, options_.max_length,
      options_.gradient_accumulation, total_steps_, warmup_steps_, NameOf(options_.schedule), base_rate_,
      options_.optimizer.weight_decay, options_.optimizer.max_grad_norm, taps, spec_.rungs, spec_.S,
      static_cast<int>(spec_.gate), static_cast<int>(spec_.tap_norm), options_.output_scale,
      static_cast<int>(options_.backbone.quantize),
      options_.backbone.quantize_embeddings ? "+embeddings" : "", NameOf(options_.compute.compute),
      cpu::NameOf(options_.compute.context.isa), options_.compute.context.threads);
}

}  // namespace rung::train
