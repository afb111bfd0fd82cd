// Damaged copies of small models: each damage is found, and named.
#include "verify/verify.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/test_support.h"
#include "io/gguf_writer.h"
#include "io/safetensors.h"
#include "io/sha256.h"
#include "model/gguf_testing.h"

namespace rung::verify {
namespace {

constexpr const char* kStories = "tests/data/models/stories260k/stories260K.gguf";
constexpr const char* kTrained = "tests/data/models/tinystories-656k";
constexpr const char* kUp = "model.layers.1.mlp.up_proj.weight";

class VerifyTest : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    std::filesystem::copy(kTrained, model());
    std::filesystem::copy_file(kStories, gguf());
  }
  Path model() const { return folder_ / "model"; }
  Path gguf() const { return folder_ / "stories.gguf"; }

  Verification Run(const Path& path, const std::string& sha256 = "") const {
    VerifyOptions options;
    options.model = path;
    options.sha256 = sha256;
    options.compute.context = {cpu::BestIsa(), 1};
    return Verify(options, nullptr);
  }
  // The messages of these findings about `what`.
  static std::string Messages(const Verification& found, const std::string& what, Finding finding) {
    std::string text;
    for (const Check& check : found.checks) {
      if (check.what == what && check.finding == finding) text += check.message + "\n";
    }
    return text;
  }
  static std::string Problems(const Verification& found, const std::string& what) {
    return Messages(found, what, Finding::kProblem);
  }

  // The folder's weights again, each changed by `change` or left out where it returns false.
  struct Changed {
    std::string name, dtype;
    std::vector<int64_t> shape;
    std::vector<std::byte> data;
  };
  void Rewrite(const std::function<bool(Changed*)>& change) const {
    std::vector<Changed> all;
    {
      const io::Safetensors file = io::Safetensors::OpenFolder(kTrained).OrThrow();
      for (const auto& [name, entry] : file.tensors()) {
        Changed tensor{name, entry.dtype, entry.shape, std::vector<std::byte>(entry.bytes)};
        ASSERT_TRUE(file.Read(entry, 0, tensor.data).ok());
        if (change(&tensor)) all.push_back(std::move(tensor));
      }
    }
    std::vector<io::TensorToWrite> tensors;
    for (const Changed& tensor : all)
      tensors.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.data});
    ASSERT_TRUE(io::WriteSafetensors(model() / "model.safetensors", tensors, {{"format", "pt"}}).ok());
  }
  static void Set(Changed* tensor, size_t index, float value) {
    ASSERT_EQ(tensor->dtype, "F32");
    std::memcpy(tensor->data.data() + index * sizeof(float), &value, sizeof(value));
  }
};

TEST_F(VerifyTest, SoundModelsPass) {
  for (const Path& path : {model(), gguf()}) {
    const Verification found = Run(path);
    EXPECT_EQ(found.Count(Finding::kProblem), 0)
        << path << Problems(found, "weights") << Problems(found, "perplexity");
    for (const char* what : {"files", "config", "tensors", "weights", "tokenizer", "perplexity"}) {
      EXPECT_FALSE(Messages(found, what, Finding::kOk).empty()) << path << " " << what;
    }
    ASSERT_TRUE(found.perplexity);
    EXPECT_LT(*found.perplexity, 60.0);
    EXPECT_GT(*found.perplexity, 2.0);
  }
}

// Cut in two as gguf-split does: either part stands for the model, and both are looked at.
TEST_F(VerifyTest, EveryPartOfASplitFileIsChecked) {
  const Path parts[] = {folder_ / "split-00001-of-00002.gguf", folder_ / "split-00002-of-00002.gguf"};
  {
    const io::Gguf whole = io::Gguf::Open(kStories).OrThrow();
    const auto& tensors = whole.tensors();
    std::string sums;
    for (size_t part = 0; part < 2; ++part) {
      io::GgufFields fields = {{"split.no", static_cast<uint32_t>(part)},
                               {"split.count", uint32_t{2}},
                               {"split.tensors.count", static_cast<uint32_t>(tensors.size())}};
      for (const auto& [key, value] : whole.raw_metadata()) {
        if (part == 0) fields.emplace_back(key, value);
      }
      const size_t begin = part * (tensors.size() / 2), end = part == 0 ? tensors.size() / 2 : tensors.size();
      std::vector<io::GgufLayout> layouts;
      for (size_t i = begin; i < end; ++i)
        layouts.push_back({tensors[i].name, tensors[i].type, tensors[i].dims});
      io::GgufWriter writer = io::GgufWriter::Create(parts[part], fields, layouts).OrThrow();
      for (size_t i = begin; i < end; ++i) writer.Write(i - begin, 0, tensors[i].data).OrThrow();
      writer.Commit().OrThrow();
      sums +=
          io::Sha256OfFile(parts[part], nullptr).OrThrow() + "  " + parts[part].filename().string() + "\n";
    }
    Write("SHA256SUMS", sums);
  }
  for (const Path& path : parts) {
    const Verification found = Run(path);
    EXPECT_EQ(found.Count(Finding::kProblem), 0) << Problems(found, "files") << Problems(found, "tensors");
    EXPECT_EQ(found.sha256.size(), 2u);
  }
  {
    std::fstream file(parts[1], std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-40, std::ios::end);
    const auto at = file.tellg();
    const char flipped = static_cast<char>(file.get() ^ 1);
    file.seekp(at);
    file.put(flipped);
  }
  const Verification damaged = Run(parts[0]);
  const std::string problem = Problems(damaged, "files");
  EXPECT_NE(problem.find("split-00002-of-00002.gguf"), std::string::npos) << problem;
  EXPECT_NE(problem.find("SHA256SUMS says"), std::string::npos) << problem;
  EXPECT_EQ(problem.find("split-00001-of-00002.gguf"), std::string::npos) << problem;
  std::filesystem::remove(parts[1]);
  EXPECT_NE(Problems(Run(parts[0]), "files").find("split-00002-of-00002.gguf"), std::string::npos);
}

TEST_F(VerifyTest, NumbersThatAreNone) {
  Rewrite([](Changed* tensor) {
    if (tensor->name == kUp) Set(tensor, 3 * 128 + 5, std::numeric_limits<float>::quiet_NaN());
    return true;
  });
  const Verification found = Run(model());
  EXPECT_EQ(Problems(found, "weights"),
            std::string(kUp) + ": 1 NaN and 0 infinite of 49152, the first in row 3, column 5\n");
  EXPECT_FALSE(Messages(found, "perplexity", Finding::kSkipped).empty());
}

TEST_F(VerifyTest, ZerosAndAbsurdScales) {
  Rewrite([](Changed* tensor) {
    if (tensor->name == kUp) std::fill(tensor->data.begin(), tensor->data.end(), std::byte{0});
    if (tensor->name == "model.layers.0.mlp.down_proj.weight") Set(tensor, 7, 3e7f);
    return true;
  });
  const Verification found = Run(model());
  EXPECT_EQ(Problems(found, "weights"), std::string(kUp) + ": all zero\n");
  EXPECT_NE(Messages(found, "weights", Finding::kWarning).find("down_proj.weight: a weight of 3e+07"),
            std::string::npos);
}

TEST_F(VerifyTest, TensorsThatAreMissingWrongOrToo) {
  Rewrite([](Changed* tensor) {
    if (tensor->name == "model.layers.0.mlp.down_proj.weight") std::swap(tensor->shape[0], tensor->shape[1]);
    return tensor->name != kUp;
  });
  Verification found = Run(model());
  EXPECT_NE(Problems(found, "tensors").find(std::string("1 missing: ") + kUp), std::string::npos);
  EXPECT_NE(Problems(found, "tensors").find("down_proj"), std::string::npos) << Problems(found, "tensors");
  EXPECT_FALSE(Messages(found, "weights", Finding::kSkipped).empty());
  Rewrite([](Changed* tensor) {
    if (tensor->name == kUp) tensor->name = "model.layers.1.mlp.up_proj.wheight";
    return true;
  });
  found = Run(model());
  EXPECT_NE(Problems(found, "tensors").find(kUp), std::string::npos);
  EXPECT_NE(Messages(found, "tensors", Finding::kWarning).find("wheight"), std::string::npos);
}

// The list that loading prints.
TEST_F(VerifyTest, WhatAGgufFileHasBeyondItsModelIsAWarning) {
  EXPECT_EQ(Messages(Run(gguf()), "config", Finding::kWarning), "");
  model::WriteChanged(kStories, gguf(),
                      {{{"llama.attention.clamp_kqv", 8.0f}}, {{"blk.0.attn_q_norm.weight", 8}}});
  std::string expected;
  for (const std::string& line : model::ConfigWarnings(io::Gguf::Open(gguf()).OrThrow()))
    expected += line + "\n";
  const Verification found = Run(gguf());
  const std::string warnings = Messages(found, "config", Finding::kWarning);
  EXPECT_EQ(warnings, expected);
  for (const char* named : {"metadata key llama.attention.clamp_kqv", "tensor blk.0.attn_q_norm.weight"}) {
    EXPECT_NE(warnings.find(named), std::string::npos) << named << ": " << warnings;
  }
  EXPECT_EQ(found.Count(Finding::kProblem), 0);
  EXPECT_EQ(Messages(found, "tensors", Finding::kWarning), "");  // each is said once
}

// A cause is a problem once, and what needs the damaged part is skipped with a reason.
TEST_F(VerifyTest, OneCauseIsOneProblem) {
  const auto only_problem = [](const Verification& found, const std::string& what) {
    EXPECT_EQ(found.Count(Finding::kProblem), 1) << what;
    std::string message;
    for (const Check& check : found.checks) {
      if (check.finding != Finding::kProblem) continue;
      EXPECT_EQ(check.what, what) << check.message;
      message = check.message;
    }
    EXPECT_EQ(Messages(found, "perplexity", Finding::kOk), "");
    EXPECT_NE(Messages(found, "perplexity", Finding::kSkipped), "");
    return message;
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Rewrite([&](Changed* tensor) {
    if (tensor->name.find("mlp") != std::string::npos) Set(tensor, 9, nan);
    return true;
  });
  const std::string many = only_problem(Run(model()), "weights");
  EXPECT_TRUE(many.starts_with("NaN or infinity in 6 tensors: model.layers.0.mlp.")) << many;
  EXPECT_NE(many.find(" and 3 more"), std::string::npos) << many;

  Rewrite([](Changed* tensor) {
    if (tensor->name == kUp) std::fill(tensor->data.begin(), tensor->data.end(), std::byte{0});
    return true;
  });
  only_problem(Run(model()), "weights");

  Rewrite([](Changed*) { return true; });
  const std::string config = ReadTextFile(model() / "config.json", 1 << 20).OrThrow();
  const auto with = [&](const char* key, int64_t value) {
    nlohmann::json changed = nlohmann::json::parse(config);
    changed[key] = value;
    WriteTextFile(model() / "config.json", changed.dump()).OrThrow();
    return Run(model());
  };
  const std::string narrow = only_problem(with("intermediate_size", 352), "tensors");
  EXPECT_TRUE(narrow.starts_with("6 are not what the config asks for: ")) << narrow;
  const Verification vocabulary = with("vocab_size", 1024);
  only_problem(vocabulary, "tensors");
  EXPECT_NE(Messages(vocabulary, "tokenizer", Finding::kSkipped), "");
}

TEST_F(VerifyTest, TruncatedFiles) {
  std::filesystem::resize_file(gguf(), std::filesystem::file_size(gguf()) / 2);
  std::filesystem::resize_file(model() / "model.safetensors", 100'000);
  for (const Path& path : {model(), gguf()}) {
    const Verification found = Run(path);
    EXPECT_EQ(found.Count(Finding::kProblem), 1) << path;
    EXPECT_NE(Problems(found, "tensors"), "") << path;
    for (const char* what : {"weights", "perplexity"}) {
      EXPECT_FALSE(Messages(found, what, Finding::kSkipped).empty()) << path << " " << what;
    }
  }
  // Its checksum says it first.
  const std::string right = "270cba1bd5109f42d03350f60406024560464db173c0e387d91f0426d3bd256d";
  const Verification told = Run(gguf(), right);
  EXPECT_EQ(told.Count(Finding::kProblem), 1);
  EXPECT_NE(Problems(told, "files"), "");
  EXPECT_NE(Messages(told, "tensors", Finding::kSkipped).find("the file has the problem above: "),
            std::string::npos);
}

TEST_F(VerifyTest, Checksums) {
  const std::string right = "270cba1bd5109f42d03350f60406024560464db173c0e387d91f0426d3bd256d";
  const std::string wrong = "370cba1bd5109f42d03350f60406024560464db173c0e387d91f0426d3bd256d";
  EXPECT_NE(Messages(Run(gguf(), right), "files", Finding::kOk).find("as --sha256 says"), std::string::npos);
  EXPECT_NE(Problems(Run(gguf(), wrong), "files").find("--sha256 says " + wrong), std::string::npos);
  Write("SHA256SUMS", "0000  other.gguf\n" + wrong + " *stories.gguf\n");
  EXPECT_NE(Problems(Run(gguf()), "files").find("SHA256SUMS says " + wrong), std::string::npos);
  Write("stories.gguf.sha256", right + "\n");  // nearer to the file
  EXPECT_NE(Messages(Run(gguf()), "files", Finding::kOk).find("as stories.gguf.sha256 says"),
            std::string::npos);
  EXPECT_THROW(Run(gguf(), "123"), Error);
}

TEST_F(VerifyTest, ShuffledWeightsGuess) {
  // The same numbers elsewhere: nothing but the run of the model can tell.
  Rewrite([](Changed* tensor) {
    if (tensor->shape.size() == 2) std::reverse(tensor->data.begin(), tensor->data.end());
    for (size_t i = 0; tensor->shape.size() == 2 && i + 4 <= tensor->data.size(); i += 4) {
      std::reverse(tensor->data.begin() + static_cast<std::ptrdiff_t>(i),
                   tensor->data.begin() + static_cast<std::ptrdiff_t>(i + 4));
    }
    return true;
  });
  const Verification found = Run(model());
  EXPECT_EQ(Problems(found, "weights"), "");
  EXPECT_NE(Problems(found, "perplexity").find("guessing"), std::string::npos);
}

TEST_F(VerifyTest, TokenizersThatAreMissingOrAnothers) {
  std::filesystem::copy_file("tests/data/text/gpt2/tokenizer.json", model() / "tokenizer.json",
                             std::filesystem::copy_options::overwrite_existing);
  Verification found = Run(model());
  EXPECT_NE(Problems(found, "tokenizer"), "");
  EXPECT_EQ(found.Count(Finding::kProblem), 1);
  EXPECT_EQ(Messages(found, "perplexity", Finding::kSkipped), "the tokenizer cannot be used\n");
  std::filesystem::remove(model() / "tokenizer.json");
  found = Run(model());
  EXPECT_NE(Messages(found, "tokenizer", Finding::kSkipped).find("no tokenizer"), std::string::npos);
  EXPECT_EQ(Messages(found, "perplexity", Finding::kSkipped), "no tokenizer\n");
}

// Bytes alone, in GPT-2's letters for them.
TEST_F(VerifyTest, AVocabularyAndMergesAreATokenizer) {
  for (const char* file :
       {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"}) {
    std::filesystem::remove(model() / file);
  }
  // The ids that config.json names are no bytes.
  nlohmann::json vocabulary = {{"<none>", 0}, {"<begin>", 1}, {"<end>", 2}};
  char32_t beyond = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool itself = (byte > 32 && byte < 127) || (byte > 160 && byte != 173);
    const char32_t letter = itself ? static_cast<char32_t>(byte) : beyond++;
    std::string text(1, static_cast<char>(letter));
    if (letter > 127) {
      text = {static_cast<char>(0xC0 | letter >> 6), static_cast<char>(0x80 | (letter & 0x3F))};
    }
    vocabulary[text] = byte + 3;
  }
  WriteTextFile(model() / "vocab.json", vocabulary.dump()).OrThrow();
  EXPECT_EQ(Messages(Run(model()), "perplexity", Finding::kSkipped), "no tokenizer\n");
  WriteTextFile(model() / "merges.txt", "#version: 0.2\n").OrThrow();
  Verification found = Run(model());
  EXPECT_EQ(Problems(found, "tokenizer"), "");
  EXPECT_NE(Messages(found, "tokenizer", Finding::kOk).find("byte-level bpe (gpt-2), 259 ids"),
            std::string::npos);
  EXPECT_EQ(Messages(found, "perplexity", Finding::kSkipped), "");
  std::filesystem::remove(model() / "vocab.json");
  found = Run(model());
  EXPECT_NE(Problems(found, "tokenizer").find("vocab.json"), std::string::npos)
      << Problems(found, "tokenizer");
}

TEST_F(VerifyTest, AnEnglishThatDoesNotComeBackIsOneProblem) {
  nlohmann::json tokenizer =
      nlohmann::json::parse(ReadTextFile(model() / "tokenizer.json", 1 << 24).OrThrow());
  tokenizer["normalizer"]["normalizers"].push_back({{"type", "Lowercase"}});
  WriteTextFile(model() / "tokenizer.json", tokenizer.dump()).OrThrow();
  const Verification found = Run(model());
  EXPECT_EQ(Problems(found, "tokenizer"), "plain English comes back otherwise from byte 0 on\n");
  EXPECT_EQ(found.Count(Finding::kProblem), 1);
  EXPECT_EQ(Messages(found, "tokenizer", Finding::kWarning) + Messages(found, "tokenizer", Finding::kOk), "");
  EXPECT_EQ(Messages(found, "perplexity", Finding::kSkipped), "the tokenizer cannot be used\n");
}

}  // namespace
}  // namespace rung::verify
