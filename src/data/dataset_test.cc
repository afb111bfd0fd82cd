#include "data/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <map>
#include <set>

#include "base/file_calls.h"
#include "base/test_support.h"
#include "data/packer.h"
#include "data/token_file.h"

namespace rung::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int32_t kEos = 256;

// A byte a token; no template.
Vocabulary Bytes() {
  Vocabulary vocabulary;
  vocabulary.encode = [](std::string_view text) {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  };
  vocabulary.encode_rendered = [encode = vocabulary.encode](std::string_view text, bool) {
    return encode(text);
  };
  vocabulary.eos = kEos;
  vocabulary.end_ids = {kEos};
  return vocabulary;
}

class DatasetTest : public FolderTest {
 protected:
  DatasetOptions Of(std::vector<DataFile> files) const {
    DatasetOptions options;
    options.files = std::move(files);
    options.encoder_identity = "bytes";
    return options;
  }
  static Dataset Load(const DatasetOptions& options, const EncodeOptions& encode = {}) {
    return LoadDataset(options, Encoder(Bytes(), encode)).OrThrow();
  }
  static std::string FailureOf(const DatasetOptions& options, const EncodeOptions& encode = {}) {
    Result<Dataset> set = LoadDataset(options, Encoder(Bytes(), encode));
    return set.ok() ? "no failure" : set.failure().message;
  }
  // The bytes that each example learns.
  static std::vector<std::string> Learned(const Examples& examples) {
    std::vector<std::string> texts;
    for (int64_t i = 0; i < examples.size(); ++i) {
      std::string text;
      for (const TokenWord word : examples.words(i)) {
        if (IsLearned(word) && IdOf(word) < 256) text += static_cast<char>(IdOf(word));
      }
      texts.push_back(std::move(text));
    }
    return texts;
  }
  static std::string Lines(int begin, int end) {
    std::string lines;
    for (int i = begin; i < end; ++i) {
      lines +=
          "{\"prompt\": \"p" + std::to_string(i) + "\", \"completion\": \"c" + std::to_string(i) + "\"}\n";
    }
    return lines;
  }
};

TEST_F(DatasetTest, IsWhatTheEncoderMakesOneByOne) {
  const Path path = "examples/banking/train.jsonl";
  const std::vector<Record> records = ReadRecords(path).OrThrow();
  EncodeOptions encode;
  encode.max_length = 64;
  EncodeReport report;
  const std::vector<Example> serial = Encoder(Bytes(), encode).EncodeAll(records, "x", &report).OrThrow();
  for (const int threads : {1, 3}) {
    DatasetOptions options = Of({{path}});
    options.threads = threads;
    const Dataset set = Load(options, encode);
    ASSERT_EQ(set.examples.size(), static_cast<int64_t>(serial.size()));
    for (int64_t i = 0; i < set.examples.size(); ++i) {
      const Example example = set.examples.Get(i);
      ASSERT_EQ(example.ids, serial[static_cast<size_t>(i)].ids);
      ASSERT_EQ(example.learn, serial[static_cast<size_t>(i)].learn);
      EXPECT_EQ(set.examples.record(i), i);
    }
    EXPECT_EQ(set.report.records, static_cast<int64_t>(records.size()));
    EXPECT_EQ(set.report.targets, report.targets);
    EXPECT_EQ(set.report.rows, report.rows);
    EXPECT_EQ(set.report.truncated, report.truncated);
    EXPECT_GT(set.report.truncated, 0);
    EXPECT_EQ(set.examples.digest(), Examples(serial).digest());
  }
}

TEST_F(DatasetTest, IsCachedByItsContent) {
  const Path path = Write("a.jsonl", Lines(0, 50));
  DatasetOptions options = Of({{path}});
  const std::string digest = Load(options).examples.digest();
  options.cache = folder_ / "cache";
  const Dataset made = Load(options), again = Load(options);
  EXPECT_FALSE(made.cached);
  EXPECT_TRUE(again.cached);
  EXPECT_EQ(made.cache_file, again.cache_file);
  EXPECT_EQ(made.examples.digest(), digest);
  EXPECT_EQ(again.examples.digest(), digest);
  EXPECT_EQ(again.report.records, 50);
  EXPECT_EQ(again.report.targets, made.report.targets);
  EXPECT_EQ(again.examples.resident_bytes(), 0u);
  // A copy under another name is the same data.
  EXPECT_TRUE(Load([&] {
                DatasetOptions copy = options;
                copy.files = {{Write("b.jsonl", Lines(0, 50))}};
                return copy;
              }())
                  .cached);

  // Everything that decides the tokens makes another file.
  std::set<Path> files = {made.cache_file};
  const auto expect_other = [&](const DatasetOptions& changed, const EncodeOptions& encode) {
    const Dataset other = Load(changed, encode);
    EXPECT_FALSE(other.cached);
    EXPECT_TRUE(files.insert(other.cache_file).second);
  };
  DatasetOptions changed = options;
  changed.encoder_identity = "other";
  expect_other(changed, {});
  changed = options;
  changed.files = {{Write("c.jsonl", Lines(0, 49))}};
  expect_other(changed, {});
  changed = options;
  changed.part = Part::kTrain;
  changed.valid_fraction = 0.1;
  expect_other(changed, {});
  changed = options;
  changed.read.record.format = Format::kCompletion;
  expect_other(changed, {});
  for (const EncodeOptions& encode :
       {EncodeOptions{.max_length = 100}, EncodeOptions{.completion_only = false},
        EncodeOptions{.mask_history = true}, EncodeOptions{.truncation = Truncation::kSplit},
        EncodeOptions{.special_tokens = true}}) {
    expect_other(options, encode);
  }
  // Nothing half-written is left.
  for (const auto& entry : std::filesystem::directory_iterator(options.cache)) {
    EXPECT_EQ(entry.path().extension(), ".tokens") << entry.path();
  }
}

TEST_F(DatasetTest, MakesADamagedCacheAgain) {
  DatasetOptions options =
      Of({{Write("a.jsonl", Lines(0, 20) + "{\"prompt\": \"p\", \"completion\": \"\"}\n")}});
  options.cache = folder_ / "cache";
  const Dataset made = Load(options);
  const std::string whole = ReadTextFile(made.cache_file, 1 << 20).OrThrow();
  const std::string digest = made.examples.digest();
  ASSERT_GT(whole.size(), 300u);
  for (size_t i = 0; i < whole.size() + 2; i += i < 100 || i > whole.size() - 40 ? 1 : 29) {
    std::string damaged = whole;
    if (i < whole.size()) {
      damaged[i] = static_cast<char>(damaged[i] ^ 4);
    } else if (i == whole.size()) {
      damaged.resize(whole.size() / 2);
    } else {
      damaged += '\0';
    }
    ASSERT_TRUE(WriteTextFile(made.cache_file, damaged).ok());
    const Dataset again = Load(options);
    EXPECT_FALSE(again.cached) << "byte " << i;
    EXPECT_THAT(again.notes, ElementsAre(HasSubstr("damaged; the data is encoded again")));
    EXPECT_EQ(again.examples.digest(), digest);
    EXPECT_EQ(again.report.dropped_count, 1);
  }
  EXPECT_TRUE(Load(options).cached);
  EXPECT_EQ(Load(options).report.dropped[0].reason, "the completion is empty");
  EXPECT_EQ(Load(options).report.dropped[0].row, 21);
}

TEST_F(DatasetTest, SplitsByContent) {
  DatasetOptions options = Of({{Write("a.jsonl", Lines(0, 1000))}});
  options.valid_fraction = 0.2;
  const auto part = [&](Part wanted) {
    options.part = wanted;
    const std::vector<std::string> texts = Learned(Load(options).examples);
    return std::set<std::string>(texts.begin(), texts.end());
  };
  const std::set<std::string> valid = part(Part::kValid), train = part(Part::kTrain);
  EXPECT_EQ(valid.size() + train.size(), 1000u);
  EXPECT_NEAR(static_cast<double>(valid.size()), 200.0, 40.0);
  for (const std::string& text : valid) EXPECT_FALSE(train.contains(text));
  // Another order, more records and duplicates move none across.
  options.files = {{Write("b.jsonl", Lines(500, 1200) + Lines(0, 700))}};
  for (const std::string& text : part(Part::kValid)) EXPECT_FALSE(train.contains(text));
  const std::set<std::string> reordered = part(Part::kValid);
  for (const std::string& text : valid) EXPECT_TRUE(reordered.contains(text)) << text;
  options.valid_fraction = 1e-9;
  options.part = Part::kValid;
  EXPECT_THAT(FailureOf(options), HasSubstr("leaves no record to evaluate on"));
}

TEST_F(DatasetTest, RepeatsByWeight) {
  const Path a = Write("a.jsonl", Lines(0, 10)),
             b = Write("b.csv", "prompt,completion\nx,b0\nx,b1\nx,b2\nx,b3\n");
  const Dataset set = Load(Of({{a, 2.0}, {b, 0.5}}));
  std::map<std::string, int> times;
  for (const std::string& text : Learned(set.examples)) ++times[text];
  EXPECT_EQ(set.examples.size(), 22);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(times["c" + std::to_string(i)], 2);
  EXPECT_EQ(times["b1"] + times["b3"], 2);
  EXPECT_EQ(set.report.records, 14);
  EXPECT_EQ(Load(Of({{a, 1.25}})).examples.size(), 12);
  EXPECT_NE(set.examples.digest(), Load(Of({{a}, {b}})).examples.digest());
  // Held-out records count once.
  DatasetOptions held = Of({{a, 3.0}});
  held.valid_fraction = 0.5;
  held.part = Part::kTrain;
  const int64_t trained = Load(held).examples.size() / 3;
  held.part = Part::kValid;
  EXPECT_EQ(Load(held).examples.size(), 10 - trained);
  // Weights are no part of the cache's key.
  DatasetOptions cached = Of({{a, 2.0}, {b, 0.5}});
  cached.cache = folder_ / "cache";
  Load(cached);
  cached.files[0].weight = 1.0;
  const Dataset other = Load(cached);
  EXPECT_TRUE(other.cached);
  EXPECT_EQ(other.examples.size(), 12);
}

TEST_F(DatasetTest, RefusesWeightsThatLeaveNothing) {
  DatasetOptions options = Of({{Write("a.jsonl", Lines(0, 3)), 0.01}});
  EXPECT_THAT(FailureOf(options),
              HasSubstr("a.jsonl: the weights leave none of 3 examples: raise FILE:0.01"));
  options.cache = folder_ / "cache";
  EXPECT_THAT(FailureOf(options), HasSubstr("the weights leave none"));
  EXPECT_THAT(FailureOf(options), HasSubstr("the weights leave none"));  // from the file that is there now
}

ssize_t NoRoom(int, const void*, size_t, off_t) {
  errno = ENOSPC;
  return -1;
}

TEST_F(DatasetTest, KeepsTokensInMemoryWhereItsOwnFolderCannotBeUsed) {
  const Path file = Write("a.jsonl", Lines(0, 20)), wrong = Write("b.jsonl", "x\n");
  DatasetOptions options = Of({{file}});
  const std::string digest = Load(options).examples.digest();
  const auto expect_both = [&](const char* reason) {
    options.cache_is_default = false;
    EXPECT_THAT(FailureOf(options), HasSubstr(reason));
    options.cache_is_default = true;
    const Dataset set = Load(options);
    EXPECT_EQ(set.examples.digest(), digest);
    EXPECT_EQ(set.report.records, 20);
    EXPECT_EQ(set.cache_file, Path());
    EXPECT_THAT(set.notes, ElementsAre(testing::AllOf(HasSubstr(reason), HasSubstr("kept in memory"),
                                                      HasSubstr("--token-cache"))));
  };
  options.cache = file / "cache";  // below a file there is no folder
  expect_both("cannot create");
  options.cache = folder_ / "cache";
  FileCalls calls = FileCalls::System();
  calls.pwrite = NoRoom;
  const FileCallsScope scope(calls);
  expect_both("No space left");
  EXPECT_TRUE(std::filesystem::is_empty(options.cache));
  // What is wrong with the data is no reason to encode it twice.
  options.files = {{wrong}};
  EXPECT_THAT(FailureOf(options), HasSubstr("b.jsonl:1: not valid JSON"));
}

TEST_F(DatasetTest, KeepsItsCacheBelowTheLimit) {
  DatasetOptions a = Of({{Write("a.jsonl", Lines(0, 20))}}), b = Of({{Write("b.jsonl", Lines(20, 40))}});
  a.cache = b.cache = folder_ / "cache";
  a.cache_limit = b.cache_limit = 1;
  Path first;
  {
    const Dataset in_use = Load(a), other = Load(b);
    first = in_use.cache_file;
    EXPECT_TRUE(std::filesystem::exists(first));
    EXPECT_TRUE(other.notes.empty());
  }
  const Dataset again = Load(b);
  EXPECT_TRUE(again.cached);
  EXPECT_THAT(again.notes, ElementsAre(HasSubstr("token cache: removed 1 file of")));
  EXPECT_FALSE(std::filesystem::exists(first));
  EXPECT_TRUE(std::filesystem::exists(again.cache_file));
}

TEST_F(DatasetTest, TellsHowFarItIsAndStopsWhenInterrupted) {
  const Path file = Write("a.jsonl", Lines(0, 10000));
  const uint64_t size = std::filesystem::file_size(file);
  std::atomic<bool> interrupt = false;
  std::vector<uint64_t> told;
  DatasetOptions options = Of({{file}, {"tests/data/data/pairs.jsonl.gz"}});
  options.threads = 2;
  options.cache = folder_ / "cache";
  options.interrupt = &interrupt;
  options.on_progress = [&](uint64_t done, uint64_t total) {
    EXPECT_GT(total, size);
    EXPECT_LE(done, total);
    told.push_back(done);
    interrupt = true;
  };
  const Result<Dataset> stopped = LoadDataset(options, Encoder(Bytes(), {}));
  ASSERT_FALSE(stopped.ok());
  EXPECT_EQ(stopped.failure().code, ExitCode::kInterrupted);
  EXPECT_EQ(told.size(), 1u);
  EXPECT_TRUE(std::filesystem::is_empty(options.cache));

  interrupt = false;
  options.on_progress = [&](uint64_t done, uint64_t total) {
    EXPECT_GE(done, told.back());
    told.push_back(done);
    if (done == total) told.push_back(total);
  };
  EXPECT_EQ(Load(options).examples.size(), 10040);
  ASSERT_GE(told.size(), 5u);
  EXPECT_EQ(told.back(), told[told.size() - 2]) << "the last call is of all bytes";
  // From the cache too.
  interrupt = true;
  try {
    const Result<Dataset> cached = LoadDataset(options, Encoder(Bytes(), {}));
    ADD_FAILURE() << "not stopped: " << cached.ok();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kInterrupted);
  }
}

TEST_F(DatasetTest, LearnsEveryTokenOnceWhenItSplits) {
  std::string text;
  for (int i = 0; i < 500; ++i) text += static_cast<char>('a' + i % 26);
  for (const bool bos : {false, true}) {
    Vocabulary vocabulary = Bytes();
    vocabulary.bos = 300;
    vocabulary.adds_bos = bos;
    EncodeOptions options;
    options.truncation = Truncation::kSplit;
    for (const int64_t length : {2, 3, 7, 64, 501, 502, 600}) {
      options.max_length = length;
      Record record;
      record.text = text;
      bool truncated = false;
      const auto parts = Encoder(vocabulary, options).EncodeParts(record, &truncated).OrThrow();
      std::string learned;
      for (const Example& part : parts) {
        EXPECT_LE(static_cast<int64_t>(part.ids.size()), length);
        EXPECT_EQ(part.learn[0], 0);
        EXPECT_EQ(part.ids[0] == 300, bos && (length > 2 || &part == &parts.front()));
        EXPECT_EQ(std::count(part.ids.begin() + 1, part.ids.end(), 300), 0);
        for (size_t i = 0; i < part.ids.size(); ++i) {
          if (part.learn[i]) learned += part.ids[i] == kEos ? '.' : static_cast<char>(part.ids[i]);
        }
      }
      EXPECT_EQ(learned, (bos ? text : text.substr(1)) + ".") << length;
      EXPECT_EQ(truncated, static_cast<int64_t>(text.size()) + 1 + bos > length);
      EXPECT_EQ(parts.size() > 1, truncated);
    }
  }
}

TEST_F(DatasetTest, DropsWhatIsTooLongOnRequest) {
  EncodeOptions encode;
  encode.truncation = Truncation::kDrop;
  encode.max_length = 6;  // p1 c1 </s> fits, p10 c10 </s> does not
  const DatasetOptions options = Of({{Write("a.jsonl", Lines(8, 12))}});
  const Dataset set = Load(options, encode);
  EXPECT_THAT(Learned(set.examples), ElementsAre("c8", "c9"));
  ASSERT_EQ(set.report.dropped_count, 2);
  EXPECT_EQ(set.report.dropped[0].reason, "it has 7 tokens, the limit is 6");
  EXPECT_EQ(set.report.dropped[0].row, 3);
  encode.max_length = 4;
  EXPECT_THAT(FailureOf(options, encode), HasSubstr("no record has a target token: row 1: it has 5 tokens"));
}

TEST_F(DatasetTest, NamesFileAndRowOfWhatIsBad) {
  const Path good = Write("a.jsonl", Lines(0, 3)),
             bad = Write("b.jsonl", Lines(0, 2) + "{\"text\": \"t\"}\nx\n");
  DatasetOptions options = Of({{good}, {bad}});
  EXPECT_THAT(FailureOf(options),
              testing::AllOf(HasSubstr("b.jsonl:3: this record is text, the one in row 1 is"),
                             HasSubstr("and 1 more bad row")));
  options.read.max_bad_rows = 2;
  const Dataset set = Load(options);
  EXPECT_EQ(set.examples.size(), 5);
  EXPECT_THAT(set.bad_rows, ElementsAre(HasSubstr("b.jsonl:3: "), HasSubstr("b.jsonl:4: not valid JSON")));
  options.cache = folder_ / "cache";
  Load(options);
  EXPECT_EQ(Load(options).bad_rows, set.bad_rows);
}

TEST_F(DatasetTest, FindsFilesInFolders) {
  Write("train.csv", "text\na\n");
  Write("validation.jsonl.gz", "x");
  EXPECT_EQ(FindDataFile(folder_.string(), Split::kTrain).OrThrow().path, folder_ / "train.csv");
  EXPECT_EQ(FindDataFile(folder_.string() + ":0.5", Split::kTrain).OrThrow().weight, 0.5);
  EXPECT_EQ(FindDataFile(folder_.string(), Split::kValid).OrThrow().path, folder_ / "validation.jsonl.gz");
  EXPECT_THAT(FindDataFile(folder_.string(), Split::kTest).failure().message,
              HasSubstr("there is no test.jsonl in it"));
  Write("train.jsonl", "x");
  EXPECT_THAT(FindDataFile(folder_.string(), Split::kTrain).failure().message,
              HasSubstr("name the one you mean"));
}

TEST_F(DatasetTest, ReadsWeightsOfNames) {
  const std::string name = Write("a:2.jsonl", "x").string();
  EXPECT_EQ(FindDataFile(name, Split::kTrain).OrThrow().weight, 1.0);
  EXPECT_EQ(FindDataFile(name + ":2", Split::kTrain).OrThrow().weight, 2.0);
  EXPECT_EQ(FindDataFile(name + ":2", Split::kTrain).OrThrow().path, name);
  EXPECT_FALSE(FindDataFile(name + ":0", Split::kTrain).ok());
  EXPECT_FALSE(FindDataFile(name + ":-1", Split::kTrain).ok());
  const std::vector<std::string> both = {name + "," + name + ":3"};
  const auto files = FindDataFiles(both, Split::kTrain).OrThrow();
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[1].weight, 3.0);
  Write("c,d.jsonl", "x");
  const std::vector<std::string> comma = {(folder_ / "c,d.jsonl").string()};
  EXPECT_EQ(FindDataFiles(comma, Split::kTrain).OrThrow().size(), 1u);
}

TEST_F(DatasetTest, PacksTheSameFromMemoryAndFromDisk) {
  DatasetOptions options = Of({{"examples/stories/train.jsonl"}});
  const Dataset memory = Load(options);
  options.cache = folder_ / "cache";
  Load(options);
  const Dataset disk = Load(options);
  ASSERT_TRUE(disk.cached);
  const std::vector<int64_t> rows = RowsOf(memory.examples);
  EXPECT_EQ(rows, RowsOf(disk.examples));
  const EpochPlan plan = PlanEpoch(rows, 2048, 1, 0).OrThrow();
  for (int64_t b = 0; b < static_cast<int64_t>(plan.batches.size()); ++b) {
    disk.examples.Prefetch(plan.batches[static_cast<size_t>(b)]);
    const Batch one = MakeBatch(plan, b, memory.examples), other = MakeBatch(plan, b, disk.examples);
    EXPECT_EQ(one.ids, other.ids);
    EXPECT_EQ(one.target, other.target);
    EXPECT_EQ(one.starts, other.starts);
  }
}

}  // namespace
}  // namespace rung::data
