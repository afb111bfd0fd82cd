// The frozen model: embedding, decoder blocks, final norm, head.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "model/config.h"
#include "model/weights.h"
#include "nn/block.h"

namespace rung::model {

struct BackboneOptions {
  Quantize quantize = Quantize::kNf4;  // of a folder's 16-bit matrices
  bool quantize_embeddings = false;    // the embedding and the head too
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
  const ops::RopeTable& rope() const { return rope_; }
  const nn::Norm& final_norm() const { return final_norm_; }
  const format::Matrix& head() const { return head_; }
  const format::Matrix& embedding() const { return embedding_; }
  const nn::DecoderBlock& block(int64_t layer) const { return blocks_[static_cast<size_t>(layer)]; }
  int64_t positions() const { return rope_.cos.rows(); }

  // x (N,C) f32 = the residual stream before the first block.
  void Embed(Exec& ex, In ids, Out x) const;
  // x (N,C) f32 = the residual stream after the first `layers` blocks. For statistics; passes with an adapter
  // are model/forward.h's.
  void Forward(Exec& ex, In ids, const nn::RowLayout& rows, int64_t layers, Out x, const TapSink& sink) const;
  // logits (M,V) f32 of states z (M,C) f32, for generation: final norm and head.
  void Logits(Exec& ex, In z, Out logits) const;

 private:
  Backbone() = default;
  static Result<Backbone> Build(Config config, std::shared_ptr<WeightSource> source, const Names& names,
                                const BackboneOptions& options);
  static Result<Backbone> BuildFolder(const Path& path, Config config, std::shared_ptr<WeightSource> source,
                                      const BackboneOptions& options);
  Status ReadBlock(const Names& names, int64_t layer, Quantize quantize);
  Status ReadEnds(const Names& names, Quantize quantize);
  Status ReadNorm(const std::string& name, int64_t size, nn::Norm* norm);
  Status ReadLinear(const std::string& name, int64_t rows, int64_t cols, bool bias, Quantize quantize,
                    nn::Linear* layer);

  Config config_;
  std::shared_ptr<WeightSource> source_;  // owns what the matrices view
  std::vector<std::unique_ptr<std::vector<float>>> vectors_;
  RopeAngles angles_;
  ops::RopeTable rope_;
  format::Matrix embedding_, head_;
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
