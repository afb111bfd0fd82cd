#include "train/fisher.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/text.h"
#include "model/forward.h"
#include "ops/update.h"

namespace rung::train {
namespace {

// The matrices of one block behind each other, then the biases.
struct BlockLayout {
  std::vector<int64_t> begins, cols;
  int64_t weights = 0, biases = 0;

  explicit BlockLayout(const nn::DecoderBlock& block) {
    for (int m = 0; m < model::kBlockMatrices; ++m) {
      const nn::Linear& linear = model::LinearOf(block, static_cast<model::BlockMatrix>(m));
      begins.push_back(weights);
      cols.push_back(linear.in_features());
      weights += linear.out_features() * linear.in_features();
      biases += static_cast<int64_t>(linear.bias.size());
    }
  }
};

size_t BytesOf(int64_t floats) { return static_cast<size_t>(floats) * sizeof(float); }

float* Offset(float* base, int64_t at) { return base ? base + at : nullptr; }

}  // namespace

// One backward pass after another through the backbone. Null arrays: to plan it.
struct Fisher::Pass {
  const model::Backbone& backbone;
  const std::vector<int64_t>& layers;
  BlockLayout layout;
  float *weights = nullptr, *gradients = nullptr, *importances = nullptr;

  Pass(const model::Backbone& from, const std::vector<int64_t>& measured)
      : backbone(from), layers(measured), layout(from.block(measured.front())) {}

  size_t LayerBytes() const { return BytesOf(2 * layout.weights + layout.biases); }
  size_t ImportanceBytes() const { return BytesOf(static_cast<int64_t>(layers.size()) * layout.weights); }

  // The layer as a trained block in f32, its gradients zero.
  nn::DecoderBlock TrainedCopy(Exec& ex, int64_t layer) const;
  // Importances of the layer += gradients squared.
  void AddSquares(Exec& ex, size_t measured) const;
  // The gradient dx (N,C) of the residual stream x above all layers.
  void Learn(Exec& ex, const model::BatchInput& input, In x, Out dx) const;
  void Run(Exec& ex, const data::Example& example) const;
};

nn::DecoderBlock Fisher::Pass::TrainedCopy(Exec& ex, int64_t layer) const {
  nn::DecoderBlock copy = backbone.block(layer);
  copy.shape.act = DType::kF32;
  int64_t bias_at = layout.weights;
  for (int m = 0; m < model::kBlockMatrices; ++m) {
    nn::Linear& linear = model::LinearOf(copy, static_cast<model::BlockMatrix>(m));
    const int64_t rows = linear.frozen.rows, at = layout.begins[static_cast<size_t>(m)];
    linear.trained = true;
    linear.weight.value = View(Offset(weights, at), rows, linear.frozen.cols);
    linear.weight.grad = View(Offset(gradients, at), rows, linear.frozen.cols);
    if (!linear.bias.empty()) {
      linear.trained_bias.value = View(linear.bias.data(), 1, rows);
      linear.trained_bias.grad = View(Offset(gradients, bias_at), 1, rows);
      bias_at += rows;
    }
    ops::Decode(ex, linear.frozen, Out{linear.weight.value});
  }
  ops::Zero(ex, Out{View(gradients, 1, layout.weights + layout.biases)});
  return copy;
}

void Fisher::Pass::AddSquares(Exec& ex, size_t measured) const {
  float* sum = Offset(importances, static_cast<int64_t>(measured) * layout.weights);
  ops::AddSquares(ex, View(gradients, 1, layout.weights), Acc{View(sum, 1, layout.weights)});
}

void Fisher::Pass::Learn(Exec& ex, const model::BatchInput& input, In x, Out dx) const {
  Frame frame(ex.arena());
  const int64_t M = input.target_count(), C = x.t.cols();
  const Tensor z = ex.arena().Scratch(DType::kF32, M, C, Use::kHead, "head input");
  const Tensor loss = ex.arena().Scratch(DType::kF32, 1, M, Use::kHead, "loss");
  const Out dz{z};
  ops::Gather(ex, x, input.pass().picked, Out{z});
  backbone.Loss(ex, z, input.target(), Out{loss}, &dz, nullptr);
  ops::Scale(ex, 1.0f / static_cast<float>(M), Acc{z});
  ops::Scatter(ex, z, input.pass().picked, dx);
}

void Fisher::Pass::Run(Exec& ex, const data::Example& example) const {
  const data::Batch batch = data::MakeBatch({&example});
  const model::BatchInput input(batch);
  if (input.target_count() == 0) return;
  KeepFrame kept(ex.arena());
  Frame frame(ex.arena());
  const int64_t N = batch.rows(), C = backbone.config().C, lowest = layers.front();
  const Tensor x = ex.arena().Keep(DType::kF32, N, C, Use::kSaved, "measured layer's input");
  backbone.Forward(ex, input.pass().ids, input.pass().rows, lowest, Out{x}, {});
  model::CrossedLayers crossed(backbone, lowest, model::BlockMemory::kRecompute, [&](int64_t layer) {
    return nn::BlockCall{input.pass().rows, backbone.rope(layer)};
  });
  const Tensor top = crossed.Forward(ex, x);
  const Tensor dx = ex.arena().Scratch(DType::kF32, N, C, Use::kBackbone, "d residual stream");
  Learn(ex, input, top, Out{dx});
  crossed.Backward(ex, Acc{dx}, nn::Reach::kTrained,
                   [&](int64_t layer, const model::CrossedLayers::Back& back) {
                     const auto measured = std::find(layers.begin(), layers.end(), layer);
                     if (measured == layers.end()) return back(backbone.block(layer));
                     back(TrainedCopy(ex, layer));
                     AddSquares(ex, static_cast<size_t>(measured - layers.begin()));
                   });
}

Fisher::Need Fisher::Plan(const ComputeOptions& compute, const model::Backbone& backbone,
                          const std::vector<int64_t>& layers, std::span<const data::Example> examples) {
  const Pass pass(backbone, layers);
  Exec ex = Exec::Planning(compute.context, compute.compute);
  for (const data::Example& example : examples) pass.Run(ex, example);
  return {pass.ImportanceBytes(), pass.LayerBytes(), ex.arena().peak().bytes};
}

Fisher::Fisher(const ComputeOptions& compute, const model::Backbone& backbone,
               const std::vector<int64_t>& layers, std::span<const data::Example> examples)
    : layers_(layers) {
  const Need need = Plan(compute, backbone, layers, examples);
  Pass pass(backbone, layers_);
  cols_ = pass.layout.cols;
  begins_ = pass.layout.begins;
  layer_size_ = pass.layout.weights;
  importances_ = std::make_unique<Slab>(need.importances);
  const Slab layer(need.layer), slab(std::max<uint64_t>(need.arena, Arena::kAlignment));
  pass.importances = importances_->as<float>();
  pass.weights = layer.as<float>();
  pass.gradients = pass.weights + layer_size_;
  Exec ex(Arena(slab.base(), slab.bytes()), compute.context, compute.compute);
  for (const data::Example& example : examples) pass.Run(ex, example);
  RUNG_CHECK(ex.arena().peak().bytes == need.arena, "fisher: a pass used other memory than its plan");
}

PlanItem ImportanceItem(const Fisher::Need& need, const MemoryPlan& plan) {
  // What is there from the beginning to the end of a run.
  static const std::set<std::string_view> kLasting = {"weights", "tables", "tokenizer and data", "program"};
  uint64_t later = 0;
  for (const PlanItem& item : plan.items) later += kLasting.contains(item.name) ? 0 : item.bytes;
  return {"importance", need.total() > later ? need.total() - later : 0,
          fmt::format("Fisher information before training, beyond what that takes: importances {}, a layer "
                      "twice {}, arena {}",
                      FormatBytes(need.importances), FormatBytes(need.layer), FormatBytes(need.arena)),
          "--ladder-init pruned, fewer --taps, --max-length"};
}

model::Importance Fisher::importance() const {
  return [this](int64_t layer, model::BlockMatrix matrix, int64_t row, float* out) {
    const auto at = std::find(layers_.begin(), layers_.end(), layer);
    RUNG_CHECK(at != layers_.end(), "fisher: the layer was not measured");
    const auto m = static_cast<size_t>(matrix);
    const float* from =
        importances_->as<float>() + (at - layers_.begin()) * layer_size_ + begins_[m] + row * cols_[m];
    std::copy_n(from, cols_[m], out);
  };
}

}  // namespace rung::train
