// Training steps on models that are stored quantised, against the same steps on the numbers that the codes
// stand for, stored as f32. Codes of folders are laid out here from the formats' definitions
// (docs/formats/int4.md), and the numbers computed before they are; superblocks of GGUF files are decoded by
// the scalar reference (format/format_golden_test.cc).
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <map>
#include <random>

#include "base/half.h"
#include "io/gguf_writer.h"
#include "kernels/cpu/frozen_testing.h"
#include "train/golden_run.h"

namespace rung::train {
namespace {

using Bytes = std::vector<std::byte>;

// Six blocks of 64 columns in a row at least, and an inner width that cuts the last group or tile of 128.
constexpr int64_t kLayers = 3, kVocabulary = 48, kHead = 64, kHeads = 6, kKvHeads = 2;
constexpr int64_t kWidth = kHead * kHeads, kInner = 448, kGroup = 64, kWideGroup = 128;
// Of GGUF files: two and three superblocks.
constexpr int64_t kSuperHeads = 8, kSuperWidth = kHead * kSuperHeads, kSuperInner = 768;

struct Part {
  std::string suffix, dtype;
  std::vector<int64_t> shape;
  Bytes bytes;
};
template <class V>
Part PartOf(const std::string& suffix, const std::string& dtype, std::vector<int64_t> shape,
            const std::vector<V>& values) {
  Part part{suffix, dtype, std::move(shape), Bytes(values.size() * sizeof(V))};
  std::memcpy(part.bytes.data(), values.data(), part.bytes.size());
  return part;
}

// A linear layer as a folder stores it, and the matrix that it is.
struct Packed {
  std::vector<Part> parts;
  std::vector<float> values;
};

// Eight codes to a word: its nibble b is code order[b] of the eight.
std::vector<uint32_t> Words(const std::vector<int>& codes, const std::array<int, 8>& order) {
  std::vector<uint32_t> words(codes.size() / 8);
  for (size_t i = 0; i < codes.size(); ++i) {
    const auto nibble = static_cast<size_t>(std::find(order.begin(), order.end(), i % 8) - order.begin());
    words[i / 8] |= static_cast<uint32_t>(codes[i]) << (4 * nibble);
  }
  return words;
}
template <class V>
std::vector<V> Transposed(const std::vector<V>& from, int64_t rows, int64_t cols) {
  std::vector<V> to(from.size());
  for (int64_t i = 0; i < rows * cols; ++i) {
    to[static_cast<size_t>(i % cols * rows + i / cols)] = from[static_cast<size_t>(i)];
  }
  return to;
}

constexpr std::array<int, 8> kStraight = {0, 1, 2, 3, 4, 5, 6, 7}, kAwqOrder = {0, 2, 4, 6, 1, 3, 5, 7};

struct Int4Kind {
  bool awq = false, act_order = false;
  int zero_less = 0;  // what is stored is the zero point less this, modulo 16
  int64_t group = 0;
};

Packed PackInt4(std::mt19937& random, int64_t rows, int64_t cols, const Int4Kind& kind) {
  const int64_t groups = (cols + kind.group - 1) / kind.group;
  std::vector<int> codes(static_cast<size_t>(rows * cols)), zeros(static_cast<size_t>(rows * groups)), stored;
  std::vector<F16> scales(zeros.size());
  std::vector<int32_t> group_of(static_cast<size_t>(cols));
  for (int& code : codes) code = static_cast<int>(random() % 16);
  for (int& zero : zeros) {
    zero = static_cast<int>(random() % 16);
    stored.push_back((zero + 16 - kind.zero_less) % 16);
  }
  for (F16& scale : scales) scale = ToF16(std::uniform_real_distribution<float>(0.005f, 0.02f)(random));
  for (int64_t k = 0; k < cols; ++k) group_of[static_cast<size_t>(k)] = static_cast<int32_t>(k / kind.group);
  if (kind.act_order) std::shuffle(group_of.begin(), group_of.end(), random);
  Packed packed;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < cols; ++k) {
      const auto at = static_cast<size_t>(r * groups + group_of[static_cast<size_t>(k)]);
      packed.values.push_back(ToFloat(scales[at]) *
                              static_cast<float>(codes[static_cast<size_t>(r * cols + k)] - zeros[at]));
    }
  }
  const std::vector<int> zeros_by_group = Transposed(stored, rows, groups);
  packed.parts.push_back(PartOf("scales", "F16", {groups, rows}, Transposed(scales, rows, groups)));
  if (kind.awq) {
    packed.parts.push_back(
        PartOf("qweight", "I32", {cols, rows / 8}, Words(Transposed(codes, rows, cols), kAwqOrder)));
    packed.parts.push_back(PartOf("qzeros", "I32", {groups, rows / 8}, Words(zeros_by_group, kAwqOrder)));
    return packed;
  }
  packed.parts.push_back(
      PartOf("qweight", "I32", {cols / 8, rows}, Transposed(Words(codes, kStraight), rows, cols / 8)));
  packed.parts.push_back(PartOf("qzeros", "I32", {groups, rows / 8}, Words(zeros_by_group, kStraight)));
  packed.parts.push_back(PartOf("g_idx", "I32", {cols}, group_of));
  return packed;
}

// Sign, four bits of exponent with a bias of 7, three of mantissa; no infinities.
float E4m3(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                   : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return code & 0x80 ? -size : size;
}

Packed PackFloat8(std::mt19937& random, int64_t rows, int64_t cols, const std::string& name,
                  int64_t tile_rows, int64_t tile_cols) {
  const int64_t down = (rows + tile_rows - 1) / tile_rows, across = (cols + tile_cols - 1) / tile_cols;
  std::vector<float> scales(static_cast<size_t>(down * across));
  for (float& scale : scales) scale = std::uniform_real_distribution<float>(0.0005f, 0.001f)(random);
  std::vector<uint8_t> codes;
  Packed packed;
  for (int64_t i = 0; i < rows * cols; ++i) {
    const auto code = static_cast<int>(random() % 254);
    codes.push_back(static_cast<uint8_t>(code < 127 ? code : code + 1));  // 0x7f and 0xff are NaN
    const int64_t tile = i / cols / tile_rows * across + i % cols / tile_cols;
    packed.values.push_back(E4m3(codes.back()) * scales[static_cast<size_t>(tile)]);
  }
  packed.parts.push_back(PartOf(name, "F32", {down, across}, scales));
  packed.parts.push_back(PartOf("weight", "F8_E4M3", {rows, cols}, codes));
  return packed;
}

// The maps are those of a file that bitsandbytes wrote.
Packed PackNf4(std::mt19937& random, int64_t rows, int64_t cols) {
  const model::Golden written("tests/data/quantized/nf4_double/model.safetensors");
  const std::string there = "model.layers.0.self_attn.k_proj.weight.";
  const std::vector<float> levels = written.Floats(there + "quant_map"),
                           map = written.Floats(there + "nested_quant_map");
  constexpr float kOffset = 0.09f;
  const int64_t blocks = rows * cols / 64;
  std::vector<uint8_t> codes, absmax;
  std::vector<float> nested;
  for (int64_t i = 0; i < rows * cols / 2; ++i) codes.push_back(static_cast<uint8_t>(random()));
  for (int64_t i = 0; i < blocks; ++i) absmax.push_back(static_cast<uint8_t>(random()));
  for (int64_t i = 0; i < (blocks + 255) / 256; ++i) {
    nested.push_back(std::uniform_real_distribution<float>(0.02f, 0.05f)(random));
  }
  Packed packed;
  for (size_t i = 0; i < codes.size() * 2; ++i) {
    const int code = i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;  // the first in the high nibble
    const float product = map[absmax[i / 64]] * nested[i / 64 / 256];
    packed.values.push_back(levels[static_cast<size_t>(code)] * (product + kOffset));
  }
  const std::string state =
      "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float32\", \"shape\": [" +
      std::to_string(rows) + ", " + std::to_string(cols) +
      "], \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", "
      "\"nested_offset\": " +
      std::to_string(kOffset) + "}";
  const std::vector<char> text(state.begin(), state.end());
  const auto count = [](const auto& values) { return static_cast<int64_t>(values.size()); };
  packed.parts = {PartOf("weight.nested_absmax", "F32", {count(nested)}, nested),
                  PartOf("weight.nested_quant_map", "F32", {256}, map),
                  PartOf("weight.quant_map", "F32", {16}, levels),
                  PartOf("weight", "U8", {count(codes), 1}, codes),
                  PartOf("weight.absmax", "U8", {blocks}, absmax),
                  PartOf("weight.quant_state.bitsandbytes__nf4", "U8", {count(text)}, text)};
  return packed;
}

struct FolderKind {
  const char *name, *format;  // the format as totals have it
  const char* quantization;   // of config.json
  Packed (*pack)(std::mt19937& random, int64_t rows, int64_t cols);
};
constexpr FolderKind kFolders[] = {
    {"gptq_act_order", "int4",
     R"({"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": true, "sym": false})",
     [](std::mt19937& random, int64_t rows, int64_t cols) {
       return PackInt4(random, rows, cols, {false, true, 1, kGroup});
     }},
    {"gptq_v2_cut_group", "int4",
     R"({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": false,
         "checkpoint_format": "gptq_v2"})",
     [](std::mt19937& random, int64_t rows, int64_t cols) {
       return PackInt4(random, rows, cols, {false, false, 0, kWideGroup});
     }},
    {"awq", "int4",
     R"({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm", "zero_point": true})",
     [](std::mt19937& random, int64_t rows, int64_t cols) {
       return PackInt4(random, rows, cols, {true, false, 0, kGroup});
     }},
    {"fp8_tiles", "f8_e4m3", R"({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]})",
     [](std::mt19937& random, int64_t rows, int64_t cols) {
       return PackFloat8(random, rows, cols, "weight_scale_inv", 128, 128);
     }},
    {"fp8_rows", "f8_e4m3",
     R"({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0":
         {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel",
          "symmetric": true, "dynamic": false}}}, "ignore": ["lm_head"]})",
     [](std::mt19937& random, int64_t rows, int64_t cols) {
       return PackFloat8(random, rows, cols, "weight_scale", 1, cols);
     }},
    {"nf4_double", "nf4",
     R"({"quant_method": "bitsandbytes", "load_in_4bit": true, "load_in_8bit": false,
         "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true, "bnb_4bit_compute_dtype": "float32",
         "bnb_4bit_quant_storage": "uint8"})",
     PackNf4}};
void PrintTo(const FolderKind& kind, std::ostream* out) { *out << kind.name; }

std::vector<float> Uniform(std::mt19937& random, int64_t count, float low, float high) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = std::uniform_real_distribution<float>(low, high)(random);
  return values;
}

// ---- steps ----

data::Batch BatchOf(std::mt19937& random) {
  data::Batch batch;
  batch.starts = {0, 15, 26};
  for (int64_t n = 0; n < 26; ++n) {
    batch.ids.push_back(static_cast<int32_t>(random() % kVocabulary));
    batch.target.push_back(n % 4 == 1 ? -1 : static_cast<int32_t>(random() % kVocabulary));
    batch.position.push_back(static_cast<int32_t>(n < 15 ? n : n - 15));
  }
  return batch;
}

model::AdapterSpec AllPairs(const model::Config& config) {
  model::AdapterSpec spec;
  spec.lora = model::LoraSpec{4, 8.0, 0.0, false, model::LoraTargets(config), {0, 1, 2}};
  return spec;
}
model::AdapterSpec Rejoining(const model::Config&) {
  model::AdapterSpec spec;
  spec.ladder = model::LadderSpec{};
  spec.ladder->taps = {0};
  spec.ladder->rungs = 1;
  spec.ladder->S = 64;
  spec.ladder->F = 96;
  spec.ladder->rejoin = 2;
  return spec;
}

model::Backbone LoadExactly(const Path& path) {
  model::BackboneOptions options;
  options.recipe.matrices = model::Quantize::kNone;
  options.positions = 32;
  return model::Backbone::Load(path, options).OrThrow();
}

// One step by each instruction set on the packed model gives the losses and gradients that the plain one has.
void ExpectSameSteps(const Path& packed_path, const Path& plain_path, const std::string& format) {
  const model::Backbone packed = LoadExactly(packed_path), plain = LoadExactly(plain_path);
  ASSERT_EQ(packed.weight_totals().bytes.count(format), 1u);
  ASSERT_EQ(packed.block(1).mlp.down.frozen.format, packed.block(1).attention.q.frozen.format);
  ASSERT_EQ(plain.block(1).mlp.down.frozen.format, format::Format::kF32);
  std::mt19937 random(77);
  const data::Batch batch = BatchOf(random);
  for (const auto spec_of : {AllPairs, Rejoining}) {
    model::Adapter adapter =
        model::Adapter::Make(plain.config(), spec_of(plain.config()), 5, true, plain.positions());
    adapter.ForEachParam([&](nn::Param& param) {  // zeros would hide what they multiply
      const std::vector<float> more = Uniform(random, param.value.size(), -0.03f, 0.03f);
      for (size_t i = 0; i < more.size(); ++i) Out{param.value}.as<float>()[i] += more[i];
    });
    const Outcome want = RunStep(plain, adapter, {batch}, {cpu::BestIsa(), 2}, DType::kF32);
    const std::vector<NamedGradient> wanted = GradientsOf(adapter);
    for (int isa = 0; isa <= static_cast<int>(cpu::BestIsa()); ++isa) {
      SCOPED_TRACE(cpu::NameOf(static_cast<cpu::Isa>(isa)));
      const Outcome got = RunStep(packed, adapter, {batch}, {static_cast<cpu::Isa>(isa), 2}, DType::kF32);
      EXPECT_LE(model::RelativeError(got.loss, want.loss), 1e-5);
      const std::vector<NamedGradient> gradients = GradientsOf(adapter);
      for (size_t i = 0; i < wanted.size(); ++i) {
        EXPECT_LE(model::RelativeError(gradients[i].values, wanted[i].values), 1e-4) << wanted[i].name;
      }
    }
  }
}

class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& name)
      : path_(Path(testing::TempDir()) / ("rung_packed_" + name + "_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const Path& path() const { return path_; }

 private:
  Path path_;
};

// ---- folders ----

void WriteFolder(const Path& folder, const std::map<std::string, Part>& parts,
                 const std::string& quantization) {
  std::filesystem::create_directories(folder);
  std::vector<io::TensorToWrite> tensors;
  for (const bool wide : {true, false}) {
    for (const auto& [name, part] : parts) {
      if ((part.dtype == "F32" || part.dtype == "I32") == wide) {
        tensors.push_back({name, part.dtype, part.shape, part.bytes});
      }
    }
  }
  io::WriteSafetensors(folder / "model.safetensors", tensors, {}).OrThrow();
  std::ofstream config(folder / "config.json");
  config << R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "tie_word_embeddings": true, "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "rope_theta": 10000.0)"
         << ", \"hidden_size\": " << kWidth << ", \"intermediate_size\": " << kInner
         << ", \"num_hidden_layers\": " << kLayers << ", \"num_attention_heads\": " << kHeads
         << ", \"num_key_value_heads\": " << kKvHeads << ", \"vocab_size\": " << kVocabulary;
  if (!quantization.empty()) config << ", \"quantization_config\": " << quantization;
  config << "}";
}

class PackedFolderTest : public testing::TestWithParam<FolderKind> {};

TEST_P(PackedFolderTest, StepsAreThoseOfTheNumbers) {
  const FolderKind& kind = GetParam();
  const TemporaryFolder folder(kind.name);
  std::mt19937 random(3);
  std::map<std::string, Part> packed;
  packed["model.embed_tokens.weight"] =
      PartOf("", "F32", {kVocabulary, kWidth}, Uniform(random, kVocabulary * kWidth, -1.0f, 1.0f));
  packed["model.norm.weight"] = PartOf("", "F32", {kWidth}, Uniform(random, kWidth, 0.5f, 1.5f));
  std::map<std::string, Part> plain = packed;
  const std::map<std::string, std::pair<int64_t, int64_t>> linears = {
      {"self_attn.q_proj", {kWidth, kWidth}},
      {"self_attn.k_proj", {kKvHeads * kHead, kWidth}},
      {"self_attn.v_proj", {kKvHeads * kHead, kWidth}},
      {"self_attn.o_proj", {kWidth, kWidth}},
      {"mlp.gate_proj", {kInner, kWidth}},
      {"mlp.up_proj", {kInner, kWidth}},
      {"mlp.down_proj", {kWidth, kInner}}};
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    for (const char* norm : {"input_layernorm.weight", "post_attention_layernorm.weight"}) {
      packed[prefix + norm] = plain[prefix + norm] =
          PartOf("", "F32", {kWidth}, Uniform(random, kWidth, 0.3f, 0.9f));
    }
    for (const auto& [name, extents] : linears) {
      const auto& [rows, cols] = extents;
      const Packed made = kind.pack(random, rows, cols);
      for (const Part& part : made.parts) packed[prefix + name + "." + part.suffix] = part;
      plain[prefix + name + ".weight"] = PartOf("", "F32", {rows, cols}, made.values);
    }
  }
  WriteFolder(folder.path() / "packed", packed, kind.quantization);
  WriteFolder(folder.path() / "plain", plain, "");
  ExpectSameSteps(folder.path() / "packed", folder.path() / "plain", kind.format);
}

INSTANTIATE_TEST_SUITE_P(All, PackedFolderTest, testing::ValuesIn(kFolders),
                         [](const auto& test) { return std::string(test.param.name); });

// ---- GGUF ----

struct Stored {
  std::string name;
  format::Format format;
  std::vector<int64_t> dims;
  Bytes bytes;
};

void WriteGguf(const Path& file, const std::vector<Stored>& tensors) {
  const io::GgufFields fields = {{"general.architecture", std::string("llama")},
                                 {"llama.block_count", static_cast<uint32_t>(kLayers)},
                                 {"llama.embedding_length", static_cast<uint32_t>(kSuperWidth)},
                                 {"llama.feed_forward_length", static_cast<uint32_t>(kSuperInner)},
                                 {"llama.attention.head_count", static_cast<uint32_t>(kSuperHeads)},
                                 {"llama.attention.head_count_kv", static_cast<uint32_t>(kKvHeads)},
                                 {"llama.attention.layer_norm_rms_epsilon", 1e-5f},
                                 {"llama.context_length", uint32_t{64}}};
  std::vector<io::GgufLayout> layouts;
  for (const Stored& t : tensors) layouts.push_back({t.name, format::Of(t.format).gguf_type, t.dims});
  io::GgufWriter writer = io::GgufWriter::Create(file, fields, layouts).OrThrow();
  for (size_t i = 0; i < tensors.size(); ++i) writer.Write(i, 0, tensors[i].bytes).OrThrow();
  writer.Commit().OrThrow();
}

class PackedGguf {
 public:
  explicit PackedGguf(format::Format format) : format_(format) {}

  void AddVector(const std::string& name, const std::vector<float>& values) {
    const Part part = PartOf("", "F32", {}, values);
    const Stored stored{name, format::Format::kF32, {static_cast<int64_t>(values.size())}, part.bytes};
    packed_.push_back(stored);
    plain_.push_back(stored);
  }
  // Returns the root mean square of its numbers.
  double AddMatrix(const std::string& name, int64_t rows, int64_t cols) {
    const cpu::Frozen frozen(format_, rows, cols, false, ++seed_);
    const std::vector<float> values = frozen.Decode();
    const std::byte* data = frozen.view().data;
    packed_.push_back(
        {name, format_, {cols, rows}, Bytes(data, data + format::DataBytes(format_, rows, cols))});
    plain_.push_back({name, format::Format::kF32, {cols, rows}, PartOf("", "F32", {}, values).bytes});
    double squares = 0.0;
    for (const float v : values) squares += static_cast<double>(v) * static_cast<double>(v);
    return std::sqrt(squares / static_cast<double>(values.size()));
  }
  // Gains that bring what a matrix of such numbers makes of normalised rows to a size of one.
  void AddNorm(const std::string& name, double size, std::mt19937& random) {
    const auto gain = static_cast<float>(1.0 / (size * std::sqrt(static_cast<double>(kSuperWidth))));
    AddVector(name, Uniform(random, kSuperWidth, 0.5f * gain, 1.5f * gain));
  }
  void Write(const Path& packed, const Path& plain) const {
    WriteGguf(packed, packed_);
    WriteGguf(plain, plain_);
  }

 private:
  format::Format format_;
  uint32_t seed_ = 0;
  std::vector<Stored> packed_, plain_;
};

class PackedGgufTest : public testing::TestWithParam<format::Format> {};

TEST_P(PackedGgufTest, StepsAreThoseOfTheNumbers) {
  const std::string format(format::Of(GetParam()).name);
  const TemporaryFolder folder(format);
  std::mt19937 random(4);
  PackedGguf file(GetParam());
  file.AddMatrix("token_embd.weight", kVocabulary, kSuperWidth);
  file.AddNorm("output_norm.weight", file.AddMatrix("output.weight", kVocabulary, kSuperWidth), random);
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    const double q = file.AddMatrix(prefix + "attn_q.weight", kSuperWidth, kSuperWidth);
    file.AddMatrix(prefix + "attn_k.weight", kKvHeads * kHead, kSuperWidth);
    file.AddMatrix(prefix + "attn_v.weight", kKvHeads * kHead, kSuperWidth);
    file.AddMatrix(prefix + "attn_output.weight", kSuperWidth, kSuperWidth);
    const double gate = file.AddMatrix(prefix + "ffn_gate.weight", kSuperInner, kSuperWidth);
    file.AddMatrix(prefix + "ffn_up.weight", kSuperInner, kSuperWidth);
    file.AddMatrix(prefix + "ffn_down.weight", kSuperWidth, kSuperInner);
    file.AddNorm(prefix + "attn_norm.weight", q, random);
    file.AddNorm(prefix + "ffn_norm.weight", gate, random);
  }
  file.Write(folder.path() / "packed.gguf", folder.path() / "plain.gguf");
  ExpectSameSteps(folder.path() / "packed.gguf", folder.path() / "plain.gguf", format);
}

INSTANTIATE_TEST_SUITE_P(All, PackedGgufTest,
                         testing::Values(format::Format::kQ4K, format::Format::kQ6K, format::Format::kIq4Xs,
                                         format::Format::kMxfp4, format::Format::kQ2K, format::Format::kQ3K,
                                         format::Format::kQ5K),
                         [](const auto& test) { return std::string(format::Of(test.param).name); });

}  // namespace
}  // namespace rung::train
