#include "model/prune.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

namespace rung::model {
namespace {

using Indices = std::vector<int64_t>;
using Scores = std::vector<double>;

size_t At(int64_t i) { return static_cast<size_t>(i); }

Indices All(int64_t count) {
  Indices all(At(count));
  std::iota(all.begin(), all.end(), int64_t{0});
  return all;
}

// The `count` largest, ascending; of equal ones the lower index.
Indices Largest(std::span<const double> scores, int64_t count) {
  Indices order = All(static_cast<int64_t>(scores.size()));
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return scores[At(a)] > scores[At(b)]; });
  order.resize(At(count));
  std::sort(order.begin(), order.end());
  return order;
}

void AddTo(Scores* sum, const Scores& more) {
  for (size_t i = 0; i < sum->size(); ++i) (*sum)[i] += more[i];
}

double SumOf(const Scores& scores, int64_t begin, int64_t count) {
  const auto first = scores.begin() + begin;
  return std::accumulate(first, first + count, 0.0);
}

// Importance of one layer, summed. A row at a time is all that is decoded.
class LayerImportance {
 public:
  LayerImportance(const Backbone& backbone, int64_t layer, const Importance& importance)
      : block_(backbone.block(layer)), layer_(layer), importance_(importance) {}

  // Of each row, over `cols`.
  Scores OfRows(BlockMatrix matrix, const Indices& cols) const {
    const nn::Linear& linear = LinearOf(block_, matrix);
    Scores sums(At(linear.out_features()));
    std::vector<float> row(At(linear.in_features()));
    for (int64_t r = 0; r < linear.out_features(); ++r) {
      importance_(layer_, matrix, r, row.data());
      for (const int64_t c : cols) sums[At(r)] += static_cast<double>(row[At(c)]);
    }
    return sums;
  }
  // Of each column, over `rows`.
  Scores OfCols(BlockMatrix matrix, const Indices& rows) const {
    const nn::Linear& linear = LinearOf(block_, matrix);
    Scores sums(At(linear.in_features()));
    std::vector<float> row(sums.size());
    for (const int64_t r : rows) {
      importance_(layer_, matrix, r, row.data());
      for (size_t c = 0; c < sums.size(); ++c) sums[c] += static_cast<double>(row[c]);
    }
    return sums;
  }

 private:
  const nn::DecoderBlock& block_;
  int64_t layer_;
  const Importance& importance_;
};

Scores ChannelScores(const LayerImportance& layer, const nn::BlockShape& shape) {
  Scores scores(At(shape.C));
  const Indices q = All(shape.Hq * shape.D), kv = All(shape.Hkv * shape.D), f = All(shape.F);
  AddTo(&scores, layer.OfCols(BlockMatrix::kQ, q));
  AddTo(&scores, layer.OfCols(BlockMatrix::kK, kv));
  AddTo(&scores, layer.OfCols(BlockMatrix::kV, kv));
  AddTo(&scores, layer.OfCols(BlockMatrix::kGate, f));
  AddTo(&scores, layer.OfCols(BlockMatrix::kUp, f));
  AddTo(&scores, layer.OfRows(BlockMatrix::kO, q));
  AddTo(&scores, layer.OfRows(BlockMatrix::kDown, f));
  return scores;
}

// Of what a rung may take from one layer, over the channels R.
struct LayerScores {
  Scores q, k, v, o;  // o: of its columns
  Scores neurons;
};

LayerScores ScoreLayer(const LayerImportance& layer, const Indices& channels) {
  LayerScores scores{layer.OfRows(BlockMatrix::kQ, channels), layer.OfRows(BlockMatrix::kK, channels),
                     layer.OfRows(BlockMatrix::kV, channels), layer.OfCols(BlockMatrix::kO, channels),
                     layer.OfRows(BlockMatrix::kGate, channels)};
  AddTo(&scores.neurons, layer.OfRows(BlockMatrix::kUp, channels));
  AddTo(&scores.neurons, layer.OfCols(BlockMatrix::kDown, channels));
  return scores;
}

// The two rows of a head that rotary pair `pair` turns, in the backbone's order.
struct PairRows {
  int64_t D;
  bool half;
  int64_t First(int64_t pair) const { return half ? pair : 2 * pair; }
  int64_t Second(int64_t pair) const { return half ? pair + D / 2 : 2 * pair + 1; }
};

Scores PairScores(const std::vector<LayerScores>& layers, const PairRows& rows) {
  Scores scores(At(rows.D / 2));
  for (const LayerScores& layer : layers) {
    for (const Scores* heads : {&layer.q, &layer.k}) {
      for (int64_t head = 0; head < static_cast<int64_t>(heads->size()); head += rows.D) {
        for (int64_t pair = 0; pair < rows.D / 2; ++pair) {
          scores[At(pair)] += (*heads)[At(head + rows.First(pair))] + (*heads)[At(head + rows.Second(pair))];
        }
      }
    }
  }
  return scores;
}

// A head's rows of the chosen pairs in a rung's order: first members, then second ones.
void AppendTurned(int64_t head, const Indices& pairs, const PairRows& rows, Indices* out) {
  for (const int64_t pair : pairs) out->push_back(head * rows.D + rows.First(pair));
  for (const int64_t pair : pairs) out->push_back(head * rows.D + rows.Second(pair));
}

PrunedLayer SelectLayer(const LayerScores& scores, const nn::BlockShape& from, const nn::BlockShape& to,
                        const Indices& pairs, const PairRows& rows) {
  const int64_t D = from.D, group = from.Hq / from.Hkv, kept_group = to.Hq / to.Hkv;
  Scores query_heads(At(from.Hq)), kv_heads(At(from.Hkv));
  for (int64_t g = 0; g < from.Hq; ++g) {
    query_heads[At(g)] = SumOf(scores.q, g * D, D) + SumOf(scores.o, g * D, D);
  }
  for (int64_t h = 0; h < from.Hkv; ++h) {
    kv_heads[At(h)] =
        SumOf(scores.k, h * D, D) + SumOf(scores.v, h * D, D) + SumOf(query_heads, h * group, group);
  }
  PrunedLayer layer;
  for (const int64_t h : Largest(kv_heads, to.Hkv)) {
    Indices queries = Largest(std::span(query_heads).subspan(At(h * group), At(group)), kept_group);
    Scores values(scores.v.begin() + h * D, scores.v.begin() + (h + 1) * D);
    for (int64_t& g : queries) {
      g += h * group;
      for (int64_t d = 0; d < D; ++d) values[At(d)] += scores.o[At(g * D + d)];
      AppendTurned(g, pairs, rows, &layer.q_rows);
    }
    AppendTurned(h, pairs, rows, &layer.k_rows);
    const Indices dimensions = Largest(values, to.D);
    for (const int64_t d : dimensions) layer.v_rows.push_back(h * D + d);
    for (const int64_t g : queries) {
      for (const int64_t d : dimensions) layer.o_cols.push_back(g * D + d);
    }
  }
  layer.neurons = Largest(scores.neurons, to.F);
  return layer;
}

// to[i,j] = from[rows[i], cols[j]]
void CopyWeights(const nn::Linear& from, const Indices& rows, const Indices& cols, const nn::Linear& to) {
  RUNG_CHECK(to.out_features() == static_cast<int64_t>(rows.size()) &&
                 to.in_features() == static_cast<int64_t>(cols.size()),
             "prune: the selection has another shape than the rung");
  std::vector<float> row(At(from.in_features()));
  float* out = Out{to.weight.value}.as<float>();
  for (const int64_t r : rows) {
    format::DecodeRow(from.frozen, r, row.data());
    for (const int64_t c : cols) *out++ = row[At(c)];
  }
}

void CopyGain(const nn::Norm& from, const Indices& channels, const nn::Norm& to) {
  const float* gain = In(from.gain.value).as<float>();
  float* out = Out{to.gain.value}.as<float>();
  for (const int64_t c : channels) *out++ = gain[c] + from.gain_offset;
}

void FillBlock(const nn::DecoderBlock& from, const Indices& channels, const PrunedLayer& layer,
               const nn::DecoderBlock& to) {
  CopyGain(from.attention_norm, channels, to.attention_norm);
  CopyGain(from.mlp_norm, channels, to.mlp_norm);
  CopyWeights(from.attention.q, layer.q_rows, channels, to.attention.q);
  CopyWeights(from.attention.k, layer.k_rows, channels, to.attention.k);
  CopyWeights(from.attention.v, layer.v_rows, channels, to.attention.v);
  CopyWeights(from.attention.o, channels, layer.o_cols, to.attention.o);
  CopyWeights(from.mlp.gate, layer.neurons, channels, to.mlp.gate);
  CopyWeights(from.mlp.up, layer.neurons, channels, to.mlp.up);
  CopyWeights(from.mlp.down, channels, layer.neurons, to.mlp.down);
}

}  // namespace

Importance Magnitude(const Backbone& backbone) {
  return [&backbone](int64_t layer, BlockMatrix matrix, int64_t row, float* out) {
    const format::Matrix& weight = LinearOf(backbone.block(layer), matrix).frozen;
    format::DecodeRow(weight, row, out);
    for (int64_t c = 0; c < weight.cols; ++c) out[c] = std::abs(out[c]);
  };
}

namespace {

// What the blocks of a model have that a rung has not, or nothing.
std::string UnlikeRungs(const Config& c) {
  const bool plain_norms = c.norms && !c.output_norms && !c.norm_after_sum && !c.parallel;
  const bool turned = !c.no_rope && c.rotary() == c.D && c.unrotated.empty() && !c.local_rope;
  const std::pair<bool, const char*> reasons[] = {
      {c.qkv != nn::QkvRows::kSeparate || c.fused_gate_up, "have fused layers"},
      {c.norm != nn::NormKind::kRms, "use LayerNorm"},
      {!plain_norms, "have norms in other places or run attention and MLP in parallel"},
      {c.qk_norm != nn::QkNorm::kNone, "normalise their queries and keys"},
      {!c.gated_mlp || c.activation != cpu::Activation::kSilu, "have another MLP"},
      {!turned, "do not turn whole heads in every layer by one table"},
      {c.o_bias || c.mlp_bias, "have biases of the output of attention or of the MLP"},
      {c.window > 0 && c.window < c.context, "see a window of the text"},
      {c.residual_scale != 1.0f || c.score_scale > 0.0f || c.score_cap > 0.0f,
       "scale what they add or their attention scores"}};
  for (const auto& [has, reason] : reasons) {
    if (has) return reason;
  }
  return "";
}

}  // namespace

Status ShapePruned(const Config& config, LadderSpec* spec) {
  const int64_t S = spec->S, C = config.C;
  if (const std::string unlike = UnlikeRungs(config); !unlike.empty()) {
    return UsageFailure(
        fmt::format("--ladder-init: the blocks of {} {}, rungs do not: begin at random (--ladder-init "
                    "random)",
                    config.family, unlike));
  }
  if (spec->norm != nn::NormKind::kRms || !spec->rotary) {
    return UsageFailure("--rung-norm, --rung-positions: rungs made of the model's weights have its own");
  }
  if (S < 2 || S > C || S % 2 != 0) {
    return UsageFailure(
        fmt::format("--width {}: a rung made of the model's weights has an even width up to {}", S, C));
  }
  const auto whole = [](double x, int64_t most) { return std::clamp<int64_t>(std::llround(x), 1, most); };
  const auto [Hq, Hkv] = std::pair(config.Hq, config.Hkv);
  spec->head_dim = std::min(config.D, S);
  const double share = static_cast<double>(S * config.D) / static_cast<double>(C * spec->head_dim);
  spec->kv_heads = whole(static_cast<double>(Hkv) * share, Hkv);
  spec->heads =
      spec->kv_heads * whole(static_cast<double>(Hq) * share / static_cast<double>(spec->kv_heads), Hq / Hkv);
  const int64_t sixteens = whole(static_cast<double>(config.F * S) / static_cast<double>(16 * C), config.F);
  spec->F = S == C ? config.F : std::min(16 * sixteens, config.F);
  return Ok{};
}

Result<PrunedSelection> SelectPruned(const Backbone& backbone, const LadderSpec& spec,
                                     const Importance& importance) {
  const nn::BlockShape from = backbone.config().block(0), to = spec.block();
  PrunedSelection selection;
  Scores channels(At(from.C));
  for (const int64_t layer : spec.taps) {
    AddTo(&channels, ChannelScores(LayerImportance(backbone, layer, importance), from));
    if (!std::isfinite(SumOf(channels, 0, from.C))) {
      return Failure{
          fmt::format("importance of layer {}: not a finite number; choose --ladder-init random", layer),
          ExitCode::kNonFinite};
    }
  }
  selection.channels = Largest(channels, to.C);
  std::vector<LayerScores> scores;
  for (const int64_t layer : spec.taps) {
    scores.push_back(ScoreLayer(LayerImportance(backbone, layer, importance), selection.channels));
  }
  const PairRows rows{from.D, backbone.config().rope.half};
  selection.rope_pairs = Largest(PairScores(scores, rows), to.D / 2);
  for (const LayerScores& layer : scores) {
    selection.layers.push_back(SelectLayer(layer, from, to, selection.rope_pairs, rows));
  }
  return selection;
}

void FillPruned(const Backbone& backbone, const PrunedSelection& selection, Ladder* ladder) {
  const LadderSpec& spec = ladder->spec();
  RUNG_CHECK(spec.kind == RungKind::kDecoder && spec.tap_map == TapMap::kFull,
             "prune: rungs are decoder blocks, taps are projected whole");
  RUNG_CHECK(spec.rope_pairs == selection.rope_pairs,
             "prune: the ladder turns other pairs than were selected");
  for (size_t j = 0; j < ladder->rungs().size(); ++j) {
    const Rung& rung = ladder->rungs()[j];
    const size_t tap = j % spec.taps.size();
    FillBlock(backbone.block(spec.taps[tap]), selection.channels, selection.layers[tap], rung.block);
    if (!rung.tapped) continue;
    const Tensor& projection = rung.tap.weight.value;
    float* row = Out{projection}.as<float>();
    std::fill_n(row, projection.size(), 0.0f);
    for (const int64_t c : selection.channels) {
      row[c] = 1.0f;
      row += projection.cols();
    }
  }
  const Tensor& up = ladder->up().weight.value;
  std::fill_n(Out{up}.as<float>(), up.size(), 0.0f);
}

}  // namespace rung::model
