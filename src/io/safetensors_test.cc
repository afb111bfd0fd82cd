#include "io/safetensors.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace rung::io {
namespace {

// A folder for one test, removed behind it.
class SafetensorsTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        Path(testing::TempDir()) /
        fmt::format("rung-{}-{}", testing::UnitTest::GetInstance()->current_test_info()->name(), ::getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const char* name, std::string_view bytes) {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;  // WriteTextFile would sync a hundred files
  }
  void CopyShards() { std::filesystem::copy("tests/data/io/sharded", folder_); }
  std::string MessageOfFolder() {
    Result<Safetensors> opened = Safetensors::OpenFolder(folder_);
    return opened.ok() ? "accepted" : opened.failure().message;
  }

  Path folder_;
};

Safetensors OpenGood(const Path& path) {
  Result<Safetensors> file = Safetensors::Open(path);
  EXPECT_TRUE(file.ok()) << (file.ok() ? "" : file.failure().message);
  return std::move(file).value();
}

template <class T>
std::vector<T> Numbers(const Safetensors& file, std::string_view name) {
  const TensorEntry* entry = file.Find(name);
  EXPECT_NE(entry, nullptr) << name;
  std::vector<T> numbers(entry->bytes / sizeof(T));
  EXPECT_TRUE(file.Read(*entry, 0, std::as_writable_bytes(std::span(numbers))).ok());
  return numbers;
}

TEST(ElementCount, OfShapesOfAnySize) {
  constexpr int64_t kLarge = int64_t{1} << 62;
  const auto count = [](std::vector<int64_t> shape) { return ElementCount(shape); };
  EXPECT_EQ(count({}), 1);
  EXPECT_EQ(count({3, 4, 5}), 60);
  EXPECT_EQ(count({kLarge, kLarge, 0}), 0);
  EXPECT_EQ(count({0, kLarge, kLarge}), 0);
  EXPECT_EQ(count({kLarge, 1}), kLarge);
  EXPECT_EQ(count({kLarge, 2}), INT64_MAX);
}

TEST_F(SafetensorsTest, ReadsTheReferenceWriter) {
  const Safetensors file = OpenGood("tests/data/io/tiny.safetensors");
  EXPECT_EQ(file.tensors().size(), 8u);
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  EXPECT_EQ(Numbers<float>(file, "f32"), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(file.Find("f32")->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.Find("f32")->dtype, "F32");
  EXPECT_EQ(Numbers<uint16_t>(file, "f16"), (std::vector<uint16_t>{0, 0x3c00, 0x4000, 0x4200, 0x4400}));
  EXPECT_EQ(file.Find("bf16")->dtype, "BF16");
  EXPECT_EQ(Numbers<uint16_t>(file, "bf16")[8], 0x4100);
  EXPECT_EQ(Numbers<int64_t>(file, "i64"), (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(Numbers<uint8_t>(file, "u8"), (std::vector<uint8_t>{0, 1, 2}));
  EXPECT_EQ(Numbers<float>(file, "scalar"), std::vector<float>{7.5f});
  EXPECT_TRUE(file.Find("scalar")->shape.empty());
  EXPECT_EQ(file.Find("empty")->bytes, 0u);
  EXPECT_EQ(Numbers<uint8_t>(file, "\xc3\xbcml\"aut"), (std::vector<uint8_t>{1, 0}));
}

TEST_F(SafetensorsTest, ReadsPartsAndNothingBeyondATensor) {
  const Safetensors file = OpenGood("tests/data/io/tiny.safetensors");
  const TensorEntry& entry = *file.Find("f32");
  float two[2] = {};
  ASSERT_TRUE(file.Read(entry, 12, std::as_writable_bytes(std::span(two))).ok());
  EXPECT_EQ(two[0], 3.0f);
  EXPECT_EQ(two[1], 4.0f);
  EXPECT_FALSE(file.Read(entry, 20, std::as_writable_bytes(std::span(two))).ok());
  EXPECT_FALSE(file.Read(entry, ~uint64_t{0}, std::as_writable_bytes(std::span(two))).ok());
}

// The same tensors in the same order give the same bytes as the reference writer.
TEST_F(SafetensorsTest, WritesWhatTheReferenceWrites) {
  const char* const original = "tests/data/io/tiny.safetensors";
  const Safetensors file = OpenGood(original);
  std::vector<std::vector<std::byte>> data;
  std::vector<TensorToWrite> tensors;
  for (const char* name : {"i64", "empty", "f32", "scalar", "bf16", "f16", "u8", "\xc3\xbcml\"aut"}) {
    const TensorEntry& entry = *file.Find(name);
    ASSERT_TRUE(file.Read(entry, 0, data.emplace_back(entry.bytes)).ok());
    tensors.push_back({entry.name, entry.dtype, entry.shape, data.back()});
  }
  const Path copy = folder_ / "copy.safetensors";
  ASSERT_TRUE(WriteSafetensors(copy, tensors, file.metadata()).ok());
  EXPECT_EQ(ReadTextFile(copy, 1 << 20).OrThrow(), ReadTextFile(original, 1 << 20).OrThrow());
}

TEST_F(SafetensorsTest, WriterRefusesWhatTheReaderWould) {
  const float one = 1.0f;
  const auto data = std::as_bytes(std::span(&one, 1));
  const Path path = folder_ / "x.safetensors";
  const auto write = [&](std::vector<TensorToWrite> tensors) {
    return WriteSafetensors(path, tensors, {}).ok();
  };
  EXPECT_TRUE(write({{"a", "F32", {1}, data}}));
  EXPECT_TRUE(write({}));
  EXPECT_FALSE(write({{"a", "F32", {2}, data}}));
  EXPECT_FALSE(write({{"a", "F32", {-1}, data}}));
  EXPECT_FALSE(write({{"a", "f32", {1}, data}}));
  EXPECT_FALSE(write({{"a", "F32", {1}, data}, {"a", "F32", {1}, data}}));
  EXPECT_FALSE(write({{"__metadata__", "F32", {1}, data}}));
  EXPECT_FALSE(write({{"\xff", "F32", {1}, data}}));
  EXPECT_EQ(OpenGood(path).tensors().size(), 0u) << "a refused write must leave the old file";
  EXPECT_FALSE(WriteSafetensors(folder_ / "no" / "x.safetensors", {}, {}).ok());
}

TEST_F(SafetensorsTest, MetadataSurviveTheRoundTrip) {
  const std::map<std::string, std::string> metadata = {
      {"a \"quoted\" key", "line\nline \\ \xe2\x82\xac"}, {"empty", ""}, {"config", R"({"rank":8})"}};
  ASSERT_TRUE(WriteSafetensors(folder_ / "x.safetensors", {}, metadata).ok());
  EXPECT_EQ(OpenGood(folder_ / "x.safetensors").metadata(), metadata);
}

std::string MessageOfHeader(std::string_view header, uint64_t data_bytes) {
  std::map<std::string, std::string> metadata;
  const auto parsed =
      ParseSafetensorsHeader(header, 8 + header.size() + data_bytes, "x.safetensors", &metadata);
  return parsed.ok() ? "accepted" : parsed.failure().message;
}

std::string Entry(std::string_view name, std::string_view dtype, std::string_view shape, uint64_t begin,
                  uint64_t end) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", name, dtype, shape,
                     begin, end);
}

TEST(SafetensorsHeader, AcceptsWhatTheCasesBelowSpoil) {
  EXPECT_EQ(MessageOfHeader("{}", 0), "accepted");
  EXPECT_EQ(MessageOfHeader("{}      ", 0), "accepted");
  EXPECT_EQ(MessageOfHeader(R"({"__metadata__":{"a":"b"}})", 0), "accepted");
  EXPECT_EQ(MessageOfHeader(R"({"__metadata__":null})", 0), "accepted");
  EXPECT_EQ(
      MessageOfHeader("{" + Entry("b", "F32", "1", 4, 8) + "," + Entry("a", "F32", "1,1", 0, 4) + "}", 8),
      "accepted");
  EXPECT_EQ(MessageOfHeader("{" + Entry("a", "F4", "2,3", 0, 3) + "}", 3), "accepted");
  EXPECT_EQ(
      MessageOfHeader("{" + Entry("a", "F32", "0,9223372036854775807,9223372036854775807", 0, 0) + "}", 0),
      "accepted");
}

TEST(SafetensorsHeader, EntriesComeInTheOrderOfTheData) {
  const std::string header = "{" + Entry("b", "F32", "1", 4, 8) + "," + Entry("a", "F32", "1", 0, 4) + "}";
  const auto entries = ParseSafetensorsHeader(header, 8 + header.size() + 8, "x", nullptr).OrThrow();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].name, "a");
  EXPECT_EQ(entries[0].offset, 8 + header.size());
  EXPECT_EQ(entries[1].offset, 8 + header.size() + 4);
  EXPECT_EQ(entries[1].bytes, 4u);
}

TEST(SafetensorsHeader, RefusesCorruptOnes) {
  const struct {
    const char* message;
    std::string header;
    uint64_t data_bytes;
  } cases[] = {
      {"does not begin with '{'", "", 0},
      {"does not begin with '{'", "[]", 0},
      {"does not begin with '{'", " {}", 0},
      {"does not begin with '{'", "\xef\xbb\xbf{}", 0},
      {"JSON at 1:3: syntax error", "{\"", 0},
      {"JSON at 2:1: syntax error", "{}\n}", 0},
      {"JSON at", "{\"\xff\":{}}", 0},
      {"a zero byte", std::string("{}\0x", 4), 1},
      {"\"a\" appears twice", "{" + Entry("a", "F32", "1", 0, 4) + "," + Entry("a", "F32", "1", 4, 8) + "}",
       8},
      {"\"__metadata__\": \"k\" appears twice", R"({"__metadata__":{"k":"1","k":"2"}})", 0},
      {"\"__metadata__\": unexpected the number 1 as \"k\"", R"({"__metadata__":{"k":1}})", 0},
      {"\"__metadata__\": unexpected object as \"k\"", R"({"__metadata__":{"k":{}}})", 0},
      {"\"a\": the number 1 where an object should be", R"({"a":1})", 0},
      {"\"a\": null where an object should be", R"({"a":null})", 0},
      {"\"a\": dtype is missing", R"({"a":{}})", 0},
      {"\"a\": data_offsets is missing", R"({"a":{"dtype":"F32","shape":[]}})", 0},
      {"\"a\": \"dtype\" appears twice", R"({"a":{"dtype":"F32","dtype":"F16"}})", 0},
      {"\"a\": unknown key \"extra\"", R"({"a":{"extra":1}})", 0},
      {"unexpected the number 5 as \"dtype\"", R"({"a":{"dtype":5}})", 0},
      {"unexpected text as \"shape\"", R"({"a":{"shape":["x"]}})", 0},
      {"unexpected the number -1 as \"shape\"", R"({"a":{"shape":[-1]}})", 0},
      {"unexpected the number 1.5 as \"shape\"", R"({"a":{"shape":[1.5]}})", 0},
      {"a dimension of 9223372036854775808", R"({"a":{"shape":[9223372036854775808]}})", 0},
      {"more than 16 dimensions", R"({"a":{"shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}})", 0},
      {"data_offsets needs two numbers", R"({"a":{"data_offsets":[0]}})", 0},
      {"unexpected the number 3 as \"data_offsets\"", R"({"a":{"data_offsets":[0,1,3]}})", 0},
      {"data_offsets [4, 0] run backwards", "{" + Entry("a", "F32", "1", 4, 0) + "}", 4},
      {"unknown dtype \"F33\"", "{" + Entry("a", "F33", "1", 0, 4) + "}", 4},
      {"shape [2] of F32 needs 8 bytes, data_offsets span 4", "{" + Entry("a", "F32", "2", 0, 4) + "}", 4},
      {"shape [4294967296, 4294967296] overflows",
       "{" + Entry("a", "U8", "4294967296,4294967296", 0, 0) + "}", 0},
      {"no whole number of bytes", "{" + Entry("a", "F4", "3", 0, 1) + "}", 1},
      {"tensor \"b\": its data begin at 0, the data before it end at 4: they overlap",
       "{" + Entry("a", "F32", "1", 0, 4) + "," + Entry("b", "F32", "2", 0, 8) + "}", 8},
      {"there is a hole", "{" + Entry("a", "F32", "1", 0, 4) + "," + Entry("b", "F32", "1", 8, 12) + "}", 12},
      {"there is a hole", "{" + Entry("a", "F32", "1", 4, 8) + "}", 8},
      {"it is cut off", "{" + Entry("a", "F32", "2", 0, 8) + "}", 7},
      {"1 bytes behind the last tensor", "{" + Entry("a", "F32", "1", 0, 4) + "}", 5},
  };
  for (const auto& corrupt : cases) {
    const std::string message = MessageOfHeader(corrupt.header, corrupt.data_bytes);
    EXPECT_NE(message.find(corrupt.message), std::string::npos)
        << corrupt.header << "\nwanted: " << corrupt.message << "\n   got: " << message;
    EXPECT_EQ(message.rfind("x.safetensors: ", 0), 0u) << message;
  }
}

// A million brackets are refused at the first one that has no business there, whatever the stack.
TEST(SafetensorsHeader, RefusesDeepJson) {
  EXPECT_NE(MessageOfHeader(R"({"a":{"shape":)" + std::string(1000000, '['), 0).find("unexpected array"),
            std::string::npos);
}

TEST_F(SafetensorsTest, RefusesDamagedFiles) {
  const std::string good = ReadTextFile("tests/data/io/tiny.safetensors", 1 << 20).OrThrow();
  const auto message = [&](std::string_view bytes) -> std::string {
    Write("x.safetensors", bytes);
    Result<Safetensors> opened = Safetensors::Open(folder_ / "x.safetensors");
    return opened.ok() ? "accepted" : opened.failure().message;
  };
  EXPECT_EQ(message(good), "accepted");
  for (size_t size = 0; size < good.size(); size += 5)
    EXPECT_NE(message(good.substr(0, size)), "accepted") << size;
  EXPECT_NE(message(good.substr(0, good.size() - 1)).find("cut off"), std::string::npos);
  EXPECT_NE(message(good + "x").find("belong to none"), std::string::npos);
  std::string huge = good;
  huge.replace(0, 8, 8, '\xff');
  EXPECT_NE(message(huge).find("a header of 18446744073709551615 bytes, at most 100000000"),
            std::string::npos);
  huge.replace(0, 8, std::string("\0\0\1\0\0\0\0\0", 8));
  EXPECT_NE(message(huge).find("a header of 65536 bytes in a file of 589"), std::string::npos);
}

TEST_F(SafetensorsTest, OpensShardsByTheirIndex) {
  Result<Safetensors> opened = Safetensors::OpenFolder("tests/data/io/sharded");
  ASSERT_TRUE(opened.ok()) << opened.failure().message;
  const Safetensors file = std::move(opened).value();
  EXPECT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(Numbers<float>(file, "a"), (std::vector<float>{0, 1, 2, 3}));
  EXPECT_EQ(Numbers<uint8_t>(file, "b"), (std::vector<uint8_t>{0, 1, 2}));
  EXPECT_EQ(Numbers<float>(file, "c"), (std::vector<float>{10, 11, 12, 13}));
  EXPECT_EQ(file.path(*file.Find("c")).filename(), "model-00002-of-00002.safetensors");
}

TEST_F(SafetensorsTest, OneFileGoesBeforeTheIndex) {
  CopyShards();
  std::filesystem::copy("tests/data/io/tiny.safetensors", folder_ / "model.safetensors");
  Result<Safetensors> opened = Safetensors::OpenFolder(folder_);
  ASSERT_TRUE(opened.ok());
  EXPECT_NE(opened.value().Find("f32"), nullptr);
}

TEST_F(SafetensorsTest, NamesWhatAFolderLacks) {
  EXPECT_NE(MessageOfFolder().find("neither model.safetensors nor model.safetensors.index.json is there"),
            std::string::npos);
  EXPECT_EQ(MessageOfFolder().find("pytorch_model.bin"), std::string::npos);
  Write("pytorch_model.bin", "");
  EXPECT_NE(MessageOfFolder().find("pytorch_model.bin is not read"), std::string::npos);
  EXPECT_NE(Safetensors::OpenFolder(folder_ / "no").failure().message.find("no such folder"),
            std::string::npos);
}

TEST_F(SafetensorsTest, RefusesBadIndexes) {
  CopyShards();
  ASSERT_EQ(MessageOfFolder(), "accepted");
  const struct {
    const char *message, *index;
  } cases[] = {
      {"1:2: syntax error", "{"},
      {"\"weight_map\" is missing", "{}"},
      {"\"weight_map\" is missing or no object", "[]"},
      {"\"weight_map\" is missing or no object", R"({"weight_map":[]})"},
      {"names no tensor", R"({"weight_map":{}})"},
      {"\"a\" is not a file name", R"({"weight_map":{"a":1}})"},
      {"not a file of the same folder", R"({"weight_map":{"a":"../model.safetensors"}})"},
      {"not a file of the same folder", R"({"weight_map":{"a":"/etc/passwd"}})"},
      {"not a file of the same folder", R"({"weight_map":{"a":".."}})"},
      {"not a file of the same folder", R"({"weight_map":{"a":"sub\\model.safetensors"}})"},
      {"not a file of the same folder", R"({"weight_map":{"a":"model\u0000.safetensors"}})"},
      {"not a file of the same folder", R"({"weight_map":{"a":""}})"},
      {"key \"a\" appears twice", R"({"weight_map":{"a":"model-00001-of-00002.safetensors","a":"x"}})"},
      {"the shard \"gone.safetensors\" is missing", R"({"weight_map":{"a":"gone.safetensors"}})"},
      {"tensor \"c\" is not in its shard \"model-00001-of-00002.safetensors\"",
       R"({"weight_map":{"c":"model-00001-of-00002.safetensors"}})"},
  };
  for (const auto& bad : cases) {
    Write("model.safetensors.index.json", bad.index);
    const std::string message = MessageOfFolder();
    EXPECT_NE(message.find(bad.message), std::string::npos)
        << bad.index << "\nwanted: " << bad.message << "\n   got: " << message;
    EXPECT_NE(message.find("model.safetensors.index.json"), std::string::npos) << message;
  }
}

TEST_F(SafetensorsTest, ReadsATrainedModel) {
  Result<Safetensors> opened = Safetensors::OpenFolder("tests/data/models/tinystories-656k");
  ASSERT_TRUE(opened.ok()) << opened.failure().message;
  const TensorEntry* head = opened.value().Find("lm_head.weight");
  ASSERT_NE(head, nullptr);
  EXPECT_EQ(head->shape, (std::vector<int64_t>{2048, 128}));
  EXPECT_EQ(opened.value().Find("model.embed_tokens.weight"), nullptr);
}

}  // namespace
}  // namespace rung::io
