// The frozen model: embedding, decoder blocks, final norm, head.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "model/base_formats.h"
#include "model/config.h"
#include "model/weights.h"
#include "nn/block.h"

namespace rung::model {

struct BackboneOptions {
  Recipe recipe;  // of a folder's floating-point matrices
  DType compute = DType::kF32;
  // Longest sequence that will be run; 0: the model's context. More than the context is refused (kUsage).
  int64_t positions = 0;
};

// Sees the residual stream (N,C) f32 after block `layer`.
using TapSink = std::function<void(int64_t layer, In x)>;

class Backbone {
 public:
  // A GGUF file or a Hugging Face folder.
  static Result<Backbone> Load(const Path& path, const BackboneOptions& options);
  // For plans: shapes and formats of what Load would give, by the best that `path` has: a GGUF file (mapped),
  // a folder's safetensors headers, or a config.json alone. See planned().
  static Result<Backbone> PlannedFrom(const Path& path, const BackboneOptions& options);
  // Shapes of a 16-bit folder of this config, as ReadConfig gives it.
  static Result<Backbone> Planned(const Config& config, const BackboneOptions& options);

  Backbone(Backbone&&) = default;
  Backbone& operator=(Backbone&&) = default;

  const Config& config() const { return config_; }
  bool planned() const { return source_->shapes_only(); }  // no data: it runs under a planning Exec only
  const WeightTotals& weight_totals() const { return source_->totals(); }
  BaseFormats formats() const;
  // Of a layer: the model's, that of windowed layers, or none (rotary 0).
  const ops::RopeTable& rope(int64_t layer) const;
  const format::Matrix& head() const { return head_; }
  const format::Matrix& embedding() const { return embedding_; }
  const nn::DecoderBlock& block(int64_t layer) const { return blocks_[static_cast<size_t>(layer)]; }
  int64_t positions() const { return positions_; }

  // x (N,C) f32 = the residual stream before the first block. position (1,N) i32.
  void Embed(Exec& ex, In ids, In position, Out x) const;
  // x (N,C) f32 = the residual stream after the first `layers` blocks. For statistics; passes with an adapter
  // are model/forward.h's.
  void Forward(Exec& ex, In ids, const nn::RowLayout& rows, int64_t layers, Out x, const TapSink& sink) const;
  // logits (M,V) f32 of states z (M,C) f32, for generation: final norm and head.
  void Logits(Exec& ex, In z, Out logits) const;
  // Cross-entropy of states z (M,C) f32 (ops::HeadLoss). dz (M,C) f32: the gradient of the sum of losses, may
  // be z's memory; nullptr: none.
  void Loss(Exec& ex, In z, In target, Out loss, const Out* dz, const Out* best) const;

 private:
  Backbone() = default;
  static Result<Backbone> Build(Config config, std::shared_ptr<WeightSource> source, const Names& names,
                                const BackboneOptions& options);
  static Result<Backbone> BuildFolder(const Path& path, Config config, std::shared_ptr<WeightSource> source,
                                      const BackboneOptions& options);
  Status ReadEnds(const Names& names, const Recipe& recipe);
  Status ReadPositions(const std::string& name);
  Status ReadBlock(const Names& names, int64_t layer, const Recipe& recipe);
  Status ReadNorms(const Names& names, int64_t layer);
  // scale: what gain and bias are multiplied by.
  Status ReadNorm(const std::string& name, int64_t size, float scale, nn::Norm* norm);
  Status ReadLinear(const std::string& name, int64_t rows, int64_t cols, bool bias, Quantize quantize,
                    nn::Linear* layer, bool transposed = false);
  void MakeRope(int64_t positions);
  // The head's input (M,E) in the compute type; stats for the norm's backward, or empty.
  Tensor HeadInput(Exec& ex, In z, const Tensor& stats = {}) const;

  struct RopePart {
    RopeAngles angles;  // what the table views
    ops::RopeTable table;
  };

  Config config_;
  std::shared_ptr<WeightSource> source_;  // owns what the matrices view
  std::vector<std::unique_ptr<std::vector<float>>> vectors_;
  int64_t positions_ = 0;
  RopePart rope_, local_rope_, no_rope_;
  format::Matrix embedding_, head_;
  format::Matrix position_table_;  // its first row is that of position 0
  nn::Linear project_in_, project_out_;
  nn::Norm final_norm_;
  std::vector<nn::DecoderBlock> blocks_;
};

// Keys and values of a whole model for sequences that are generated together.
class BackboneCache {
 public:
  // (rows, Hkv*D) of keys and of values per layer, in the compute type.
  BackboneCache(const Config& config, DType compute, int64_t rows);
  std::span<const nn::KvCache> layers() const { return layers_; }
  static size_t Bytes(const Config& config, DType compute, int64_t rows);

 private:
  Slab slab_;
  std::vector<nn::KvCache> layers_;
};

}  // namespace rung::model
