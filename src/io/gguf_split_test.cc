// Models in several GGUF files; tests/data/io/split was made by Python's gguf package.
#include <gtest/gtest.h>

#include <cstring>

#include "io/gguf.h"
#include "io/gguf_writer.h"

namespace rung::io {
namespace {

const Path kSplit = "tests/data/io/split";

class GgufSplitTest : public testing::Test {
 protected:
  GgufSplitTest()
      : folder_(Path(testing::TempDir()) / (std::string("rung_split_") +
                                            testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(folder_);
    std::filesystem::copy(kSplit, folder_);
  }
  ~GgufSplitTest() override { std::filesystem::remove_all(folder_); }

  Path Part(int part) const { return folder_ / ("split-0000" + std::to_string(part) + "-of-00003.gguf"); }
  std::string Message(int part = 1) const {
    const Result<Gguf> read = Gguf::Open(Part(part));
    return read.ok() ? "" : read.failure().message;
  }
  // A part with one tensor of its own.
  void Write(int part, GgufFields fields, const std::string& tensor) const {
    fields.insert(fields.begin(), {"general.architecture", std::string("llama")});
    GgufWriter writer = GgufWriter::Create(Part(part), fields, {{tensor, 0, {1}}}).OrThrow();
    writer.Write(0, 0, std::vector<std::byte>(4)).OrThrow();
    writer.Commit().OrThrow();
  }

  Path folder_;
};

#define EXPECT_SAYS(message, words) \
  EXPECT_NE((message).find(words), std::string::npos) << "no \"" << (words) << "\" in: " << (message)

TEST_F(GgufSplitTest, AnyPartOpensAll) {
  for (int part = 1; part <= 3; ++part) {
    Result<Gguf> opened = Gguf::Open(Part(part));
    ASSERT_TRUE(opened.ok()) << opened.failure().message;
    const Gguf gguf = std::move(opened).value();
    EXPECT_EQ(gguf.name(), Part(1).string());
    EXPECT_EQ(*gguf.GetString("general.architecture"), "llama");
    EXPECT_EQ(gguf.GetInt("v.u32"), 7);
    ASSERT_EQ(gguf.tensors().size(), 5u);
    for (int i = 0; i < 5; ++i) {
      const GgufTensor* tensor = gguf.Find("t" + std::to_string(i));
      ASSERT_NE(tensor, nullptr);
      float last = 0.0f;
      std::memcpy(&last, tensor->data.data() + 5 * sizeof(float), sizeof(last));
      EXPECT_EQ(last, static_cast<float>(10 * i + 5));
    }
  }
}

TEST_F(GgufSplitTest, FilesAreListedByName) {
  const std::vector<Path> all = {Part(1), Part(2), Part(3)};
  EXPECT_EQ(GgufFiles(Part(1)), all);
  EXPECT_EQ(GgufFiles(Part(3)), all);
  for (const Path& one :
       {folder_ / "model.gguf", folder_ / "a-00004-of-00003.gguf", Path("a-00000-of-00000.gguf")})
    EXPECT_EQ(GgufFiles(one), std::vector<Path>{one});
}

TEST_F(GgufSplitTest, AMissingPartIsNamed) {
  std::filesystem::remove(Part(2));
  EXPECT_SAYS(Message(1), Part(2).string());
  EXPECT_SAYS(Message(3), Part(2).string());
}

TEST_F(GgufSplitTest, APartWithoutItsNameIsRefused) {
  for (const char* name :
       {"model.gguf", "split-00001-of-00004.gguf", "split-0001-of-0003.gguf", "split-00004-of-00003.gguf",
        "split-00000-of-00003.gguf", "split-0000a-of-00003.gguf", "-00001-of-00003.gguf"}) {
    std::filesystem::copy_file(Part(1), folder_ / name);
    const Result<Gguf> read = Gguf::Open(folder_ / name);
    ASSERT_FALSE(read.ok()) << name;
    EXPECT_SAYS(read.failure().message, "NAME-00001-of-00003.gguf");
  }
}

TEST_F(GgufSplitTest, PartsOfAnotherModelAreRefused) {
  using Fields = GgufFields;
  const auto part = [](uint32_t number, uint32_t count, uint32_t tensors) {
    return Fields{{"split.no", number}, {"split.count", count}, {"split.tensors.count", tensors}};
  };
  Write(1, part(0, 3, 3), "a");
  Write(2, part(1, 3, 3), "b");
  Write(3, part(2, 3, 3), "c");
  EXPECT_EQ(Message(), "");
  Write(3, part(1, 3, 3), "c");
  EXPECT_SAYS(Message(), "split.no and split.count must be 2 and 3");
  Write(3, part(2, 4, 3), "c");
  EXPECT_SAYS(Message(), "split.no and split.count must be 2 and 3");
  Write(3, {}, "c");
  EXPECT_SAYS(Message(), Part(3).string());
  Write(3, part(2, 3, 4), "c");
  EXPECT_SAYS(Message(), "split.tensors.count is not that of the first part");
  Write(3, part(2, 3, 3), "a");
  EXPECT_SAYS(Message(), "tensor a is also in a part before it");
  for (int i = 1; i <= 3; ++i)
    Write(i, part(static_cast<uint32_t>(i - 1), 3, 4), std::string(1, "xyz"[i - 1]));
  EXPECT_SAYS(Message(), "have 3 tensors together, split.tensors.count says 4");
  std::filesystem::copy_file(Part(1), Part(2), std::filesystem::copy_options::overwrite_existing);
  EXPECT_SAYS(Message(), Part(2).string());
}

TEST_F(GgufSplitTest, ACountBeyondAllNamesIsRefused) {
  Write(1, {{"split.no", uint32_t{0}}, {"split.count", uint32_t{4000000000}}}, "a");
  EXPECT_SAYS(Message(), "a part of a model in 4000000000 files");
  EXPECT_FALSE(Gguf::Join({}).ok());
}

}  // namespace
}  // namespace rung::io
