// rung data as a user runs it, and training on what it shows.
#include "cli/data.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/test_support.h"

namespace rung::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class DataTest : public FolderTest {
 protected:
  std::string Data(const std::string& verb, std::vector<std::string> more) const {
    more.insert(more.begin(), verb);
    return RunVerb(AddData, more);
  }
  json Json(const std::string& verb, std::vector<std::string> more) const {
    more.push_back("--json");
    return json::parse(Data(verb, more));
  }
  std::vector<std::string> WithModel(const Path& data, std::vector<std::string> more = {}) const {
    more.insert(more.end(), {"--model", kStories, "--data", data.string()});
    return more;
  }
};

TEST_F(DataTest, InspectMarksWhatIsLearned) {
  const Path data = Write("a.jsonl",
                          "\n{\"prompt\": \"Once upon\", \"completion\": \"a time\"}\n"
                          "{\"prompt\": \"x\", \"completion\": \"\"}\n");
  const std::string plain = Data("inspect", WithModel(data, {"--color", "never"}));
  EXPECT_THAT(plain, HasSubstr("a.jsonl:2  prompt-completion  "));
  EXPECT_THAT(plain, HasSubstr("Once upon\u27e6 a time"));
  EXPECT_THAT(plain, testing::Not(HasSubstr("\x1b")));
  EXPECT_THAT(Data("inspect", WithModel(data, {"--color", "always"})),
              HasSubstr("Once upon\x1b[1;32m a time"));
  EXPECT_EQ(Data("inspect", WithModel(data)), plain) << "no colour outside of a terminal";
  EXPECT_THAT(Data("inspect", WithModel(data, {"--row", "3"})),
              HasSubstr("left out: the completion is empty"));

  const json found = Json("inspect", WithModel(data, {"--count", "2"}));
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0]["row"], 2);
  const json& example = found[0]["examples"][0];
  std::string learned;
  int64_t count = 0;
  for (const json& token : example["tokens"]) {
    if (!token["learned"].get<bool>()) continue;
    learned += token["text"].get<std::string>();
    ++count;
  }
  EXPECT_THAT(learned, testing::StartsWith(" a time"));
  EXPECT_EQ(example["learned"], count);
  EXPECT_EQ(found[1]["left_out"], "the completion is empty");
  const auto [code, message] =
      Refusal(AddData, {"inspect", "--model", kStories, "--data", data.string(), "--row", "9"});
  EXPECT_EQ(code, ExitCode::kUsage);
  EXPECT_THAT(message, HasSubstr("no record begins in row 9"));
}

TEST_F(DataTest, StatsCountAndFill) {
  std::string lines;
  for (int i = 0; i < 200; ++i) {
    lines += "{\"text\": \"" + std::string(static_cast<size_t>(i % 20 + 1), 'a') + " dog\"}\n";
  }
  const Path data = Write("a.jsonl", lines + "{\"text\": \"\"}\n");
  const json found = Json("stats", WithModel(data, {"--tokens", "128", "--max-length", "16"}));
  EXPECT_EQ(found["records"], 201);
  EXPECT_EQ(found["left_out"], 1);
  EXPECT_EQ(found["examples"], 200);
  EXPECT_GT(found["truncated"].get<int>(), 0);
  EXPECT_EQ(found["length_max"], 16);
  EXPECT_GE(found["fill"].get<double>(), 0.97);
  int64_t binned = 0;
  for (const json& bin : found["histogram"]) binned += bin["count"].get<int64_t>();
  EXPECT_EQ(binned, 200);
  EXPECT_EQ(found["left_out_records"][0]["row"], 201);
  // All but the first token of a text are learned.
  EXPECT_EQ(found["tokens"].get<int64_t>() - found["learned"].get<int64_t>(), 200);
  EXPECT_THAT(Data("stats", WithModel(data)),
              testing::AllOf(HasSubstr("left out        1"), HasSubstr("####")));
}

TEST_F(DataTest, CheckListsWhatIsWrong) {
  const Path good = Write("good.jsonl", "{\"prompt\": \"a\", \"completion\": \"1\"}\n");
  EXPECT_THAT(Data("check", {"--data", good.string()}), HasSubstr("1 records, nothing wrong"));
  Write("train.jsonl",
        "{\"prompt\": \"a\", \"completion\": \"1\"}\n{\"prompt\": \"a\", \"completion\": \"1\"}\n"
        "{\"prompt\": \"a\", \"completion\": \"2\"}\n{\"prompt\": \"b\", \"completion\": \" \"}\nnonsense\n");
  Write("test.jsonl",
        "{\"prompt\": \"a\", \"completion\": \"1\"}\n{\"prompt\": \"b\", \"completion\": \"x\"}\n"
        "{\"prompt\": \"c\", \"completion\": \"x\"}\n");
  testing::internal::CaptureStdout();
  const auto [code, message] = [&] {
    CLI::App app;
    const Action action = AddData(app);
    std::vector<std::string> arguments = {"--json", folder_.string(), "--data", "check"};
    app.parse(arguments);
    try {
      action();
    } catch (const Error& error) {
      return std::pair(error.code(), std::string(error.what()));
    }
    return std::pair(ExitCode::kDone, std::string());
  }();
  const json found = json::parse(testing::internal::GetCapturedStdout());
  EXPECT_EQ(code, ExitCode::kBadInput);
  EXPECT_EQ(found["records"], 8);
  std::vector<std::string> all;
  for (const json& finding : found["findings"]) {
    all.push_back(Path(finding["file"].get<std::string>()).filename().string() + ":" +
                  std::to_string(finding["row"].get<int>()) + " " + finding["kind"].get<std::string>());
  }
  std::sort(all.begin(), all.end());
  EXPECT_THAT(all, testing::ElementsAre("test.jsonl:1 stands in the training data",
                                        "test.jsonl:2 stands in the training data", "train.jsonl:2 duplicate",
                                        "train.jsonl:3 another answer to the same prompt",
                                        "train.jsonl:4 empty answer", "train.jsonl:5 bad record"));
}

TEST_F(DataTest, FlagsBecomeOptions) {
  DataFlags flags;
  flags.columns = "prompt=q";
  flags.template_completion = "{a}!";
  flags.truncate = "split";
  flags.token_cache = "none";
  const train::DataOptions options = Resolve(flags);
  EXPECT_EQ(options.truncation, data::Truncation::kSplit);
  EXPECT_EQ(options.cache, Path());
  const auto record = data::ParseRecord(R"({"q": "1", "a": "2"})", options.read.record).OrThrow();
  EXPECT_EQ(record.completion, "2!");
  flags.token_cache = "auto";
  EXPECT_FALSE(Resolve(flags).cache.has_value());
  flags.columns = "prmpt=q";
  EXPECT_THROW(Resolve(flags), Error);
}

}  // namespace
}  // namespace rung::cli
