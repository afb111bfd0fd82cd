#include "model/backbone.h"

#include <fmt/format.h>

#include "base/hash.h"
#include "model/block_linears.h"

namespace rung::model {

Result<Backbone> Backbone::Load(const Path& path, const BackboneOptions& options) {
  if (IsGgufFile(path)) {
    Result<io::Gguf> opened = io::Gguf::Open(path);
    if (!opened.ok()) return opened.failure();
    auto gguf = std::make_shared<const io::Gguf>(std::move(opened).value());
    Result<Config> config = ConfigFromGguf(*gguf);
    if (!config.ok()) return config.failure();
    const Names& names = GgufNames(config.value());
    return Build(std::move(config).value(), GgufWeights(gguf), names, options);
  }
  if (!std::filesystem::is_directory(path)) {
    return Failure{
        fmt::format("{}: a model is a GGUF file or a Hugging Face folder with config.json and safetensors",
                    path.string())};
  }
  Result<Config> config = ReadConfig(path);
  if (!config.ok()) return config.failure();
  Result<io::Safetensors> tensors = io::Safetensors::OpenFolder(path);
  if (!tensors.ok()) return tensors.failure();
  return BuildFolder(path, std::move(config).value(), FolderWeights(std::move(tensors).value()), options);
}

Result<Backbone> Backbone::PlannedFrom(const Path& path, const BackboneOptions& options) {
  if (IsGgufFile(path)) return Load(path, options);
  Result<Config> config = ReadConfig(path);
  if (!config.ok()) return config.failure();
  if (!std::filesystem::is_directory(path)) return Planned(config.value(), options);
  Result<io::Safetensors> tensors = io::Safetensors::OpenFolder(path);
  if (!tensors.ok()) return Planned(config.value(), options);
  return BuildFolder(path, std::move(config).value(), HeaderOnly(std::move(tensors).value()), options);
}

Result<Backbone> Backbone::BuildFolder(const Path& path, Config config, std::shared_ptr<WeightSource> source,
                                       const BackboneOptions& options) {
  const Names& names = FindHfNames(config, [&](const std::string& name) { return source->Has(name); });
  Result<Backbone> backbone = Build(std::move(config), std::move(source), names, options);
  // Many messages begin with a file of the folder.
  if (backbone.ok() || backbone.failure().message.starts_with(path.string())) return backbone;
  return Failure{fmt::format("{}: {}", path.string(), backbone.failure().message), backbone.failure().code};
}

Result<Backbone> Backbone::Planned(const Config& config, const BackboneOptions& options) {
  return Build(config, NoWeights(), HfNames(config), options);
}

Result<Backbone> Backbone::Build(Config config, std::shared_ptr<WeightSource> source, const Names& names,
                                 const BackboneOptions& options) {
  const int64_t positions = options.positions > 0 ? options.positions : config.context;
  if (positions > config.context) {
    return UsageFailure(fmt::format("{} positions: the model was made for {} tokens; ask for {} at most",
                                    positions, config.context, config.context));
  }
  Backbone b;
  b.config_ = std::move(config);
  b.source_ = std::move(source);
  if (Status read = b.ReadEnds(names, options.recipe); !read.ok()) return read.failure();
  // One by one: a header may promise more layers than the file has.
  for (int64_t layer = 0; layer < b.config_.L; ++layer) {
    b.blocks_.emplace_back();
    b.blocks_.back().shape = b.config_.block(layer);
    b.blocks_.back().shape.act = options.compute;
    if (Status read = b.ReadBlock(names, layer, options.recipe); !read.ok()) return read.failure();
  }
  b.MakeRope(positions);
  return b;
}

void Backbone::MakeRope(int64_t positions) {
  positions_ = positions;
  if (config_.no_rope) return;
  const auto make = [&](const RopeConfig& rope, RopePart* part) {
    const int64_t rotary = rope.rotary > 0 ? rope.rotary : config_.D;
    if (!planned()) part->angles = MakeRopeAngles(rope, rotary, positions);
    part->table.cos = View(planned() ? nullptr : part->angles.cos.data(), positions, rotary / 2);
    part->table.sin = View(planned() ? nullptr : part->angles.sin.data(), positions, rotary / 2);
    part->table.rotary = rotary;
    part->table.half = rope.half;
  };
  make(config_.rope, &rope_);
  if (config_.local_rope) make(*config_.local_rope, &local_rope_);
}

BaseFormats Backbone::formats() const {
  BaseFormats formats;
  std::string all;
  const auto add = [&](const std::string& place, const format::Matrix& matrix) {
    const std::string name = FormatName(matrix);
    if (matrix.rows > 0) all += fmt::format("{} {}\n", place, DigestName(name));
    return name;
  };
  formats.embedding = add("embedding", embedding_);
  if (!config_.tied_head) formats.head = add("head", head_);
  add("position", position_table_);
  add("project_in", project_in_.frozen);
  add("project_out", project_out_.frozen);
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    for (const BlockLinear& linear : BlockLinears(config_)) {
      ++formats.blocks[add(fmt::format("{}.{}", layer, linear.role), linear.Of(blocks_[layer]).frozen)];
    }
  }
  formats.digest = HashText(all);
  return formats;
}

const ops::RopeTable& Backbone::rope(int64_t layer) const {
  if (!config_.has_rope(layer)) return no_rope_.table;
  return config_.local_rope && config_.has_window(layer) ? local_rope_.table : rope_.table;
}

Status Backbone::ReadEnds(const Names& names, const Recipe& recipe) {
  const int64_t V = config_.V, C = config_.C, E = config_.embedding_width();
  // Some tied checkpoints keep only the head's name.
  const bool under_head = config_.tied_head && !source_->Has(names.embedding) && source_->Has(names.head);
  const std::string& stored = under_head ? names.head : names.embedding;
  Result<format::Matrix> embedding = source_->ReadMatrix(stored, V, E, recipe.For(stored, true));
  if (!embedding.ok()) return embedding.failure();
  embedding_ = embedding.value();
  head_ = embedding_;
  if (!config_.tied_head) {
    Result<format::Matrix> head = source_->ReadMatrix(names.head, V, E, recipe.For(names.head, true));
    if (!head.ok()) return head.failure();
    head_ = head.value();
  }
  if (E != C) {
    Status in = ReadLinear(names.project_in, C, E, false, recipe.For(names.project_in, false), &project_in_);
    if (!in.ok()) return in;
    Status out =
        ReadLinear(names.project_out, E, C, false, recipe.For(names.project_out, false), &project_out_);
    if (!out.ok()) return out;
  }
  if (config_.position_rows > 0) {
    if (Status read = ReadPositions(names.position); !read.ok()) return read;
  }
  // Logits are linear in the norm's output.
  return config_.final_norm ? ReadNorm(names.final_norm, C, config_.logit_scale, &final_norm_) : Status(Ok{});
}

Status Backbone::ReadPositions(const std::string& name) {
  Result<format::Matrix> table = source_->ReadMatrix(name, config_.position_rows, config_.C, Quantize::kNone);
  if (!table.ok()) return table.failure();
  position_table_ = table.value();
  const int64_t skipped = config_.first_position;
  if (skipped > 0 && (position_table_.scales.absmax || position_table_.tiles.scale)) {
    return Failure{
        fmt::format("tensor {} is {}: a table of positions is read in a format with scales inside, "
                    "such as bf16 or q8_0",
                    name, format::Of(position_table_.format).name)};
  }
  position_table_.rows -= skipped;
  if (position_table_.data && skipped > 0) {
    position_table_.data += format::DataBytes(position_table_.format, skipped, config_.C);
  }
  return Ok{};
}

Status Backbone::ReadNorm(const std::string& name, int64_t size, float scale, nn::Norm* norm) {
  norm->kind = config_.norm;
  norm->eps = config_.norm_eps;
  norm->gain_offset = config_.norm_offset * scale;
  const auto read = [&](const std::string& full, nn::Param* param) -> Status {
    Result<std::vector<float>> values = source_->ReadVector(full, size);
    if (!values.ok()) return values.failure();
    vectors_.push_back(std::make_unique<std::vector<float>>(std::move(values).value()));
    for (float& value : *vectors_.back()) value *= scale;
    param->name = full;
    param->value = View(planned() ? nullptr : vectors_.back()->data(), 1, size);
    return Ok{};
  };
  if (Status gain = read(name + ".weight", &norm->gain); !gain.ok()) return gain;
  return config_.norm_bias ? read(name + ".bias", &norm->bias) : Status(Ok{});
}

Status Backbone::ReadLinear(const std::string& name, int64_t rows, int64_t cols, bool bias, Quantize quantize,
                            nn::Linear* layer, bool transposed) {
  Result<format::Matrix> matrix = source_->ReadMatrix(name, rows, cols, quantize, transposed);
  if (!matrix.ok()) return matrix.failure();
  layer->frozen = matrix.value();
  if (!bias) return Ok{};
  Result<std::vector<float>> values = source_->ReadVector(name + ".bias", rows);
  if (!values.ok()) return values.failure();
  layer->bias = std::move(values).value();
  return Ok{};
}

Status Backbone::ReadBlock(const Names& names, int64_t layer, const Recipe& recipe) {
  nn::DecoderBlock& block = blocks_[static_cast<size_t>(layer)];
  for (const BlockLinear& linear : BlockLinears(config_)) {
    const std::string name = Names::Layer(names.*linear.name, layer);
    Status read = ReadLinear(name, linear.rows, linear.cols, linear.bias, recipe.For(name, false),
                             &linear.Of(block), config_.transposed);
    if (!read.ok()) return read;
  }
  return ReadNorms(names, layer);
}

Status Backbone::ReadNorms(const Names& names, int64_t layer) {
  nn::DecoderBlock& block = blocks_[static_cast<size_t>(layer)];
  const Config& c = config_;
  const bool before = c.norms || c.norm_after_sum, per_head = c.qk_norm == nn::QkNorm::kHead;
  struct Row {
    bool wanted;
    const std::string& pattern;
    int64_t size;
    nn::Norm* norm;
  };
  const Row norms[] = {
      {c.qk_norm != nn::QkNorm::kNone, names.q_norm, per_head ? c.D : c.Hq * c.D, &block.attention.q_norm},
      {c.qk_norm != nn::QkNorm::kNone, names.k_norm, per_head ? c.D : c.Hkv * c.D, &block.attention.k_norm},
      {before, names.attention_norm, c.C, &block.attention_norm},
      {c.output_norms, names.attention_output_norm, c.C, &block.attention_output_norm},
      {before, names.mlp_norm, c.C, &block.mlp_norm},
      {c.output_norms, names.mlp_output_norm, c.C, &block.mlp_output_norm}};
  for (const Row& row : norms) {
    if (!row.wanted) continue;
    Status read = ReadNorm(Names::Layer(row.pattern, layer), row.size, 1.0f, row.norm);
    if (!read.ok()) return read;
  }
  return Ok{};
}

void Backbone::Embed(Exec& ex, In ids, In position, Out x) const {
  const int64_t N = x.t.rows(), C = config_.C, E = config_.embedding_width();
  Frame frame(ex.arena());
  if (E == C) {
    ops::Embed(ex, ids, embedding_, config_.embedding_scale, x);
  } else {
    const Tensor narrow = ex.arena().Scratch(DType::kF32, N, E, Use::kBackbone, "narrow embedding");
    ops::Embed(ex, ids, embedding_, config_.embedding_scale, Out{narrow});
    const Tensor rounded = ex.arena().Scratch(ex.compute(), N, E, Use::kBackbone, "narrow embedding");
    ops::Convert(ex, narrow, Out{rounded});
    project_in_.Forward(ex, rounded, x);
  }
  if (config_.position_rows == 0) return;
  const Tensor place = ex.arena().Scratch(DType::kF32, N, C, Use::kBackbone, "position embedding");
  ops::Embed(ex, position, position_table_, 1.0f, Out{place});
  ops::Axpby(ex, 1.0f, place, 1.0f, Acc{x.t});
}

void Backbone::Forward(Exec& ex, In ids, const nn::RowLayout& rows, int64_t layers, Out x,
                       const TapSink& sink) const {
  Embed(ex, ids, rows.position, x);
  for (int64_t layer = 0; layer < layers; ++layer) {
    block(layer).Forward(ex, x.t, {rows, rope(layer)}, x, nullptr);
    if (sink) sink(layer, x.t);
  }
}

Tensor Backbone::HeadInput(Exec& ex, In z, const Tensor& stats) const {
  const int64_t M = z.t.rows(), E = config_.embedding_width();
  const Tensor h = ex.arena().Scratch(ex.compute(), M, config_.C, Use::kHead, "normed head input");
  if (config_.final_norm) {
    final_norm_.Forward(ex, z, Out{h}, stats);
  } else {
    ops::Convert(ex, z, Out{h});
  }
  if (E == config_.C) return h;
  const Tensor narrow = ex.arena().Scratch(ex.compute(), M, E, Use::kHead, "narrow head input");
  project_out_.Forward(ex, h, Out{narrow});
  return narrow;
}

void Backbone::Logits(Exec& ex, In z, Out logits) const {
  Frame frame(ex.arena());
  const ops::FrozenProduct product{&head_, nullptr, logits.t, false};
  ops::ProjectFrozen(ex, HeadInput(ex, z), {&product, 1});
  if (config_.logit_cap > 0.0f) ops::Cap(ex, config_.logit_cap, Acc{logits.t});
}

void Backbone::Loss(Exec& ex, In z, In target, Out loss, const Out* dz, const Out* best) const {
  Frame frame(ex.arena());
  const int64_t M = z.t.rows(), C = config_.C, E = config_.embedding_width();
  if (!dz) {
    ops::HeadLoss(ex, HeadInput(ex, z), head_, config_.logit_cap, target, loss, nullptr, best);
    return;
  }
  const auto scratch = [&](DType dtype, int64_t cols, const char* label) {
    return ex.arena().Scratch(dtype, M, cols, Use::kHead, label);
  };
  Tensor stats;
  if (config_.final_norm) {
    stats = ex.arena().Scratch(DType::kF32, final_norm_.stat_rows(), M, Use::kHead,
                               "statistics of the final norm");
  }
  const Tensor h = HeadInput(ex, z, stats);
  Tensor dh = scratch(DType::kF32, E, "d head input");
  const Out dh_out{dh};
  ops::HeadLoss(ex, h, head_, config_.logit_cap, target, loss, &dh_out, best);
  if (E != C) {
    const Tensor wide = scratch(DType::kF32, C, "d normed head input");
    project_out_.Backward(ex, dh, h, Out{wide});
    dh = wide;
  }
  // In dh's memory first: dz may be z's, which the norm still reads.
  if (config_.final_norm) final_norm_.Backward(ex, dh, z, stats, Out{dh});
  ops::Convert(ex, dh, *dz);
}

BackboneCache::BackboneCache(const Config& config, DType compute, int64_t rows)
    : slab_(Bytes(config, compute, rows)) {
  const int64_t width = config.Hkv * config.D;
  const size_t part = static_cast<size_t>(rows * width) * SizeOf(compute);
  for (int64_t layer = 0; layer < config.L; ++layer) {
    std::byte* base = slab_.base() + static_cast<size_t>(layer) * 2 * part;
    layers_.push_back(
        {Tensor{base, compute, rows, width, width}, Tensor{base + part, compute, rows, width, width}});
  }
}

size_t BackboneCache::Bytes(const Config& config, DType compute, int64_t rows) {
  return static_cast<size_t>(2 * config.L * rows * config.Hkv * config.D) * SizeOf(compute);
}

}  // namespace rung::model
