#include "cli/quantize_random.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "cli/quantize_noise.h"
#include "cli/quantize_output.h"
#include "model/shapes.h"
#include "model/weights.h"

namespace rung::cli {
namespace {

constexpr uint64_t kChunkBytes = uint64_t{4} << 20;
constexpr uint16_t kBf16One = 0x3F80;
constexpr double kDeviation = Noise::kDeviation;

struct RandomTensor {
  OutputTensor output;
  double deviation = kDeviation;  // 0: all ones
};

model::Config ConfigOf(const std::string& shape) {
  Result<model::Config> config = model::ShapeOf(shape);
  // The names of shapes win: a folder may be called after its shape.
  const bool is_path = !config.ok() && (std::filesystem::exists(shape) || shape.ends_with(".json"));
  if (is_path) config = model::ReadConfig(shape);
  if (!config.ok()) {
    throw Error(config.failure().code, fmt::format("--random {}", config.failure().message));
  }
  if (is_path && model::IsGgufFile(shape)) {
    throw Error(ExitCode::kUsage,
                fmt::format("--random {}: a config.json or the name of a shape is needed", shape));
  }
  if (!model::CanRun(config.value())) {
    throw Error(ExitCode::kUsage,
                fmt::format("--random {}: weights of the family {} are not read; known are: {}", shape,
                            config.value().family, model::KnownFamilies()));
  }
  return std::move(config).value();
}

// All tensors of a checkpoint, in the order of the forward pass.
std::vector<RandomTensor> Tensors(const model::Config& c, bool embeddings) {
  const model::Names& names = model::HfNames();
  const double residual = kDeviation / std::sqrt(2.0 * static_cast<double>(c.L));
  const int64_t q = c.Hq * c.D, kv = c.Hkv * c.D;
  std::vector<RandomTensor> tensors;
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols, bool nf4, double deviation) {
    tensors.push_back({{name, "BF16", {rows, cols}, nf4}, deviation});
  };
  const auto vector = [&](const std::string& name, int64_t size, double deviation) {
    tensors.push_back({{name, "BF16", {size}}, deviation});
  };
  matrix(names.embedding, c.V, c.C, embeddings, kDeviation);
  for (int64_t layer = 0; layer < c.L; ++layer) {
    const auto linear = [&](const std::string& pattern, int64_t rows, int64_t cols, bool bias,
                            double deviation) {
      const std::string name = names.Layer(pattern, layer);
      matrix(name, rows, cols, true, deviation);
      if (bias) vector(name.substr(0, name.rfind('.')) + ".bias", rows, deviation);
    };
    vector(names.Layer(names.attention_norm, layer), c.C, 0.0);
    linear(names.q, q, c.C, c.qkv_bias, kDeviation);
    linear(names.k, kv, c.C, c.qkv_bias, kDeviation);
    linear(names.v, kv, c.C, c.qkv_bias, kDeviation);
    linear(names.o, c.C, q, false, residual);
    if (c.qk_norm) {
      vector(names.Layer(names.q_norm, layer), c.D, 0.0);
      vector(names.Layer(names.k_norm, layer), c.D, 0.0);
    }
    vector(names.Layer(names.mlp_norm, layer), c.C, 0.0);
    linear(names.gate, c.F, c.C, false, kDeviation);
    linear(names.up, c.F, c.C, false, kDeviation);
    linear(names.down, c.C, c.F, false, residual);
  }
  vector(names.final_norm, c.C, 0.0);
  if (!c.tied_head) matrix(names.head, c.V, c.C, embeddings, kDeviation);
  return tensors;
}

// Numbers of the first tensor of every file, and the number of all behind the last.
std::vector<size_t> ShardBounds(const std::vector<RandomTensor>& tensors, const RandomOptions& options) {
  std::vector<size_t> bounds = {0};
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t more = OutputBytes(tensors[i].output, options.nested);
    if (bytes > 0 && bytes + more > options.shard_bytes) {
      bounds.push_back(i);
      bytes = 0;
    }
    bytes += more;
  }
  bounds.push_back(tensors.size());
  return bounds;
}

// Two keys for each tensor, of its codes or numbers and of its scales.
uint64_t KeyOf(uint64_t seed, size_t tensor, uint64_t which) {
  const Rng rng(seed, Stream::kInit, static_cast<uint32_t>(tensor));
  return uint64_t{rng.Bits(2 * which)} << 32 | rng.Bits(2 * which + 1);
}

class RandomWriter {
 public:
  explicit RandomWriter(const RandomOptions& options) : options_(options) {}

  void Write(const RandomTensor& tensor, size_t number, Nf4File* file) {
    uint64_t n = 1;
    for (const int64_t dim : tensor.output.shape) n *= static_cast<uint64_t>(dim);
    const uint64_t key = KeyOf(options_.seed, number, 0);
    const std::string& name = tensor.output.name;
    if (!tensor.output.nf4) {
      Fill<uint16_t>(n, name, file, [&](uint64_t begin, std::span<uint16_t> part) {
        if (tensor.deviation > 0.0) return noise_.Normal(key, begin, part);
        std::fill(part.begin(), part.end(), kBf16One);
      });
      return;
    }
    Fill<uint8_t>((n + 1) / 2, name, file,
                  [&](uint64_t begin, std::span<uint8_t> part) { noise_.Codes(key, begin, part); });
    format::Nf4Encoded scales;
    const int64_t blocks = (static_cast<int64_t>(n) + format::kNf4Block - 1) / format::kNf4Block;
    scales.absmax = noise_.Scales(KeyOf(options_.seed, number, 1), blocks, tensor.deviation);
    if (options_.nested) format::NestScales(&scales);
    file->WriteScales(tensor.output, scales);
  }

 private:
  template <class T, class Make>
  void Fill(uint64_t count, const std::string& name, Nf4File* file, const Make& make) {
    constexpr uint64_t kChunk = kChunkBytes / sizeof(T);
    std::vector<T> part;
    for (uint64_t begin = 0; begin < count; begin += kChunk) {
      part.resize(static_cast<size_t>(std::min(kChunk, count - begin)));
      make(begin, std::span(part));
      file->Write(name, begin * sizeof(T), std::as_bytes(std::span(part)));
    }
  }

  const RandomOptions& options_;
  Noise noise_;
};

void WriteText(const Path& path, const std::string& text) {
  const Status wrote = WriteTextFile(path, text);
  if (!wrote.ok()) throw Error(wrote.failure().code, wrote.failure().message);
}

QuantizeResult WriteShards(const std::vector<RandomTensor>& tensors, const RandomOptions& options,
                           const Path& folder, const QuantizeProgress& on_progress) {
  const std::vector<size_t> bounds = ShardBounds(tensors, options);
  const size_t shards = bounds.size() - 1;
  RandomWriter writer(options);
  QuantizeResult result;
  nlohmann::ordered_json weight_map = nlohmann::ordered_json::object();
  for (size_t shard = 0; shard < shards; ++shard) {
    const std::string name = shards == 1 ? "model.safetensors"
                                         : fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, shards);
    std::vector<OutputTensor> outputs;
    for (size_t i = bounds[shard]; i < bounds[shard + 1]; ++i) outputs.push_back(tensors[i].output);
    Nf4File file(folder / name, outputs, options.nested);
    for (size_t i = bounds[shard]; i < bounds[shard + 1]; ++i) {
      writer.Write(tensors[i], i, &file);
      result.linears += tensors[i].output.nf4;
      if (on_progress && !on_progress(i + 1, tensors.size())) {
        throw Error(ExitCode::kInterrupted, "interrupted: nothing was kept");
      }
    }
    file.Commit();
    result.bytes_after += file.bytes();
    for (const std::string& tensor : file.names()) weight_map[tensor] = name;
  }
  if (shards > 1) {
    const nlohmann::ordered_json index = {{"metadata", {{"total_size", result.bytes_after}}},
                                          {"weight_map", weight_map}};
    WriteText(folder / "model.safetensors.index.json", index.dump(2) + "\n");
  }
  return result;
}

}  // namespace

QuantizeResult QuantizeRandom(const RandomOptions& options, const QuantizeProgress& on_progress) {
  const model::Config config = ConfigOf(options.shape);
  const std::vector<RandomTensor> tensors = Tensors(config, options.embeddings);
  uint64_t needed = 0;
  for (const RandomTensor& tensor : tensors) needed += OutputBytes(tensor.output, options.nested);
  NewFolder folder(options.out);
  CheckSpace(folder.path(), needed);
  QuantizeResult result = WriteShards(tensors, options, folder.path(), on_progress);
  result.bytes_before = 2 * static_cast<uint64_t>(config.parameter_count());  // of a 16-bit folder
  WriteText(folder.path() / "config.json",
            WithQuantizationConfig(model::HfConfigJson(config), options.nested));
  folder.Commit();
  return result;
}

}  // namespace rung::cli
