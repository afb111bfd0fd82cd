#include "train/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "train/optimizer.h"
#include "train/step.h"

namespace rung::train {
namespace {

// The program itself: code, libraries, OpenMP's stacks, the C++ heap at rest. Measured by `rung version`
// under the kernel's VmHWM, release build, glibc 2.36.
constexpr uint64_t kProcessBytes = uint64_t{22} << 20;
// oneDNN's generated code and packing buffers for f32 products, per thread.
constexpr uint64_t kLibraryBytesPerThread = uint64_t{4} << 20;

// The rows of the step's arena. A use that the method has not is left out; one that it has is worth a row
// even where it is not live at the peak.
void AddStepItems(const model::AdapterSpec& spec, bool training, MemoryPlan* plan) {
  const bool crosses = training && (spec.lora || (spec.ladder && spec.ladder->rejoin > 0));
  const struct {
    Use use;
    bool shown;
    const char* option;
  } rows[] = {{Use::kTaps, spec.ladder.has_value(), "--tokens, --taps, --tap-storage int8, --tap-map pooled"},
              {Use::kRungs, spec.ladder.has_value(), "--tokens, --width, --recompute-rungs"},
              {Use::kSaved, crosses, "--tokens, --recompute, --layers, --rejoin"},
              {Use::kLowRank, spec.lora.has_value(), "--tokens, --lora-r"},
              {Use::kBackbone, true, "--tokens"},
              {Use::kHead, true, "--tokens"}};
  for (const auto& row : rows) {
    if (!row.shown) continue;
    plan->items.push_back({NameOf(row.use), plan->step.peak.by_use[static_cast<int>(row.use)],
                           "of the step's arena, at its peak", row.option});
  }
}

// A cosine and a sine for each pair of channels that turns: of the model's heads, of windowed layers that
// turn otherwise, and of rungs that know positions by them.
int64_t AngleColumns(const model::Backbone& backbone, const model::AdapterSpec& spec) {
  const model::Config& config = backbone.config();
  const auto columns = [&](const model::RopeConfig& rope) {
    return rope.rotary > 0 ? rope.rotary : config.D;
  };
  int64_t sum = config.no_rope ? 0 : columns(config.rope);
  if (config.local_rope && !config.no_rope) sum += columns(*config.local_rope);
  const bool turns = spec.ladder && spec.ladder->kind == model::RungKind::kDecoder && spec.ladder->rotary;
  return sum + (turns ? spec.ladder->head_dim : 0);
}

}  // namespace

data::Batch UniformBatch(int64_t tokens, int64_t sequence) {
  data::Batch batch;
  batch.starts.push_back(0);
  for (int64_t begin = 0; begin < tokens; begin += sequence) {
    // A row for each id but the last.
    std::vector<data::TokenWord> words(static_cast<size_t>(std::min(tokens - begin, sequence)) + 1,
                                       data::WordOf(0, true));
    words.front() = data::WordOf(0, false);
    data::AppendSample(words, static_cast<int64_t>(batch.records.size()), &batch);
  }
  return batch;
}

StepPlan PlanStep(const cpu::Context& context, DType compute, const model::Backbone& backbone,
                  const model::Adapter* adapter, const data::Batch& batch, bool learn,
                  const model::CrossingIo* crossing) {
  Exec ex = Exec::Planning(context, compute);
  model::BatchInput input(batch);
  input.set_crossing(crossing);
  input.set_draw(learn ? 1 : 0);  // a step that learns drops out
  const Tensor loss = View(static_cast<float*>(nullptr), 1, input.target_count());
  const Tensor best = View(static_cast<int32_t*>(nullptr), 1, input.target_count());
  const Out best_out{best};
  Step(ex, backbone, adapter, input, learn, Out{loss}, learn ? nullptr : &best_out);
  return {ex.arena().peak(), ex.fingerprint(), ex.flops()};
}

uint64_t MemoryPlan::total() const {
  uint64_t sum = 0;
  for (const PlanItem& item : items) sum += item.bytes;
  return sum;
}

std::string MemoryPlan::Refusal(uint64_t limit, const std::string& limit_name) const {
  std::vector<const PlanItem*> largest;
  for (const PlanItem& item : items) largest.push_back(&item);
  std::stable_sort(largest.begin(), largest.end(),
                   [](const PlanItem* a, const PlanItem* b) { return a->bytes > b->bytes; });
  std::string text = fmt::format("plan: {} needed, {} is {}\n  largest:", FormatBytes(total()), limit_name,
                                 FormatBytes(limit));
  std::string hints;
  for (size_t i = 0; i < std::min<size_t>(3, largest.size()); ++i) {
    text += fmt::format("{} {} {}", i ? "," : "", largest[i]->name, FormatBytes(largest[i]->bytes));
    if (!largest[i]->option.empty()) hints += fmt::format("\n  {}: {}", largest[i]->name, largest[i]->option);
  }
  return text + "\n  to shrink them:" + (hints.empty() ? " a smaller model" : hints);
}

MemoryPlan MakePlan(const cpu::Context& context, DType compute, const model::Backbone& backbone,
                    const model::Adapter& adapter, const data::Batch& batch, const PlanInputs& inputs) {
  MemoryPlan plan;
  plan.step = PlanStep(context, compute, backbone, &adapter, batch, inputs.training);
  const model::AdapterSpec spec = adapter.spec();
  const auto n = static_cast<uint64_t>(adapter.parameter_count());
  const auto add = [&](const char* name, uint64_t bytes, std::string note, const char* option) {
    if (bytes > 0) plan.items.push_back({name, bytes, std::move(note), option});
  };

  std::string formats;
  for (const auto& [format, bytes] : backbone.weight_totals().bytes) {
    formats += fmt::format("{}{} {}", formats.empty() ? "" : ", ", format, FormatBytes(bytes));
  }
  add("weights", backbone.weight_totals().total, formats,
      "a smaller model, or --quantize nf4 --quantize-embeddings");
  const char* smaller = spec.ladder ? "--width, --rungs" : "--lora-r, --layers";
  add("parameters", n * 4, fmt::format("{} in f32", n), smaller);
  if (inputs.training) {
    const bool small_moments = inputs.optimizer.moments == Moments::k8Bit;
    add("gradients", n * 4, "f32", smaller);
    add("optimizer", Optimizer::StateBytes(inputs.optimizer.moments, adapter.params().begins),
        small_moments ? "AdamW, two 8-bit moments" : "AdamW, two f32 moments",
        small_moments ? smaller : "--optimizer adamw8bit");
  }
  AddStepItems(spec, inputs.training, &plan);
  const uint64_t angles =
      static_cast<uint64_t>(backbone.positions() * AngleColumns(backbone, spec)) * sizeof(float);
  const auto C = static_cast<uint64_t>(backbone.config().C);
  const uint64_t calibration = spec.ladder ? 2 * C * spec.ladder->taps.size() * sizeof(float) : 0;
  add("tables", angles + calibration, "RoPE angles, tap statistics", "--max-length");
  add("tokenizer and data", inputs.tokenizer_bytes + inputs.data_bytes, "vocabulary, encoded examples", "");
  add("program", kProcessBytes + kLibraryBytesPerThread * static_cast<uint64_t>(context.threads),
      "code, libraries, their buffers", "--threads");
  return plan;
}

}  // namespace rung::train
