#include "io/gguf_writer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "io/gguf.h"

namespace rung::io {
namespace {

constexpr int kF32 = 0, kF16 = 1, kQ8_0 = 8;

class GgufWriterTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("rung_gguf_writer_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
    path_ = folder_ / "x.gguf";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }
  static std::string Text(const GgufTensor* tensor) {
    return tensor ? std::string(reinterpret_cast<const char*>(tensor->data.data()), tensor->data.size())
                  : "(missing)";
  }
  Path folder_, path_;
};

TEST_F(GgufWriterTest, WhatWasWrittenIsRead) {
  const GgufFields fields = {{"general.type", std::string("adapter")},
                             {"number", uint32_t{4000000000}},
                             {"real", 0.1f},
                             {"yes", true},
                             {"empty", std::string()}};
  const std::vector<GgufLayout> layouts = {{"odd", kF16, {3, 1}}, {"b", kF32, {2, 5}}, {"q", kQ8_0, {64}}};
  GgufWriter writer = GgufWriter::Create(path_, fields, layouts).OrThrow();
  const std::string b = "0123456789abcdefghijklmnopqrstuvwxyzABCD", q(68, 'q');
  EXPECT_TRUE(writer.Write(2, 0, Bytes(q)).ok());
  EXPECT_TRUE(writer.Write(1, 20, Bytes(b.substr(20))).ok());
  EXPECT_TRUE(writer.Write(0, 0, Bytes("sixsix")).ok());
  EXPECT_TRUE(writer.Write(1, 0, Bytes(b.substr(0, 20))).ok());
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_EQ(writer.bytes(), GgufWriter::PlannedBytes(path_, fields, layouts).OrThrow());
  ASSERT_TRUE(writer.Commit().ok());
  EXPECT_EQ(std::filesystem::file_size(path_), writer.bytes());
  EXPECT_EQ(writer.bytes() % 32, 0u);

  const Gguf gguf = Gguf::Open(path_).OrThrow();
  EXPECT_EQ(gguf.metadata().size(), fields.size());
  EXPECT_EQ(*gguf.GetString("general.type"), "adapter");
  EXPECT_EQ(*gguf.GetString("empty"), "");
  EXPECT_EQ(gguf.GetInt("number"), 4000000000);
  EXPECT_EQ(gguf.GetFloat("real"), static_cast<double>(0.1f));
  EXPECT_EQ(gguf.GetBool("yes"), true);
  ASSERT_EQ(gguf.tensors().size(), 3u);
  EXPECT_EQ(gguf.Find("odd")->dims, (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(gguf.Find("b")->dims, (std::vector<int64_t>{2, 5}));
  EXPECT_EQ(gguf.Find("q")->type, kQ8_0);
  EXPECT_EQ(Text(gguf.Find("odd")), "sixsix");
  EXPECT_EQ(Text(gguf.Find("b")), b);
  EXPECT_EQ(Text(gguf.Find("q")), q);
}

// Byte for byte by the description of the format.
TEST_F(GgufWriterTest, TheBytesAreThoseOfTheFormat) {
  GgufWriter writer = GgufWriter::Create(path_, {{"k", 1.0f}}, {{"t", kF32, {1}}}).OrThrow();
  EXPECT_TRUE(writer.Write(0, 0, Bytes("data")).ok());
  ASSERT_TRUE(writer.Commit().ok());
  using namespace std::string_literals;
  std::string want = "GGUF\3\0\0\0"s + "\1\0\0\0\0\0\0\0"s + "\1\0\0\0\0\0\0\0"s;
  want += "\1\0\0\0\0\0\0\0k"s + "\6\0\0\0"s + "\0\0\x80\x3f"s;
  want += "\1\0\0\0\0\0\0\0t"s + "\1\0\0\0"s + "\1\0\0\0\0\0\0\0"s + "\0\0\0\0"s + "\0\0\0\0\0\0\0\0"s;
  want.resize(96, '\0');
  want += "data";
  want.resize(128, '\0');
  std::ifstream in(path_, std::ios::binary);
  EXPECT_EQ(std::string((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>()), want);
}

TEST_F(GgufWriterTest, WithoutCommitThereIsNoFile) {
  { GgufWriter::Create(path_, {}, {{"a", kF32, {1}}}).OrThrow(); }
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(GgufWriterTest, RefusesWhatNoReaderTakes) {
  const auto message = [&](const GgufFields& fields, std::vector<GgufLayout> tensors) {
    const Result<GgufWriter> made = GgufWriter::Create(path_, fields, std::move(tensors));
    EXPECT_FALSE(made.ok());
    return made.ok() ? "" : made.failure().message;
  };
  EXPECT_NE(message({}, {{"a", 999, {1}}}).find("type"), std::string::npos);
  EXPECT_NE(message({}, {{"a", kF32, {0}}}).find("positive"), std::string::npos);
  EXPECT_NE(message({}, {{"a", kF32, {}}}).find("dimensions"), std::string::npos);
  EXPECT_NE(message({}, {{"a", kF32, {1, 1, 1, 1, 1}}}).find("dimensions"), std::string::npos);
  EXPECT_NE(message({}, {{"a", kQ8_0, {33}}}).find("blocks"), std::string::npos);
  EXPECT_NE(message({}, {{"a", kF32, {1 << 30, 1 << 30, 1 << 30}}}).find("large"), std::string::npos);
  EXPECT_NE(message({}, {{std::string(64, 'n'), kF32, {1}}}).find("63"), std::string::npos);
  EXPECT_NE(message({}, {{"a", kF32, {1}}, {"a", kF32, {1}}}).find("twice"), std::string::npos);
  EXPECT_NE(message({{"k", true}, {"k", 1.0f}}, {}).find("twice"), std::string::npos);
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

}  // namespace
}  // namespace rung::io
