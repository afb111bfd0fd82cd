// The hash of a model in several files; the expected ones are those of sha256sum.
#include "train/model_hash.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace rung::train {
namespace {

void ExpectFiles(const ModelHash& hash, const std::vector<std::pair<std::string, std::string>>& files) {
  ASSERT_EQ(hash.files.size(), files.size());
  for (size_t i = 0; i < files.size(); ++i) {
    EXPECT_EQ(hash.files[i].name, files[i].first);
    EXPECT_EQ(hash.files[i].sha256, files[i].second) << files[i].first;
  }
}

TEST(ModelHashTest, AShardedFolderIsItsShardsAndTheirIndex) {
  const ModelHash hash = HashModel("tests/data/io/sharded");
  ExpectFiles(hash, {{"model-00001-of-00002.safetensors",
                      "5de3cfa8c9660cab85d9de1e8d564931aa3beb277a014e3d26545b4f7cd59aee"},
                     {"model-00002-of-00002.safetensors",
                      "7b42eafdf6b6f490b86ba6ac3a1a997a8faff48ee3f304740a8287e8b1186f4c"},
                     {"model.safetensors.index.json",
                      "901067e2fe2c429e881cbc551d78f0f54159f1c7e53bc4666730e3634e8304a7"}});
  // cd tests/data/io/sharded && sha256sum * | cut -d' ' -f1 | sha256sum
  EXPECT_EQ(hash.sha256, "9bc67f7a43e4a711a7905f36e46fe511425edf6b3fbc86c4ad7cd461b5931c88");
}

TEST(ModelHashTest, ASplitGgufIsAllItsPartsWhicheverNamesIt) {
  for (const int part : {1, 2, 3}) {
    const ModelHash hash =
        HashModel("tests/data/io/split/split-0000" + std::to_string(part) + "-of-00003.gguf");
    ExpectFiles(hash, {{"part 1 of 3", "283194378e2475a00ff1831153b43055d2a2f75c32c311becb8905b8b497e0c3"},
                       {"part 2 of 3", "ceceb90dbada4208f646638f47ce1c9f396c0deed996348b1c805710b9ae7ad0"},
                       {"part 3 of 3", "944c0a11eef1181f4ed9314ac64c0cf3b6c2b19a39acf144de64423983a5f2fc"}});
    // cd tests/data/io/split && sha256sum * | cut -d' ' -f1 | sha256sum
    EXPECT_EQ(hash.sha256, "3a06c5b9ef03056bec839b1617f999c4ce575e88190135be8cfbcc3df90a2ffb");
  }
}

TEST(ModelHashTest, SaysHowFarItIs) {
  uint64_t last = 0, all = 0;
  const ModelHash hash = HashModel("tests/data/io/sharded", [&](uint64_t done, uint64_t total) {
    last = done;
    all = total;
    return true;
  });
  uint64_t bytes = 0;
  for (const ModelFile& file : hash.files) bytes += file.bytes;
  EXPECT_EQ(last, bytes);
  EXPECT_EQ(all, bytes);
  EXPECT_THROW(HashModel("tests/data/io/sharded", [](uint64_t, uint64_t) { return false; }), Error);
}

}  // namespace
}  // namespace rung::train
