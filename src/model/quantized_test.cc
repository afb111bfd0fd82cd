// Folders that another program quantised (tools/make_quantized_fixtures.py), and matrices quantised while
// they are read.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "format/encode.h"
#include "io/json_file.h"
#include "model/folder_weights.h"
#include "model/test_support.h"

namespace rung::model {
namespace {

using nlohmann::json;

const Path kFolder = "tests/data/quantized";
constexpr int64_t kRows = 32, kCols = 64;  // of most

struct Kind {
  const char* folder;
  const char* format;  // in totals
  const char* layer = "model.layers.0.mlp.down_proj";
  int64_t rows = kRows;
};
constexpr const char* kKeys = "model.layers.0.self_attn.k_proj";
constexpr Kind kKinds[] = {{"gptq", "int4"},
                           {"gptq_sym", "int4"},
                           {"gptq_v2", "int4"},
                           {"awq", "int4"},
                           {"nf4", "nf4-single", kKeys, 16},
                           {"nf4_double", "nf4", kKeys, 16},
                           {"fp4", "fp4-single", kKeys, 16},
                           {"fp4_double", "fp4", kKeys, 16},
                           {"fp8_tiles", "f8_e4m3"},
                           {"fp8_rows", "f8_e4m3"},
                           {"fp8_tensor", "f8_e4m3"}};
constexpr const char* kDown = kKinds[0].layer;
const Kind& KindOf(const std::string& folder) {
  return *std::find_if(std::begin(kKinds), std::end(kKinds),
                       [&](const Kind& k) { return k.folder == folder; });
}

void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.folder; }

std::vector<float> Decoded(const format::Matrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.cols));
  format::Of(matrix.format).decode(matrix, 0, matrix.rows * matrix.cols, values.data());
  return values;
}

FolderSource Open(const Path& folder, FolderRead read = FolderRead::kAll) {
  return FolderSource(io::Safetensors::OpenFolder(folder).OrThrow(), read);
}

class QuantizedTest : public testing::TestWithParam<Kind> {
 protected:
  Path folder() const { return kFolder / GetParam().folder; }
};

TEST_P(QuantizedTest, MatricesAreThoseOfTheReferenceBitForBit) {
  const Golden golden(folder() / "expected.safetensors");
  FolderSource source = Open(folder());
  for (const std::string& name : {std::string(GetParam().layer), std::string(GetParam().layer) + ".weight"}) {
    EXPECT_TRUE(source.Has(name));
    const format::Matrix matrix = source.ReadMatrix(name, GetParam().rows, kCols, Quantize::kNone).OrThrow();
    EXPECT_EQ(Decoded(matrix), golden.Floats(GetParam().layer));
    EXPECT_EQ(source.totals().bytes.count(GetParam().format), 1u);
  }
}

TEST_P(QuantizedTest, LogitsAreThoseOfTheFloatModel) {
  const Golden golden(folder() / "expected.safetensors");
  BackboneOptions options;
  options.recipe.matrices = Quantize::kNone;
  options.positions = 16;
  const Backbone backbone = Backbone::Load(folder(), options).OrThrow();
  std::vector<int32_t> ids = golden.Ints("ids");
  const auto N = static_cast<int64_t>(ids.size());
  const PackedRows rows({0, static_cast<int32_t>(N)});
  std::vector<float> x(static_cast<size_t>(N * backbone.config().C)),
      logits(static_cast<size_t>(N * backbone.config().V));
  PlanAndRun({cpu::BestIsa(), 2}, DType::kF32, [&](Exec& ex) {
    Frame frame(ex.arena());
    const Tensor state = View(x.data(), N, backbone.config().C);
    backbone.Forward(ex, View(ids.data(), 1, N), rows.layout, 1, Out{state}, nullptr);
    backbone.Logits(ex, state, Out{View(logits.data(), N, backbone.config().V)});
  });
  EXPECT_LE(RelativeError(logits, golden.Floats("logits")), 1e-4);
}

TEST_P(QuantizedTest, PlannedTotalsAreThoseOfLoading) {
  BackboneOptions options;
  options.positions = 16;
  for (const Quantize quantize : {Quantize::kNone, Quantize::kNf4, Quantize::kQ8_0}) {
    options.recipe.matrices = quantize;
    const Backbone loaded = Backbone::Load(folder(), options).OrThrow();
    const Backbone planned = Backbone::PlannedFrom(folder(), options).OrThrow();
    EXPECT_EQ(planned.weight_totals().bytes, loaded.weight_totals().bytes);
    EXPECT_EQ(planned.block(0).mlp.down.frozen.format, loaded.block(0).mlp.down.frozen.format);
    EXPECT_EQ(planned.block(0).mlp.down.frozen.data, nullptr);
  }
}

INSTANTIATE_TEST_SUITE_P(All, QuantizedTest, testing::ValuesIn(kKinds),
                         [](const auto& test) { return std::string(test.param.folder); });

TEST(QuantizedTotalsTest, CountWhatIsKept) {
  FolderSource gptq = Open(kFolder / "gptq"), sym = Open(kFolder / "gptq_sym"),
               tiles = Open(kFolder / "fp8_tiles");
  for (FolderSource* source : {&gptq, &sym, &tiles}) {
    ASSERT_TRUE(source->ReadMatrix(kDown, kRows, kCols, Quantize::kNone).ok());
  }
  // Codes, a scale and a zero point for each of 32 x 4 groups, and the groups of columns in act-order.
  EXPECT_EQ(sym.totals().total, uint64_t{32 * 64 / 2 + 32 * 4 * (4 + 1)});
  EXPECT_EQ(gptq.totals().total, sym.totals().total + 64 * 4);
  EXPECT_EQ(tiles.totals().total, uint64_t{32 * 64 + 2 * 3 * 4});
}

// A folder whose tensors are changed before they are written again.
class LyingTest : public testing::Test {
 protected:
  LyingTest()
      : folder_(Path(testing::TempDir()) / (std::string("rung_lying_") +
                                            testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~LyingTest() override { std::filesystem::remove_all(folder_); }

  struct Part {
    std::string dtype;
    std::vector<int64_t> shape;
    std::vector<std::byte> bytes;
  };
  Kind kind_;
  std::map<std::string, Part> parts_;
  json config_;
  Path folder_;

  void Take(const std::string& kind) {
    kind_ = KindOf(kind);
    const io::Safetensors file = io::Safetensors::OpenFolder(kFolder / kind).OrThrow();
    parts_.clear();
    for (const auto& [name, entry] : file.tensors()) {
      if (!name.starts_with(kind_.layer)) continue;
      Part part{entry.dtype, entry.shape, std::vector<std::byte>(entry.bytes)};
      file.Read(entry, 0, part.bytes).OrThrow();
      parts_[name.substr(std::strlen(kind_.layer) + 1)] = std::move(part);
    }
    config_ = io::ReadJson(kFolder / kind / "config.json").OrThrow();
  }
  template <class T>
  void Set(const std::string& part, size_t place, T value) {
    std::memcpy(parts_.at(part).bytes.data() + place * sizeof(T), &value, sizeof(T));
  }
  // What reading says; empty: nothing is wrong.
  std::string Message(FolderRead read = FolderRead::kAll, int64_t cols = kCols) {
    std::vector<io::TensorToWrite> tensors;
    for (const auto& [name, part] : parts_) {
      tensors.push_back({std::string(kind_.layer) + "." + name, part.dtype, part.shape, part.bytes});
    }
    io::WriteSafetensors(folder_ / "model.safetensors", tensors, {}).OrThrow();
    std::ofstream(folder_ / "config.json") << config_.dump();
    Result<format::Matrix> matrix =
        Open(folder_, read).ReadMatrix(kind_.layer, kind_.rows, cols, Quantize::kNone);
    return matrix.ok() ? "" : matrix.failure().message;
  }
  // Plans see it too.
  std::string HeaderMessage() {
    const std::string loading = Message(FolderRead::kAll), planning = Message(FolderRead::kHeaders);
    EXPECT_EQ(loading, planning);
    return planning;
  }
};

#define EXPECT_SAYS(message, words) \
  EXPECT_NE((message).find(words), std::string::npos) << "no \"" << (words) << "\" in: " << (message)

TEST_F(LyingTest, PartsOfGptqAndAwqAreChecked) {
  for (const char* kind : {"gptq", "awq"}) {
    Take(kind);
    EXPECT_EQ(HeaderMessage(), "");
    const std::map<std::string, Part> good = parts_;
    for (const char* part : {"qzeros", "scales"}) {
      parts_.erase(part);
      EXPECT_SAYS(HeaderMessage(), std::string(kDown) + "." + part + " is missing");
      parts_ = good;
    }
    for (const char* part : {"qweight", "qzeros", "scales"}) {
      parts_.at(part).shape = {parts_.at(part).shape[0] * parts_.at(part).shape[1]};
      EXPECT_SAYS(HeaderMessage(), std::string(kDown) + "." + part + " is ");
      parts_ = good;
      parts_.at(part).dtype = parts_.at(part).dtype == "I32" ? "F32" : "I16";
      EXPECT_SAYS(HeaderMessage(), "has dtype");
      parts_ = good;
    }
    Set<uint16_t>("scales", 7, 0x7e00);
    EXPECT_SAYS(Message(), "the scale of group 0, row 7");
    parts_ = good;
    EXPECT_SAYS(Message(FolderRead::kAll, kCols + 8), kDown);
    EXPECT_SAYS(Message(FolderRead::kAll, kCols + 4), "multiple of 8");
    config_["quantization_config"]["group_size"] = 32;
    EXPECT_SAYS(HeaderMessage(), kDown);
    config_["quantization_config"]["quant_method"] = "hqq";
    EXPECT_SAYS(HeaderMessage(), "hqq");
    config_.erase("quantization_config");
    EXPECT_SAYS(HeaderMessage(), "quantization_config");
  }
}

TEST_F(LyingTest, GroupsOfColumnsAreChecked) {
  Take("gptq");
  Set<int32_t>("g_idx", 5, 4);
  EXPECT_SAYS(HeaderMessage(), "g_idx of column 5 is 4");
  Set<int32_t>("g_idx", 5, -1);
  EXPECT_SAYS(HeaderMessage(), "g_idx of column 5 is -1");
  Take("gptq");
  parts_.at("g_idx").shape = {2, 32};
  EXPECT_EQ(HeaderMessage(), "");
  parts_.at("g_idx").dtype = "F32";
  EXPECT_SAYS(HeaderMessage(), "g_idx is F32");
  parts_.at("g_idx") = {"I32", {1}, std::vector<std::byte>(4)};
  EXPECT_SAYS(HeaderMessage(), "g_idx is I32 of 1");
  // Without it the columns stand in order.
  Take("gptq_sym");
  parts_.erase("g_idx");
  EXPECT_EQ(HeaderMessage(), "");
}

TEST_F(LyingTest, ScalesOfFourBitAreChecked) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const char* kind : {"nf4", "fp4"}) {
    Take(kind);
    EXPECT_EQ(Message(), "");
    Set<float>("weight.absmax", 3, nan);
    EXPECT_SAYS(Message(), "k_proj.weight.absmax has nan at place 3: the file is damaged");
    Take(std::string(kind) + "_double");
    EXPECT_EQ(Message(), "");
    Set<float>("weight.nested_quant_map", 255, -inf);
    EXPECT_SAYS(Message(), "nested_quant_map has -inf at place 255");
    Take(std::string(kind) + "_double");
    Set<float>("weight.nested_absmax", 0, inf);
    EXPECT_SAYS(Message(), "nested_absmax has inf at place 0");
  }
}

// A matrix with one number that no format can stand for is refused by row, in whatever piece it stands.
TEST_F(LyingTest, WhatIsNoNumberIsNotQuantised) {
  const int64_t rows = 24, cols = 64;
  const auto read = [&](size_t place, float value, Quantize quantize) {
    std::vector<float> weights(static_cast<size_t>(rows * cols), 0.25f);
    weights[place] = value;
    const io::TensorToWrite tensor{"w.weight", "F32", {rows, cols}, std::as_bytes(std::span(weights))};
    io::WriteSafetensors(folder_ / "model.safetensors", {&tensor, 1}, {}).OrThrow();
    const Result<format::Matrix> matrix = Open(folder_).ReadMatrix("w", rows, cols, quantize);
    return matrix.ok() ? "" : matrix.failure().message;
  };
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const Quantize quantize : {Quantize::kNf4, Quantize::kNf4Single, Quantize::kQ8_0, Quantize::kQ4_0,
                                  Quantize::kQ4_1, Quantize::kQ5_0, Quantize::kQ5_1, Quantize::kMxfp4}) {
    EXPECT_EQ(read(0, -0.5f, quantize), "") << NameOf(quantize);
    for (const float value : {nan, -nan, inf, -inf}) {
      EXPECT_SAYS(read(0, value, quantize), "tensor w.weight has a number in row 0 that is infinite");
      EXPECT_SAYS(read(static_cast<size_t>(rows * cols) - 1, value, quantize), "in row 23 that is infinite");
    }
  }
  for (const Quantize quantize : {Quantize::kNone, Quantize::kBf16, Quantize::kF32}) {
    EXPECT_EQ(read(3, nan, quantize), "") << "kept as it is";
  }
}

TEST_F(LyingTest, ScalesOfFloat8AreChecked) {
  Take("fp8_tiles");
  Set<float>("weight_scale_inv", 4, std::numeric_limits<float>::infinity());
  EXPECT_SAYS(Message(), "weight_scale_inv has inf at place 4");
  EXPECT_EQ(Message(FolderRead::kHeaders), "");
  parts_.at("weight_scale_inv").shape = {3, 2};
  EXPECT_SAYS(HeaderMessage(), "it must be 2x3");
  parts_.at("weight_scale_inv").shape = {6};
  EXPECT_SAYS(HeaderMessage(), "it must be 2x3");
  Take("fp8_tiles");
  parts_.at("weight_scale_inv").dtype = "I32";
  EXPECT_SAYS(HeaderMessage(), "I32");
  parts_.erase("weight_scale_inv");
  EXPECT_SAYS(HeaderMessage(), "neither weight_scale nor");
  // Without a configuration that tells of scales the numbers are what they say.
  config_.erase("quantization_config");
  EXPECT_EQ(HeaderMessage(), "");
  Take("fp8_rows");
  parts_.at("weight_scale").shape = {kRows};
  EXPECT_EQ(HeaderMessage(), "");
  parts_.at("weight_scale").shape = {1, kRows};
  EXPECT_SAYS(HeaderMessage(), "weight_scale is 1x32");
  parts_.at("weight").dtype = "F8_E5M2";
  EXPECT_SAYS(HeaderMessage(), "F8_E5M2, which is not supported");
}

// A folder whose weight_block_size is null has one number under either name.
TEST_F(LyingTest, OneScaleOfFloat8HasEitherName) {
  Take("fp8_tensor");
  EXPECT_EQ(HeaderMessage(), "");
  const auto values = [&] {
    FolderSource source = Open(folder_);
    return Decoded(source.ReadMatrix(kind_.layer, kind_.rows, kCols, Quantize::kNone).OrThrow());
  };
  EXPECT_EQ(Message(), "");
  const std::vector<float> want = values();
  parts_["weight_scale_inv"] = parts_.at("weight_scale");
  parts_.erase("weight_scale");
  EXPECT_EQ(HeaderMessage(), "");
  EXPECT_EQ(Message(), "");
  EXPECT_EQ(values(), want);
}

TEST_F(LyingTest, PartsOfFourBitAreChecked) {
  for (const char* kind : {"nf4_double", "fp4"}) {
    Take(kind);
    EXPECT_EQ(HeaderMessage(), "");
    const std::map<std::string, Part> good = parts_;
    for (const auto& [name, part] : good) {
      if (name == "weight.quant_map" || name == "weight.nested_absmax" ||
          name.find("state") != std::string::npos)
        continue;
      parts_.erase(name);
      EXPECT_SAYS(HeaderMessage(), name + " is missing");
      parts_ = good;
      parts_.at(name).shape = {1};
      parts_.at(name).bytes.resize(part.dtype == "F32" ? 4 : 1);
      EXPECT_SAYS(HeaderMessage(), name + " is ");
      parts_ = good;
    }
    // Of a wider dtype the bytes are the same.
    parts_.at("weight").dtype = "BF16";
    parts_.at("weight").shape = {kind_.rows * kCols / 4, 1};
    EXPECT_EQ(HeaderMessage(), "");
  }
  // The size of a block that is not read.
  for (auto& [name, part] : parts_) {
    if (name.find("state") == std::string::npos) continue;
    std::string text(reinterpret_cast<const char*>(part.bytes.data()), part.bytes.size());
    const size_t at = text.find("\"blocksize\": 64");
    ASSERT_NE(at, std::string::npos) << text;
    text[at + 14] = '3';
    text[at + 13] = '3';
    std::memcpy(part.bytes.data(), text.data(), text.size());
  }
  EXPECT_SAYS(HeaderMessage(), "blocks of 64 (the only size that is read)");
}

// One matrix in a folder of its own.
class AtLoadTest : public LyingTest {
 protected:
  std::vector<float> values_;

  AtLoadTest() {
    for (int64_t i = 0; i < kRows * kCols; ++i) {
      values_.push_back(static_cast<float>((i * 7919) % 1009 - 504) / 512.0f);
    }
  }
  void Write(format::Format format, const char* dtype, bool transposed) {
    std::vector<float> ordered = values_;
    for (int64_t i = 0; transposed && i < kRows * kCols; ++i) {
      ordered[static_cast<size_t>(i % kCols * kRows + i / kCols)] = values_[static_cast<size_t>(i)];
    }
    std::vector<std::byte> bytes(static_cast<size_t>(format::DataBytes(format, kRows, kCols)));
    format::Encode(format, ordered.data(), kRows * kCols, bytes.data());
    io::TensorToWrite tensor{"w.weight", dtype, {kRows, kCols}, bytes};
    if (transposed) tensor.shape = {kCols, kRows};
    io::WriteSafetensors(folder_ / "model.safetensors", {&tensor, 1}, {}).OrThrow();
  }
};

TEST_F(AtLoadTest, FloatsOfEveryKindBecomeEveryFormat) {
  struct Stored {
    format::Format format;
    const char* dtype;
  };
  for (const Stored& stored : {Stored{format::Format::kF32, "F32"}, Stored{format::Format::kF16, "F16"},
                               Stored{format::Format::kBf16, "BF16"}}) {
    for (const bool transposed : {false, true}) {
      Write(stored.format, stored.dtype, transposed);
      FolderSource plain = Open(folder_);
      const format::Matrix kept = plain.ReadMatrix("w", kRows, kCols, Quantize::kNone, transposed).OrThrow();
      EXPECT_EQ(kept.format, stored.format);
      const std::vector<float> floats = Decoded(kept);
      for (size_t i = 0; i < floats.size(); ++i) ASSERT_NEAR(floats[i], values_[i], 4e-3) << i;
      for (int q = static_cast<int>(Quantize::kNf4); q <= static_cast<int>(Quantize::kMxfp4); ++q) {
        const auto quantize = static_cast<Quantize>(q);
        FolderSource source = Open(folder_), headers = Open(folder_, FolderRead::kHeaders);
        const format::Matrix found = source.ReadMatrix("w", kRows, kCols, quantize, transposed).OrThrow();
        EXPECT_EQ(found.format, *FormatOf(quantize));
        const format::Matrix planned = headers.ReadMatrix("w", kRows, kCols, quantize, transposed).OrThrow();
        EXPECT_EQ(planned.format, found.format);
        EXPECT_EQ(headers.totals().bytes, source.totals().bytes) << NameOf(quantize);
        if (found.format == format::Format::kNf4) {
          const format::Nf4Encoded encoded =
              format::EncodeNf4(floats.data(), kRows * kCols, quantize == Quantize::kNf4);
          EXPECT_EQ(std::memcmp(found.data, encoded.codes.data(), encoded.codes.size()), 0);
          EXPECT_EQ(found.scales.offset, encoded.offset);
          continue;
        }
        std::vector<std::byte> wanted(static_cast<size_t>(format::DataBytes(found.format, kRows, kCols)));
        format::Encode(found.format, floats.data(), kRows * kCols, wanted.data());
        EXPECT_EQ(std::memcmp(found.data, wanted.data(), wanted.size()), 0) << NameOf(quantize);
        EXPECT_EQ(source.totals().total, wanted.size());
      }
    }
  }
}

TEST_F(AtLoadTest, Float8IsQuantisedWithItsScales) {
  const Golden golden(kFolder / "fp8_tiles/expected.safetensors");
  const std::vector<float> floats = golden.Floats(kDown);
  FolderSource source = Open(kFolder / "fp8_tiles");
  const format::Matrix q8 = source.ReadMatrix(kDown, kRows, kCols, Quantize::kQ8_0).OrThrow();
  std::vector<std::byte> wanted(static_cast<size_t>(format::DataBytes(q8.format, kRows, kCols)));
  format::Encode(format::Format::kQ8_0, floats.data(), kRows * kCols, wanted.data());
  EXPECT_EQ(std::memcmp(q8.data, wanted.data(), wanted.size()), 0);
  EXPECT_EQ(Decoded(source.ReadMatrix(kDown, kRows, kCols, Quantize::kF32).OrThrow()), floats);
}

TEST_F(AtLoadTest, WhatCannotBeQuantisedIsTold) {
  values_[70] = std::numeric_limits<float>::infinity();
  Write(format::Format::kF32, "F32", false);
  for (const Quantize quantize : {Quantize::kQ8_0, Quantize::kQ4_0, Quantize::kQ5_1, Quantize::kF16}) {
    const auto read = Open(folder_).ReadMatrix("w", kRows, kCols, quantize);
    ASSERT_FALSE(read.ok());
    EXPECT_SAYS(read.failure().message, "w.weight has a number in row 1");
  }
  EXPECT_TRUE(Open(folder_).ReadMatrix("w", kRows, kCols, Quantize::kBf16).ok());
  const std::vector<float> odd(4 * 40);
  io::TensorToWrite tensor{"w.weight", "F32", {4, 40}, std::as_bytes(std::span(odd))};
  io::WriteSafetensors(folder_ / "model.safetensors", {&tensor, 1}, {}).OrThrow();
  for (const FolderRead how : {FolderRead::kAll, FolderRead::kHeaders}) {
    const auto read = Open(folder_, how).ReadMatrix("w", 4, 40, Quantize::kQ8_0);
    ASSERT_FALSE(read.ok());
    EXPECT_EQ(read.failure().code, ExitCode::kUsage);
    EXPECT_SAYS(read.failure().message, "rows of 40 weights");
    EXPECT_TRUE(Open(folder_, how).ReadMatrix("w", 4, 40, Quantize::kNf4).ok());
  }
}

}  // namespace
}  // namespace rung::model
