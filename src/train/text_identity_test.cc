// The part of a cached data set's name that is of the tokenizer: every file that decides tokens is in it.
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <set>

#include "model/model.h"
#include "text/tokenizer.h"
#include "train/identity.h"
#include "train/run.h"

namespace rung::train {
namespace {

// A folder of each kind, with everything that may stand in one.
class TextIdentityTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("rung_text_identity_" + std::to_string(::getpid()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    if (GetParam()) {
      for (const char* name :
           {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"}) {
        std::filesystem::copy(Path("tests/data/text/tinystories") / name, folder_);
      }
    } else {
      Write("vocab.json", R"({"a": 0, "b": 1, "ab": 2, "</s>": 3, "c": 4})");
      Write("merges.txt", "#version: 0.2\na b\n");
      Write("added_tokens.json", R"({"<x>": 5})");
      Write("tokenizer_config.json", R"({"eos_token": "</s>"})");
      Write("special_tokens_map.json", R"({"eos_token": "</s>"})");
      Write("generation_config.json", R"({"eos_token_id": 3})");
    }
    Write("config.json", R"({"eos_token_id": 3})");
    Write("chat_template.jinja", "{{ messages }}");
    Write("README.md", "not read");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& name, const std::string& text) const {
    ASSERT_TRUE(WriteTextFile(folder_ / name, text).ok());
  }
  std::string Identity() const { return TextIdentity(folder_, ""); }

  // The files that the tokenizer opens, as the kernel saw it.
  std::set<std::string> FilesRead() const {
    const int watch = inotify_init1(IN_NONBLOCK);
    EXPECT_GE(inotify_add_watch(watch, folder_.c_str(), IN_OPEN), 0);
    const Result<text::Tokenizer> tokenizer = text::Tokenizer::FromFolder(folder_);
    EXPECT_TRUE(tokenizer.ok()) << (tokenizer.ok() ? "" : tokenizer.failure().message);
    std::set<std::string> names;
    alignas(inotify_event) std::array<char, 1 << 16> buffer{};
    const ssize_t size = read(watch, buffer.data(), buffer.size());
    for (ssize_t at = 0; at < size;) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + at, sizeof(event));
      if (event.len > 0) names.insert(buffer.data() + at + sizeof(event));
      at += static_cast<ssize_t>(sizeof(event) + event.len);
    }
    close(watch);
    return names;
  }

  Path folder_;
};

TEST_P(TextIdentityTest, ChangesWithEveryFileThatTheTokenizerReads) {
  const std::set<std::string> read = FilesRead();
  ASSERT_GE(read.size(), 6u);
  EXPECT_FALSE(read.contains("README.md"));
  const std::string before = Identity();
  std::set<std::string> seen = {before};
  for (const std::string& name : read) {
    const std::string text = ReadTextFile(folder_ / name, 1 << 20).OrThrow();
    Write(name, text + " ");
    EXPECT_TRUE(seen.insert(Identity()).second) << name;
    Write(name, text);
    EXPECT_EQ(Identity(), before) << name;
  }
  Write("README.md", "changed");
  EXPECT_EQ(Identity(), before);
  EXPECT_NE(TextIdentity(folder_, "another template"), before);
}

INSTANTIATE_TEST_SUITE_P(Folders, TextIdentityTest, testing::Bool(), [](const auto& of) {
  return of.param ? std::string("TokenizerJson") : std::string("VocabularyAndMerges");
});

// From the files of a model to a cached data set, and again with other merges.
TEST(TokenCache, IsNotReadForAnotherTokenizer) {
  const Path folder =
      std::filesystem::temp_directory_path() / ("rung_cache_key_" + std::to_string(::getpid()));
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder / "model");
  const auto write = [&](const std::string& name, const std::string& text) {
    ASSERT_TRUE(WriteTextFile(folder / name, text).ok());
  };
  write("model/vocab.json", R"({"a": 0, "b": 1, "ab": 2, "</s>": 3, "ba": 4})");
  write("model/tokenizer_config.json", R"({"eos_token": "</s>"})");
  write("data.jsonl", "{\"text\": \"abab\"}\n");
  const std::vector<data::DataFile> files = {{folder / "data.jsonl"}};
  TrainOptions options;
  options.model = folder / "model";
  options.compute.context.threads = 1;
  options.data_options.cache = folder / "cache";
  const auto ids = [&](const std::string& merges) {
    write("model/merges.txt", "#version: 0.2\n" + merges + "\n");
    const model::ModelText text = model::LoadText(options.model, true, "", 100).OrThrow();
    return LoadData(files, data::Part::kAll, text, options).examples.Get(0).ids;
  };
  EXPECT_EQ(ids("a b"), (std::vector<int32_t>{2, 2, 3}));
  EXPECT_EQ(ids("b a"), (std::vector<int32_t>{0, 4, 1, 3}));
  EXPECT_EQ(ids("a b"), (std::vector<int32_t>{2, 2, 3}));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace rung::train
