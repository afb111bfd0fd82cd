#include "convert/random_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "base/rng.h"
#include "convert/model_tensors.h"
#include "convert/nf4_file.h"
#include "convert/noise.h"
#include "convert/output_folder.h"
#include "model/shapes.h"

namespace rung::convert {
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
    throw Error(config.failure().code,
                fmt::format("--random{} {}", is_path ? ":" : "", config.failure().message));
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
std::vector<RandomTensor> Tensors(const model::Config& config, bool embeddings) {
  const double residual = kDeviation / std::sqrt(2.0 * static_cast<double>(config.L));
  std::vector<RandomTensor> tensors;
  for (const ModelTensor& tensor : ModelTensors(config)) {
    const bool embedding = tensor.role == TensorRole::kEmbedding || tensor.role == TensorRole::kHead;
    if (tensor.role == TensorRole::kHead && config.tied_head) continue;
    const bool nf4 = (tensor.role == TensorRole::kLinear && !tensor.transposed) || (embedding && embeddings);
    const double deviation = tensor.role == TensorRole::kNorm ? 0.0 : tensor.residual ? residual : kDeviation;
    tensors.push_back({{tensor.name, "BF16", tensor.shape, nf4}, deviation});
  }
  return tensors;
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

QuantizeResult WriteShards(const std::vector<RandomTensor>& tensors, std::span<const uint64_t> bytes,
                           const RandomOptions& options, const Path& folder,
                           const QuantizeProgress& on_progress) {
  const std::vector<Shard> shards = ShardsOf(bytes, options.shard_bytes);
  RandomWriter writer(options);
  QuantizeResult result;
  std::map<std::string, std::string> file_of;
  for (const Shard& shard : shards) {
    std::vector<OutputTensor> outputs;
    for (size_t i = shard.begin; i < shard.end; ++i) outputs.push_back(tensors[i].output);
    Nf4File file(folder / shard.file, outputs, options.nested);
    for (size_t i = shard.begin; i < shard.end; ++i) {
      writer.Write(tensors[i], i, &file);
      result.linears += tensors[i].output.nf4;
      if (on_progress && !on_progress(i + 1, tensors.size())) {
        throw Error(ExitCode::kInterrupted, "interrupted: nothing was kept");
      }
    }
    file.Commit();
    result.bytes_after += file.bytes();
    for (const std::string& tensor : file.names()) file_of[tensor] = shard.file;
  }
  if (shards.size() > 1) WriteShardIndex(folder, file_of, result.bytes_after);
  return result;
}

}  // namespace

QuantizeResult QuantizeRandom(const RandomOptions& options, const QuantizeProgress& on_progress) {
  const model::Config config = ConfigOf(options.shape);
  const std::vector<RandomTensor> tensors = Tensors(config, options.embeddings);
  std::vector<uint64_t> bytes;
  for (const RandomTensor& tensor : tensors) bytes.push_back(OutputBytes(tensor.output, options.nested));
  const NamedPath input{"--random", options.shape};
  NewFolder folder(options.out, {&input, 1});
  CheckSpace(options.out, std::accumulate(bytes.begin(), bytes.end(), uint64_t{0}));
  QuantizeResult result = WriteShards(tensors, bytes, options, folder.path(), on_progress);
  result.bytes_before = 2 * static_cast<uint64_t>(config.parameter_count());  // of a 16-bit folder
  WriteTextFile(folder.path() / "config.json",
                WithQuantizationConfig(model::HfConfigJson(config).OrThrow(), options.nested, {}))
      .OrThrow();
  folder.Commit();
  return result;
}

}  // namespace rung::convert
