#include "train/identity.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "io/gguf.h"
#include "io/sha256.h"

namespace rung::train {
namespace {

constexpr uint64_t kHashStart = 0xcbf29ce484222325ull;  // FNV-1a

uint64_t Hash(uint64_t h, const void* data, size_t size) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < size; ++i) h = (h ^ bytes[i]) * 0x100000001b3ull;
  return h;
}

constexpr uint64_t kSampleBytes = 4096;
constexpr uint64_t kSamples = 64;
// What of a folder decides its tokens, and the largest that such a file may be.
constexpr const char* kTokenizerFiles[] = {
    "tokenizer.json",         "tokenizer_config.json", "special_tokens_map.json",
    "generation_config.json", "config.json",           "chat_template.jinja"};
constexpr uint64_t kTokenizerLimit = uint64_t{128} << 20;
// What of a folder decides the computation, besides the weights.
constexpr const char* kSettings[] = {"config.json", "quantize_config.json", "quant_config.json"};

uint64_t HashOfSamples(const Path& path, uint64_t h) {
  Result<RandomAccessFile> file = RandomAccessFile::Open(path);
  if (!file.ok()) throw Error(file.failure().code, file.failure().message);
  const uint64_t size = file.value().size();
  h = Hash(h, &size, sizeof(size));
  std::vector<std::byte> bytes(static_cast<size_t>(std::min(size, kSampleBytes)));
  const uint64_t room = size - bytes.size();
  for (uint64_t i = 0; i < kSamples; ++i) {
    // Double: offsets of a file beyond 2^53 bytes would be rounded, which changes no file's identity.
    const auto at =
        static_cast<uint64_t>(static_cast<double>(room) * static_cast<double>(i) / (kSamples - 1));
    Status read = file.value().Read(std::min(at, room), bytes);
    if (!read.ok()) throw Error(read.failure().code, read.failure().message);
    h = Hash(h, bytes.data(), bytes.size());
  }
  return h;
}

}  // namespace

std::string RunIdentity::text(const model::Config& config) const {
  return fmt::format("model={}:{}x{}x{} weights={} data={}", config.family, config.L, config.C, config.V,
                     weights, data);
}

std::string WeightsIdentity(const Path& model) {
  std::vector<Path> files;
  std::error_code error;
  if (!std::filesystem::is_directory(model, error)) {
    // A run is of the whole model, whichever of its parts names it.
    files = io::GgufFiles(model);
    std::erase_if(files, [&](const Path& file) { return !std::filesystem::exists(file, error); });
  } else {
    for (const auto& entry : std::filesystem::directory_iterator(model, error)) {
      const bool settings = std::find(std::begin(kSettings), std::end(kSettings), entry.path().filename()) !=
                            std::end(kSettings);
      if (settings || entry.path().extension() == ".safetensors") files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
  }
  uint64_t h = kHashStart;
  for (const Path& file : files) h = HashOfSamples(file, h);
  return fmt::format("{:016x}", h);
}

std::string DataIdentity(const EncodedData& data) { return data.examples.digest().substr(0, 16); }

std::string TextIdentity(const Path& model, const std::string& chat_template) {
  io::Sha256 sum;
  const auto add = [&](std::string_view part) { sum.Add(fmt::format("{}:", part.size())), sum.Add(part); };
  add(chat_template);
  std::error_code error;
  if (std::filesystem::is_directory(model, error)) {
    for (const char* name : kTokenizerFiles) {
      if (!std::filesystem::exists(model / name, error)) continue;
      add(name);
      add(ReadTextFile(model / name, kTokenizerLimit).OrThrow());
    }
    return sum.Hex();
  }
  const io::Gguf file = io::Gguf::Open(model).OrThrow();
  const auto numbers = [&](const auto& list) {
    add({reinterpret_cast<const char*>(list.data()), list.size() * sizeof(list[0])});
  };
  for (const auto& [key, value] : file.metadata()) {
    if (!key.starts_with("tokenizer.")) continue;
    add(key);
    if (const std::string* text = file.GetString(key)) add(*text);
    if (const auto number = file.GetInt(key)) add(fmt::format("{}", *number));
    if (const auto* texts = file.GetStrings(key)) {
      for (const std::string& text : *texts) add(text);
    }
    if (const auto* list = file.GetInts(key)) numbers(*list);
    if (const auto* list = file.GetFloats(key)) numbers(*list);
  }
  return sum.Hex();
}

std::string Fingerprint(const TrainOptions& options, const model::AdapterSpec& spec,
                        const model::Config& config, const RunIdentity& identity,
                        const RunSchedule& schedule) {
  std::string text = fmt::format(
      "model={}:{}x{}x{} weights={} rope={} data={} seed={} tokens={} max_length={} accumulation={} steps={} "
      "warmup={} "
      "schedule={} lr={:.6g} betas={:.6g},{:.6g} decay={:.6g} clip={:.6g} moments={} quantize={} "
      "compute={}{} "
      "isa={} threads={} method={}",
      config.family, config.L, config.C, config.V, identity.weights, config.rope.half ? "half" : "pairs",
      identity.data, options.seed, options.tokens, options.max_length, options.gradient_accumulation,
      schedule.steps, schedule.warmup, NameOf(options.schedule), schedule.base_rate, options.optimizer.beta1,
      options.optimizer.beta2, options.optimizer.weight_decay, options.optimizer.max_grad_norm,
      options.optimizer.moments == Moments::kF32 ? "f32" : "8bit", options.backbone.recipe.Key(),
      NameOf(options.compute.compute), options.compute.context.int8 ? "+int8" : "",
      cpu::NameOf(options.compute.context.isa), options.compute.context.threads, NameOf(options.method));
  if (spec.ladder) {
    const model::LadderSpec& l = *spec.ladder;
    text += fmt::format(
        " taps={} rungs={} kind={} norm={} rotary={} width={} heads={}x{} gate={} tap_norm={} tap_map={} "
        "tap_storage={} "
        "rejoin={} "
        "scale={:.6g} init={}",
        fmt::join(l.taps, ","), l.rungs, static_cast<int>(l.kind), static_cast<int>(l.norm), l.rotary, l.S,
        l.block().Hq, l.head_dim, static_cast<int>(l.gate), static_cast<int>(l.tap_norm),
        static_cast<int>(l.tap_map), static_cast<int>(options.policy.taps), l.rejoin,
        options.ladder.output_scale, static_cast<int>(options.ladder.init));
    if (options.ladder.init == LadderInit::kFisher)
      text += fmt::format(" fisher_samples={}", options.ladder.fisher_samples);
  }
  if (spec.lora) {
    const model::LoraSpec& l = *spec.lora;
    text += fmt::format(" r={} alpha={:.6g} dropout={:.6g} rslora={} targets={} layers={}", l.R, l.alpha,
                        l.dropout, l.rank_stabilized, fmt::join(l.targets, ","), fmt::join(l.layers, ","));
  }
  return text;
}

}  // namespace rung::train
