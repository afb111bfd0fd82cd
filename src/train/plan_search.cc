#include "train/plan_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "train/fisher.h"
#include "train/state_cache.h"

namespace rung::train {
namespace {

// The policies, cheapest first: of a rung's second forward pass, of a block's, then of precision.
struct Policy {
  const char* flags;
  bool (*helps)(const PlanModel& model, const TrainOptions& options, const model::AdapterSpec& spec);
  void (*apply)(TrainOptions* options);
};

constexpr std::array<Policy, 5> kPolicies = {{
    {"--recompute-rungs",
     [](const PlanModel&, const TrainOptions& o, const model::AdapterSpec& spec) {
       return spec.ladder && o.policy.rungs == model::RungMemory::kKeep;
     },
     [](TrainOptions* o) { o->policy.rungs = model::RungMemory::kRecompute; }},
    {"--recompute",
     [](const PlanModel& m, const TrainOptions& o, const model::AdapterSpec& spec) {
       return spec.first_crossed(m.config().L) < m.config().L && o.policy.blocks == model::BlockMemory::kKeep;
     },
     [](TrainOptions* o) { o->policy.blocks = model::BlockMemory::kRecompute; }},
    {"--tap-storage int8",
     [](const PlanModel&, const TrainOptions& o, const model::AdapterSpec& spec) {
       return spec.ladder && spec.ladder->tap_map == model::TapMap::kFull &&
              o.policy.taps == model::TapStorage::kCompute;
     },
     [](TrainOptions* o) { o->policy.taps = model::TapStorage::kInt8; }},
    {"--optimizer adamw8bit",
     [](const PlanModel&, const TrainOptions& o, const model::AdapterSpec&) {
       return o.optimizer.moments == Moments::kF32;
     },
     [](TrainOptions* o) { o->optimizer.moments = Moments::k8Bit; }},
    {"--quantize-embeddings",
     [](const PlanModel& m, const TrainOptions& o, const model::AdapterSpec&) {
       return m.can_quantize_ends() && o.backbone.recipe.matrices != model::Quantize::kNone &&
              o.backbone.recipe.embeddings == model::Quantize::kNone;
     },
     [](TrainOptions* o) { o->backbone.recipe.embeddings = o->backbone.recipe.matrices; }},
}};

PolicySet SetOf(std::vector<int> policies) {
  PolicySet set;
  for (const int p : policies) {
    set.flags += fmt::format("{}{}", set.flags.empty() ? "" : " ", kPolicies[static_cast<size_t>(p)].flags);
  }
  set.policies = std::move(policies);
  return set;
}

int64_t EndBytes(const model::Backbone& backbone) {
  const auto bytes = [](const format::Matrix& m) { return format::DataBytes(m.format, m.rows, m.cols); };
  return bytes(backbone.embedding()) + (backbone.config().tied_head ? 0 : bytes(backbone.head()));
}

// Of an entry of one row, as the cache lays it out.
uint64_t CacheBytes(const model::AdapterSpec& spec, const TrainOptions& options, const model::Config& config,
                    bool learned) {
  if (!spec.ladder) return 0;
  const data::Example example{{0, 0}, {0, static_cast<uint8_t>(learned)}, 0};
  return StateEntriesOf(spec, options.policy, options.compute.compute, config,
                        data::Examples(std::span(&example, 1)))
      .bytes.front();
}

// An example of so many rows.
data::Example AllLearned(int64_t rows) {
  const auto ids = static_cast<size_t>(rows) + 1;
  data::Example example{std::vector<int32_t>(ids), std::vector<uint8_t>(ids, 1), 0};
  example.learn[0] = 0;
  return example;
}

// Where the largest batch lies, in steps of kFitStep: bytes grow with tokens nearly in a straight line. So
// every other guess is on the line through both ends, which saves most plans, and the others halve, which
// bounds their number.
class Bracket {
 public:
  bool closed() const { return below_.steps + 1 >= above_.steps; }
  void Add(int64_t steps, uint64_t bytes, uint64_t limit) {
    (bytes <= limit ? below_ : above_) = {steps, static_cast<double>(bytes)};
    ++count_;
  }
  int64_t Next(uint64_t limit) const {
    const int64_t least = below_.steps + 1, most = above_.steps - 1;
    if (above_.bytes == 0.0) return std::min(kGrowth * below_.steps, most);
    if (count_ % 2 == 0) return below_.steps + (above_.steps - below_.steps) / 2;
    const double share = (static_cast<double>(limit) - below_.bytes) / (above_.bytes - below_.bytes);
    const auto guess = static_cast<int64_t>(share * static_cast<double>(above_.steps - below_.steps));
    return std::clamp(below_.steps + guess, least, most);
  }

 private:
  static constexpr int64_t kGrowth = 8;
  struct End {
    int64_t steps;
    double bytes;  // 0: not planned
  };
  End below_{0, 0.0}, above_{kMostTokens / kFitStep + 1, 0.0};
  int count_ = 0;
};

}  // namespace

Result<PlanModel> PlanModel::Open(const Path& path) {
  Result<model::Config> config = model::ReadConfig(path);
  if (!config.ok()) return config.failure();
  PlanModel model(std::move(config).value());
  const model::Recipe ends{model::Quantize::kNf4, model::Quantize::kNf4, {}};
  model.can_quantize_ends_ = model::CheckRecipe(ends, path, {"", "--quantize-embeddings", ""}).ok();
  model.path_ = path;
  return model;
}

Result<model::Backbone> PlanModel::Plan(const model::BackboneOptions& options) const {
  return path_.empty() ? model::Backbone::Planned(config_, options)
                       : model::Backbone::PlannedFrom(path_, options);
}

Result<PlannedRun> PlanRun(const PlanModel& model, const TrainOptions& options, int64_t sequence) {
  const model::Config& config = model.config();
  Result<model::AdapterSpec> spec = ResolveAdapter(options, config);
  if (!spec.ok()) return spec.failure();
  model::BackboneOptions backbone_options = options.backbone;
  backbone_options.positions = options.max_length;
  const Result<model::Backbone> backbone = model.Plan(backbone_options);
  if (!backbone.ok()) return backbone.failure();
  model::Adapter adapter = model::Adapter::Planned(config, spec.value(), options.max_length);
  adapter.policy = options.policy;
  const data::Batch batch = UniformBatch(options.tokens, sequence);
  const PlanInputs inputs{TokenizerBytes(config.V), 0, true, options.optimizer};
  MemoryPlan plan =
      MakePlan(options.compute.context, options.compute.compute, backbone.value(), adapter, batch, inputs);
  if (spec.value().ladder && options.ladder.init == LadderInit::kFisher) {
    const data::Example longest = AllLearned(sequence);
    const std::vector<int64_t>& taps = spec.value().ladder->taps;
    plan.items.push_back(
        ImportanceItem(Fisher::Plan(options.compute, backbone.value(), taps, {&longest, 1}), plan));
  }
  const uint64_t row = CacheBytes(spec.value(), options, config, false);
  return PlannedRun{std::move(plan),
                    adapter.spec(),
                    adapter.parameter_count(),
                    EndBytes(backbone.value()),
                    row,
                    CacheBytes(spec.value(), options, config, true) - row};
}

TrainOptions PolicySet::Apply(TrainOptions options) const {
  for (const int p : policies) kPolicies[static_cast<size_t>(p)].apply(&options);
  return options;
}

std::vector<PolicySet> PolicySets(const PlanModel& model, const TrainOptions& options,
                                  const model::AdapterSpec& spec, bool keep_blocks) {
  std::vector<int> open;
  for (size_t p = 0; p < kPolicies.size(); ++p) {
    if (!kPolicies[p].helps(model, options, spec)) continue;
    TrainOptions applied = options;
    kPolicies[p].apply(&applied);
    if (keep_blocks && applied.policy.blocks != options.policy.blocks) continue;
    open.push_back(static_cast<int>(p));
  }
  std::vector<PolicySet> sets = {SetOf({})};
  for (const int p : open) sets.push_back(SetOf({p}));
  for (size_t count = 2; count <= open.size(); ++count) {
    sets.push_back(SetOf(std::vector<int>(open.begin(), open.begin() + static_cast<std::ptrdiff_t>(count))));
  }
  return sets;
}

Result<Fit> LargestFit(const PlanModel& model, const TrainOptions& options, int64_t longest, uint64_t limit) {
  const auto plan = [&](int64_t steps) -> Result<Fit> {
    TrainOptions at = options;
    at.tokens = steps * kFitStep;
    at.max_length = std::min(at.tokens, longest);
    Result<PlannedRun> run = PlanRun(model, at, at.max_length);
    if (!run.ok()) return run.failure();
    return Fit{at.tokens, at.max_length, std::move(run).value()};
  };
  Result<Fit> first = plan(1);
  if (!first.ok()) return first;
  Fit best = std::move(first).value();
  if (best.run.memory.total() > limit) {
    best.tokens = 0;
    return best;
  }
  Bracket bracket;
  bracket.Add(1, best.run.memory.total(), limit);
  while (!bracket.closed()) {
    const int64_t steps = bracket.Next(limit);
    Result<Fit> tried = plan(steps);
    if (!tried.ok()) return tried;
    const uint64_t bytes = tried.value().run.memory.total();
    bracket.Add(steps, bytes, limit);
    if (bytes <= limit) best = std::move(tried).value();
  }
  return best;
}

}  // namespace rung::train
