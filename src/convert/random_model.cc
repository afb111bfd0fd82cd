#include "convert/random_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "convert/nf4_file.h"
#include "convert/noise.h"
#include "convert/output_folder.h"
#include "model/model_tensors.h"
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
  return std::move(config).value();
}

// All tensors of a checkpoint, in the order of the forward pass.
std::vector<RandomTensor> Tensors(const model::Config& config, bool embeddings) {
  const double residual = kDeviation / std::sqrt(2.0 * static_cast<double>(config.L));
  std::vector<RandomTensor> tensors;
  for (const model::ModelTensor& tensor : model::ModelTensors(config)) {
    if (tensor.role == model::TensorRole::kHead && config.tied_head) continue;
    const bool nf4 = (tensor.role == model::TensorRole::kLinear && !tensor.transposed) ||
                     (model::IsTable(tensor.role) && embeddings);
    const double deviation = tensor.role == model::TensorRole::kNorm ? 0.0
                             : tensor.residual                       ? residual
                                                                     : kDeviation;
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

}  // namespace

QuantizeResult QuantizeRandom(const RandomOptions& options, const OnProgress& on_progress) {
  const model::Config config = ConfigOf(options.shape);
  const std::vector<RandomTensor> tensors = Tensors(config, options.embeddings);
  QuantizeResult result;
  std::vector<OutputTensor> outputs;
  for (const RandomTensor& tensor : tensors) {
    outputs.push_back(tensor.output);
    result.linears += tensor.output.nf4;
  }
  const NamedPath input{"--random", options.shape};
  NewFolder folder(options.out, {&input, 1});
  CheckSpace(options.out, OutputBytes(outputs, options.nested));
  RandomWriter writer(options);
  result.bytes_after =
      WriteShards({folder.path(), options.nested, options.shard_bytes, on_progress}, outputs,
                  [&](size_t number, Nf4File* file) { writer.Write(tensors[number], number, file); });
  result.bytes_before = 2 * static_cast<uint64_t>(config.parameter_count());  // of a 16-bit folder
  WriteTextFile(folder.path() / "config.json",
                WithQuantizationConfig(model::HfConfigJson(config).OrThrow(), options.nested, {}))
      .OrThrow();
  folder.Commit();
  return result;
}

}  // namespace rung::convert
