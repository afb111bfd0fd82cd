#include "train/plan_differences.h"

#include <fmt/format.h>

#include <cmath>

#include "base/text.h"

namespace rung::train {
namespace {

// "+1.5 GiB", "-20.0 MiB".
std::string Signed(double bytes) {
  return fmt::format("{}{}", bytes < 0 ? "-" : "+",
                     FormatBytes(static_cast<uint64_t>(std::llround(std::abs(bytes)))));
}

class Reasons {
 public:
  Reasons(const model::Config& config, const TrainOptions& options, const PlannedRun& run,
          const FormulaMemory& formula)
      : config_(config),
        options_(options),
        run_(run),
        formula_(formula),
        plan_(ColumnOf("", run.memory)),
        n_(static_cast<double>(run.parameters)),
        tokens_(static_cast<double>(options.tokens)) {}

  std::vector<Difference> OfLora() {
    AddStates();
    Add(NameOf(Use::kSaved), formula_.linear + formula_.attention, SavedActivations());
    Add(NameOf(Use::kLowRank), formula_.low_rank, LowRank());
    Add(NameOf(Use::kBackbone), 0, "one layer's scratch and gradients while it runs; not in the formula");
    AddRest("RoPE angles");
    return std::move(differences_);
  }

  std::vector<Difference> OfLadder() {
    AddStates();
    Add(NameOf(Use::kTaps), formula_.taps, Taps());
    Add(NameOf(Use::kRungs), formula_.linear + formula_.attention, Rungs());
    Add(NameOf(Use::kSaved), 0, "layers above the joining point are crossed; not in the formula");
    Add(NameOf(Use::kLowRank), 0, "pairs above the joining point; not in the formula");
    Add(NameOf(Use::kBackbone), formula_.transient, FrozenLayer());
    AddRest("RoPE angles, tap statistics");
    return std::move(differences_);
  }

 private:
  double Plan(const char* item) const { return static_cast<double>(plan_.Bytes(item)); }

  void AddStates() {
    Add("weights", formula_.weights, Weights());
    Add("parameters", formula_.parameters, fmt::format("f32; the formula has bf16: {}", Signed(2 * n_)));
    Add("gradients", formula_.gradients, fmt::format("f32; the formula has bf16: {}", Signed(2 * n_)));
    Add("optimizer", formula_.optimizer, OptimizerState());
  }

  void AddRest(const char* tables) {
    Add(NameOf(Use::kHead), 0, Head());
    Add("tables", 0, fmt::format("{}; not in the formula", tables));
    Add("tokenizer and data", 0, "the vocabulary; not in the formula");
    Add("program", 0, "code, libraries and their buffers; not in the formula");
  }

  void Add(const char* item, double formula, std::string reason) {
    const auto bytes = static_cast<uint64_t>(std::llround(formula));
    if (plan_.Bytes(item) == bytes) return;
    differences_.push_back({"", "", item, plan_.Bytes(item), bytes, std::move(reason)});
  }

  std::string Weights() const {
    const double ends = static_cast<double>(config_.V * config_.C * (config_.tied_head ? 1 : 2));
    const double wider = static_cast<double>(run_.end_bytes) - ends / 2;
    const double rest = Plan("weights") - formula_.weights - wider;
    return fmt::format(
        "{} of {} x {} at {:.3g} bits a number instead of 4: {}; scales of 4-bit blocks, norms: {}",
        config_.tied_head ? "the embedding" : "embedding and head", config_.V, config_.C,
        8.0 * static_cast<double>(run_.end_bytes) / ends, Signed(wider), Signed(rest));
  }

  std::string OptimizerState() const {
    const double difference = Plan("optimizer") - formula_.optimizer;
    if (options_.optimizer.moments == Moments::k8Bit) {
      return fmt::format(
          "two 8-bit moments with their scales, and the parameters are f32 already; the formula has an f32 "
          "copy besides: {}",
          Signed(difference));
    }
    return fmt::format(
        "two f32 moments (8n); the formula has 8-bit moments and an f32 copy of the parameters (6n): {}",
        Signed(difference));
  }

  std::string SavedActivations() const {
    const double saved = Plan(NameOf(Use::kSaved));
    const int64_t first = run_.spec.first_crossed(config_.L), crossed = config_.L - first;
    const double channels = tokens_ * static_cast<double>(config_.C * crossed);
    const double below = formula_.linear * static_cast<double>(first) / static_cast<double>(config_.L);
    std::string reason = fmt::format("attention runs in blocks and keeps no (s,s) matrices: {}; ",
                                     Signed(-formula_.attention));
    if (first > 0) reason += fmt::format("layers below {} keep nothing: {}; ", first, Signed(-below));
    return reason + fmt::format(
                        "{:.1f} bytes a token and channel of a layer ({}-bit activations, f32 residual "
                        "stream, an MLP of {:.2f} h{}) instead of 34: {}",
                        saved / channels, 8 * SizeOf(options_.compute.compute),
                        static_cast<double>(config_.F) / static_cast<double>(config_.C),
                        config_.gated_mlp ? ", gated" : "", Signed(saved - (formula_.linear - below)));
  }

  std::string Taps() const {
    const double taps = static_cast<double>(run_.spec.ladder->taps.size());
    const double numbers = tokens_ * static_cast<double>(config_.C) * taps;
    return fmt::format("{:.3g} bytes a token and channel of a tap, live at the step's peak, instead of 2",
                       Plan(NameOf(Use::kTaps)) / numbers);
  }

  std::string Rungs() const {
    const model::LadderSpec& ladder = *run_.spec.ladder;
    const double rungs = Plan(NameOf(Use::kRungs));
    return fmt::format(
        "attention keeps no (s,s) matrices: {}; {:.1f} bytes a token and channel of a rung, "
        "live at the step's peak, instead of 34: {}",
        Signed(-formula_.attention), rungs / (tokens_ * static_cast<double>(ladder.S * ladder.rungs)),
        Signed(rungs - formula_.linear));
  }

  std::string FrozenLayer() const {
    return fmt::format(
        "the step's peak is at \"{}\"; a frozen layer keeps nothing and attention has no (s,s) matrices",
        run_.memory.step.peak.at);
  }

  std::string LowRank() const {
    const model::LoraSpec& lora = *run_.spec.lora;
    const size_t pairs = lora.layers.size() * lora.targets.size();
    return fmt::format(
        "(N,R) states of {} pairs in f32: {}, and scratch of one pair; the formula has s b n / h", pairs,
        FormatBytes(static_cast<uint64_t>(options_.tokens * lora.R) * pairs * sizeof(float)));
  }

  std::string Head() const {
    return fmt::format(
        "the loss in vocabulary chunks; not in the formula, nor are logits: (N,V) in f32 would be {}",
        FormatBytes(static_cast<uint64_t>(options_.tokens * config_.V) * sizeof(float)));
  }

  const model::Config& config_;
  const TrainOptions& options_;
  const PlannedRun& run_;
  const FormulaMemory& formula_;
  PlanColumn plan_;
  double n_, tokens_;
  std::vector<Difference> differences_;
};

}  // namespace

std::vector<Difference> LoraDifferences(const model::Config& config, const TrainOptions& options,
                                        const PlannedRun& run, const FormulaMemory& formula) {
  return Reasons(config, options, run, formula).OfLora();
}

std::vector<Difference> LadderDifferences(const model::Config& config, const TrainOptions& options,
                                          const PlannedRun& run, const FormulaMemory& formula) {
  return Reasons(config, options, run, formula).OfLadder();
}

}  // namespace rung::train
