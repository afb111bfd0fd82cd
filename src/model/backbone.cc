#include "model/backbone.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>

#include "io/json_file.h"

namespace rung::model {
namespace {

Status ReadRopeDivisors(const io::Gguf& gguf, Config* config) {
  const io::GgufTensor* tensor = gguf.Find("rope_freqs.weight");
  if (!tensor) return Ok{};
  const int64_t half = config->D / 2;
  if (tensor->type != 0 || tensor->dims != std::vector<int64_t>{half}) {
    return Failure{fmt::format("{}: rope_freqs.weight must be {} f32 numbers", gguf.name(), half)};
  }
  std::vector<float> values(static_cast<size_t>(half));
  const format::Matrix row{format::Format::kF32, 1, half, tensor->data.data(), {}};
  format::DecodeRow(row, 0, values.data());
  for (const float value : values) {
    if (!(value > 0.0f)) return Failure{fmt::format("{}: rope_freqs.weight must be positive", gguf.name())};
  }
  config->rope.divisors.assign(values.begin(), values.end());
  return Ok{};
}

}  // namespace

bool IsGgufFile(const Path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return false;
  Result<RandomAccessFile> file = RandomAccessFile::Open(path);
  std::array<std::byte, 4> magic{};
  return file.ok() && file.value().Read(0, magic).ok() &&
         std::memcmp(magic.data(), "GGUF", magic.size()) == 0;
}

Result<Config> ReadConfig(const Path& path) {
  if (IsGgufFile(path)) {
    Result<io::Gguf> gguf = io::Gguf::Open(path);
    if (!gguf.ok()) return gguf.failure();
    Result<Config> config = ConfigFromGguf(gguf.value());
    if (!config.ok()) return config;
    Config with_divisors = std::move(config).value();
    if (Status read = ReadRopeDivisors(gguf.value(), &with_divisors); !read.ok()) return read.failure();
    return with_divisors;
  }
  const bool folder = std::filesystem::is_directory(path);
  const Path file = folder ? path / "config.json" : path;
  Result<std::string> text = ReadTextFile(file, io::kJsonFileLimit);
  const bool is_object =
      text.ok() &&
      text.value().substr(0, text.value().find('{') + 1).find_first_not_of(" \t\r\n{") == std::string::npos;
  if (!folder && std::filesystem::exists(path) && !is_object) {
    return Failure{fmt::format("{}: neither a GGUF file nor a config.json", path.string())};
  }
  if (!text.ok()) return text.failure();
  return ParseHfConfig(text.value(), file.string());
}

Result<Backbone> Backbone::Load(const Path& path, const BackboneOptions& options) {
  if (IsGgufFile(path)) {
    Result<io::Gguf> opened = io::Gguf::Open(path);
    if (!opened.ok()) return opened.failure();
    auto gguf = std::make_shared<const io::Gguf>(std::move(opened).value());
    Result<Config> config = ConfigFromGguf(*gguf);
    if (!config.ok()) return config.failure();
    Config complete = std::move(config).value();
    if (Status read = ReadRopeDivisors(*gguf, &complete); !read.ok()) return read.failure();
    return Build(std::move(complete), GgufWeights(gguf), GgufNames(), options);
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
  Result<Backbone> backbone = Build(std::move(config), std::move(source), HfNames(), options);
  if (backbone.ok()) return backbone;
  return Failure{fmt::format("{}: {}", path.string(), backbone.failure().message), backbone.failure().code};
}

Result<Backbone> Backbone::Planned(const Config& config, const BackboneOptions& options) {
  return Build(config, NoWeights(), HfNames(), options);
}

Result<Backbone> Backbone::Build(Config config, std::shared_ptr<WeightSource> source, const Names& names,
                                 const BackboneOptions& options) {
  const int64_t positions = options.positions > 0 ? options.positions : config.context;
  if (positions > config.context) {
    return Failure{
        fmt::format("--max-length {}: the model was made for context {} tokens", positions, config.context),
        ExitCode::kUsage};
  }
  Backbone b;
  b.config_ = std::move(config);
  b.source_ = std::move(source);
  const Quantize ends = options.quantize_embeddings ? options.quantize : Quantize::kNone;
  if (Status read = b.ReadEnds(names, ends); !read.ok()) return read.failure();
  // One by one: a header may promise more layers than the file has.
  for (int64_t layer = 0; layer < b.config_.L; ++layer) {
    b.blocks_.emplace_back();
    b.blocks_.back().shape = b.config_.block();
    b.blocks_.back().shape.act = options.compute;
    if (Status read = b.ReadBlock(names, layer, options.quantize); !read.ok()) return read.failure();
  }

  if (!b.planned()) b.angles_ = MakeRopeAngles(b.config_, positions);
  b.rope_.cos = View(b.planned() ? nullptr : b.angles_.cos.data(), positions, b.config_.D / 2);
  b.rope_.sin = View(b.planned() ? nullptr : b.angles_.sin.data(), positions, b.config_.D / 2);
  b.rope_.rotary = b.config_.D;
  b.rope_.half = b.config_.rope.half;
  return b;
}

Status Backbone::ReadEnds(const Names& names, Quantize quantize) {
  const int64_t V = config_.V, C = config_.C;
  // Some tied checkpoints keep only the head's name.
  const bool under_head = config_.tied_head && !source_->Has(names.embedding) && source_->Has(names.head);
  Result<format::Matrix> embedding =
      source_->ReadMatrix(under_head ? names.head : names.embedding, V, C, quantize);
  if (!embedding.ok()) return embedding.failure();
  embedding_ = embedding.value();
  head_ = embedding_;
  if (!config_.tied_head) {
    Result<format::Matrix> head = source_->ReadMatrix(names.head, V, C, quantize);
    if (!head.ok()) return head.failure();
    head_ = head.value();
  }
  return ReadNorm(names.final_norm, C, &final_norm_);
}

Status Backbone::ReadNorm(const std::string& name, int64_t size, nn::Norm* norm) {
  Result<std::vector<float>> values = source_->ReadVector(name, size);
  if (!values.ok()) return values.failure();
  vectors_.push_back(std::make_unique<std::vector<float>>(std::move(values).value()));
  norm->gain.name = name;
  norm->gain.value = View(planned() ? nullptr : vectors_.back()->data(), 1, size);
  norm->eps = config_.norm_eps;
  return Ok{};
}

Status Backbone::ReadLinear(const std::string& name, int64_t rows, int64_t cols, bool bias, Quantize quantize,
                            nn::Linear* layer) {
  Result<format::Matrix> matrix = source_->ReadMatrix(name, rows, cols, quantize);
  if (!matrix.ok()) return matrix.failure();
  layer->frozen = matrix.value();
  if (!bias) return Ok{};
  const std::string bias_name = name.substr(0, name.rfind('.')) + ".bias";
  Result<std::vector<float>> values = source_->ReadVector(bias_name, rows);
  if (!values.ok()) return values.failure();
  layer->bias = std::move(values).value();
  return Ok{};
}

Status Backbone::ReadBlock(const Names& names, int64_t layer, Quantize quantize) {
  nn::DecoderBlock& block = blocks_[static_cast<size_t>(layer)];
  const Config& c = config_;
  const int64_t q = c.Hq * c.D, kv = c.Hkv * c.D;
  struct Row {
    const std::string& pattern;
    int64_t rows, cols;
    bool bias;
    nn::Linear* layer;
  };
  const Row linears[] = {
      {names.q, q, c.C, c.qkv_bias, &block.attention.q},  {names.k, kv, c.C, c.qkv_bias, &block.attention.k},
      {names.v, kv, c.C, c.qkv_bias, &block.attention.v}, {names.o, c.C, q, false, &block.attention.o},
      {names.gate, c.F, c.C, false, &block.mlp.gate},     {names.up, c.F, c.C, false, &block.mlp.up},
      {names.down, c.C, c.F, false, &block.mlp.down}};
  for (const Row& row : linears) {
    if (row.layer == &block.mlp.gate && !block.shape.gated) continue;
    Status read =
        ReadLinear(names.Layer(row.pattern, layer), row.rows, row.cols, row.bias, quantize, row.layer);
    if (!read.ok()) return read;
  }
  if (c.qk_norm) {
    if (Status read = ReadNorm(names.Layer(names.q_norm, layer), c.D, &block.attention.q_norm); !read.ok())
      return read;
    if (Status read = ReadNorm(names.Layer(names.k_norm, layer), c.D, &block.attention.k_norm); !read.ok())
      return read;
  }
  Status read = ReadNorm(names.Layer(names.attention_norm, layer), c.C, &block.attention_norm);
  if (!read.ok()) return read;
  return ReadNorm(names.Layer(names.mlp_norm, layer), c.C, &block.mlp_norm);
}

void Backbone::Embed(Exec& ex, In ids, Out x) const { ops::Embed(ex, ids, embedding_, 1.0f, x); }

void Backbone::Forward(Exec& ex, In ids, const nn::RowLayout& rows, int64_t layers, Out x,
                       const TapSink& sink) const {
  Embed(ex, ids, x);
  for (int64_t layer = 0; layer < layers; ++layer) {
    block(layer).Forward(ex, x.t, {rows, rope_}, x, nullptr);
    if (sink) sink(layer, x.t);
  }
}

void Backbone::Logits(Exec& ex, In z, Out logits) const {
  Frame frame(ex.arena());
  const Tensor h = ex.arena().Scratch(ex.compute(), z.t.rows(), z.t.cols(), Use::kHead, "head input");
  final_norm_.Forward(ex, z, Out{h}, nullptr);
  const ops::FrozenProduct product{&head_, nullptr, logits.t, false};
  ops::ProjectFrozen(ex, h, {&product, 1});
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
