#include "io/safetensors_writer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/files.h"

namespace rung::io {
namespace {

class SafetensorsWriterTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("rung_writer_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
    path_ = folder_ / "x.safetensors";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }
  std::string ReadBack(const std::string& name) const {
    const Safetensors file = Safetensors::Open(path_).OrThrow();
    const TensorEntry* entry = file.Find(name);
    if (!entry) return "(missing)";
    std::string text(entry->bytes, '\0');
    EXPECT_TRUE(file.Read(*entry, 0, std::as_writable_bytes(std::span(text))).ok());
    return text;
  }
  Path folder_, path_;
};

TEST_F(SafetensorsWriterTest, PiecesInAnyOrderAndTensorsAtTheEnd) {
  SafetensorsWriter writer =
      SafetensorsWriter::Create(path_, {{"a", "F32", {2, 1}}, {"b", "U8", {5}}}, {{"format", "pt"}}, 200)
          .OrThrow();
  EXPECT_TRUE(writer.Write(1, 2, Bytes("345")).ok());
  EXPECT_TRUE(writer.Write(0, 0, Bytes("abcdefgh")).ok());
  EXPECT_TRUE(writer.Write(1, 0, Bytes("12")).ok());
  EXPECT_TRUE(writer.Append({"c", "U8", {3}}, Bytes("xyz")).ok());
  EXPECT_FALSE(std::filesystem::exists(path_));
  ASSERT_TRUE(writer.Commit().ok());
  EXPECT_EQ(std::filesystem::file_size(path_), writer.bytes());
  EXPECT_EQ(ReadBack("a"), "abcdefgh");
  EXPECT_EQ(ReadBack("b"), "12345");
  EXPECT_EQ(ReadBack("c"), "xyz");
  EXPECT_EQ(Safetensors::Open(path_).OrThrow().metadata().at("format"), "pt");
}

TEST_F(SafetensorsWriterTest, WithoutCommitThereIsNoFile) {
  { SafetensorsWriter::Create(path_, {{"a", "U8", {1}}}, {}, 0).OrThrow(); }
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(SafetensorsWriterTest, RefusesWhatNoReaderTakes) {
  EXPECT_FALSE(SafetensorsWriter::Create(path_, {{"a", "F31", {1}}}, {}, 0).ok());
  EXPECT_FALSE(SafetensorsWriter::Create(path_, {{"a", "F32", {-1}}}, {}, 0).ok());
  EXPECT_FALSE(SafetensorsWriter::Create(path_, {{"a", "F32", {1 << 30, 1 << 30, 1 << 30}}}, {}, 0).ok());
  SafetensorsWriter twice =
      SafetensorsWriter::Create(path_, {{"a", "U8", {1}}, {"a", "U8", {1}}}, {}, 0).OrThrow();
  EXPECT_TRUE(twice.Write(0, 0, Bytes("1")).ok());
  EXPECT_TRUE(twice.Write(1, 0, Bytes("2")).ok());
  EXPECT_FALSE(twice.Commit().ok());
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace rung::io
