// rung data as a user runs it, and training on what it shows.
#include "cli/data.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/config_file.h"
#include "cli/test_support.h"
#include "model/model.h"
#include "train/run.h"

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

// A special token, and the same letters as plain text.
TEST_F(DataTest, InspectTellsSpecialTokensApart) {
  const Path data = Write("rendered.jsonl", "{\"text\": \"<s>Once</s>\"}\n");
  const json plain = Json("inspect", WithModel(data)),
             special = Json("inspect", WithModel(data, {"--special-tokens"}));
  const auto specials = [](const json& found) {
    const json& tokens = found[0]["examples"][0]["tokens"];
    return std::count_if(tokens.begin(), tokens.end(),
                         [](const json& t) { return t["special"].get<bool>(); });
  };
  EXPECT_EQ(specials(plain), 2) << "its own BOS and EOS";
  EXPECT_GT(plain[0]["examples"][0]["tokens"].size(), special[0]["examples"][0]["tokens"].size());
  EXPECT_EQ(specials(special), 2);
  EXPECT_EQ(plain[0]["special_text"], "<s>");
  EXPECT_FALSE(special[0].contains("special_text"));
  EXPECT_THAT(Data("inspect", WithModel(data)), HasSubstr("\"<s>\" stands in it as plain text"));
}

TEST_F(DataTest, ChatTemplateIsTheOneThatIsGiven) {
  const Path data = Write("c.jsonl", "{\"prompt\": \"Once\", \"completion\": \"a time\"}\n");
  const Path own = Write("own.jinja", "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}");
  const json found = Json("inspect", WithModel(data, {"--chat-template", own.string()}));
  EXPECT_THAT(found[0]["examples"][0]["text"].get<std::string>(), HasSubstr("user=Once;assistant=a time;"));
}

TEST_F(DataTest, ChatTemplateThatIsBrokenIsNotTheModels) {
  const Path data = Write("c.jsonl", "{\"prompt\": \"Once\", \"completion\": \"a time\"}\n");
  const auto refusal = [&](const std::string& given) {
    return Refusal(AddData,
                   {"inspect", "--model", kStories, "--data", data.string(), "--chat-template", given});
  };
  const Path broken = Write("broken.jinja", "{{ messages[0].content }}\n{% for m in messages %}");
  const auto [code, message] = refusal(broken.string());
  EXPECT_EQ(code, ExitCode::kBadInput);
  EXPECT_EQ(message, "template of " + broken.string() +
                         ": line 2, column 22: a block that never ends: 'endfor' is missing");
  EXPECT_EQ(refusal("{{ 1 +").second.substr(0, 35), "template of --chat-template: line 1");
  EXPECT_THAT(refusal(Write("blank.jinja", " \n").string()).second, HasSubstr("blank.jinja: empty"));
  EXPECT_THROW(refusal(""), CLI::ValidationError);
  // One that fails on the record.
  const Path raises = Write("raises.jinja", "{{ raise_exception('no') }}");
  EXPECT_THAT(Data("inspect", WithModel(data, {"--chat-template", raises.string()})),
              HasSubstr("left out: template of --chat-template or the adapter: no"));
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

TEST_F(DataTest, CheckRefusesWeightsThatLeaveNothing) {
  std::string lines;
  for (int i = 0; i < 50; ++i)
    lines += "{\"prompt\": \"a" + std::to_string(i) + "\", \"completion\": \"1\"}\n";
  const Path data = Write("a.jsonl", lines);
  EXPECT_THAT(Data("check", {"--data", data.string() + ":0.02"}), HasSubstr("50 records, nothing wrong"));
  EXPECT_THAT(Refusal(AddData, {"check", "--data", data.string() + ":0.01"}).first, ExitCode::kBadInput);
}

TEST_F(DataTest, CheckTakesNoQuestionForAnotherAnswer) {
  const Path data = Write("a.jsonl",
                          "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"},"
                          " {\"role\": \"assistant\", \"content\": \"a\"}]}\n"
                          "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}]}\n");
  EXPECT_THAT(Data("check", {"--data", data.string(), "--train-on-prompt"}),
              HasSubstr("2 records, nothing wrong"));
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

TEST_F(DataTest, InspectPassesOverBadRowsThatAreAllowed) {
  const std::string good = "{\"text\": \"one\"}\n";
  const Path data = Write("a.jsonl", "nonsense\n" + good), other = Write("b.jsonl", good),
             blank = Write("blank.jsonl", "\n\n");
  EXPECT_THAT(Refusal(AddData, {"inspect", "--model", kStories, "--data", data.string()}).second,
              HasSubstr("a.jsonl:1: not valid JSON"));
  const json found = Json("inspect", WithModel(data, {"--max-bad-rows", "1"}));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0]["row"], 2);
  EXPECT_THAT(Refusal(AddData, {"inspect", "--model", kStories, "--data", blank.string()}).second,
              HasSubstr("blank.jsonl: no row holds a record"));
  // Of several files, those that have the row.
  const json rows = Json("inspect", WithModel(data, {"--data", other.string(), "--row", "2"}));
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_THAT(rows[0]["file"].get<std::string>(), testing::EndsWith("a.jsonl"));
  CLI::App app;
  const Action action = AddData(app);  // has what the options are read into
  std::vector<std::string> zero = {"0", "--row", "x", "--data", kStories, "--model", "inspect"};
  try {
    app.parse(zero);
    ADD_FAILURE() << "--row 0 is accepted";
  } catch (const CLI::ParseError& error) {
    EXPECT_LT(std::string(error.what()).size(), 100u) << error.what();
  }
}

TEST_F(DataTest, StatsShowWhatTrainingDoes) {
  std::string lines;
  for (int i = 0; i < 100; ++i) {
    lines +=
        "{\"prompt\": \"p" + std::to_string(i) + std::string(40, 'x') + "\", \"completion\": \"a dog\"}\n";
  }
  const Path data = Write("a.jsonl", lines);
  const json found = Json("stats", WithModel(data, {"--tokens", "16", "--valid-fraction", "0.3", "--raw"}));
  train::TrainOptions options;
  options.model = kStories;
  options.tokens = 16;
  options.max_length = 17;
  options.data_options.valid_fraction = 0.3;
  options.compute.context.threads = 1;
  const model::Config config = model::ReadConfig(kStories).OrThrow();
  const model::ModelText text = model::LoadText(kStories, true, "", config.V).OrThrow();
  const std::vector<data::DataFile> files = {{data}};
  const train::EncodedData trained = train::LoadData(files, data::Part::kTrain, text, options);
  EXPECT_EQ(found["examples"], trained.examples.size());
  EXPECT_LT(found["examples"], 90);
  EXPECT_EQ(found["truncated"], trained.report.truncated);
  EXPECT_EQ(found["length_max"], 17);
  EXPECT_EQ(found["learned"], trained.report.targets);
  // A model's context is a limit as in training.
  EXPECT_THAT(Refusal(AddData, {"stats", "--model", kStories, "--data", data.string(), "--max-length",
                                "100000", "--tokens", "100000"}),
              testing::Pair(ExitCode::kUsage, HasSubstr("--max-length 100000: the model was made for")));
  EXPECT_EQ(Json("stats", WithModel(data, {"--max-length", "100000", "--tokens", "16"}))["length_max"], 17);
  EXPECT_THAT(Refusal(AddData, {"stats", "--model", kStories, "--data", data.string() + ":0.001"}).second,
              HasSubstr("the weights leave none of 100 examples"));
}

TEST_F(DataTest, ReadsTheFileOfATrainingRun) {
  const Path run = Write("run.yaml", "max_length: 32\nlearning_rate: 0.1\ntruncate: drop\n");
  CLI::App app("", "data");
  const Action action = AddData(app);
  for (const char* verb : {"inspect", "stats", "check"}) {
    std::vector<std::string> words = {"data", verb, "--config", run.string()};
    const auto merged = MergeConfigFile(*app.get_subcommand(verb), &words);
    ASSERT_TRUE(merged.ok()) << merged.failure().message;
    EXPECT_THAT(words, testing::Contains("--max-length=32"));
    EXPECT_THAT(words, testing::Contains("--truncate=drop"));
    EXPECT_EQ(words.size(), 6u);
  }
}

// "file:row kind" of each finding, and the exit code.
class CheckTest : public DataTest {
 protected:
  std::vector<std::string> Check(std::vector<std::string> words) {
    words.insert(words.begin(), {"check", "--json"});
    CLI::App app;
    const Action action = AddData(app);
    std::reverse(words.begin(), words.end());
    app.parse(words);
    testing::internal::CaptureStdout();
    code_ = ExitCode::kDone;
    try {
      action();
    } catch (const Error& error) {
      code_ = error.code();
    }
    const json found = json::parse(testing::internal::GetCapturedStdout());
    std::vector<std::string> all;
    for (const json& finding : found["findings"]) {
      all.push_back(Path(finding["file"].get<std::string>()).filename().string() + ":" +
                    std::to_string(finding["row"].get<int>()) + " " + finding["kind"].get<std::string>() +
                    ": " + finding["what"].get<std::string>());
    }
    EXPECT_EQ(code_, all.empty() ? ExitCode::kDone : ExitCode::kBadInput);
    return all;
  }
  ExitCode code_ = ExitCode::kDone;
};

TEST_F(CheckTest, FilesThatHoldNothing) {
  const Path blank = Write("blank.jsonl", "\n \n"), list = Write("list.json", "[]"),
             empty = Write("empty.jsonl", "");
  EXPECT_THAT(Check({"--data", blank.string(), "--data", list.string(), "--data", empty.string(), "--data",
                     (folder_ / "missing.jsonl").string()}),
              testing::ElementsAre("blank.jsonl:0 bad record: no row holds a record",
                                   "list.json:0 bad record: no row holds a record",
                                   testing::StartsWith("empty.jsonl:0 bad record: the file is empty"),
                                   testing::StartsWith("missing.jsonl:0 bad record: ")));
  // A folder's other files are looked at, whatever is wrong with one.
  Write("train.jsonl", "{\"prompt\": \"a\", \"completion\": \"1\"}\n");
  Write("valid.jsonl", "");
  Write("test.jsonl", "{\"prompt\": \"a\", \"completion\": \"2\"}\n");
  for (const std::string& name : {folder_.string(), folder_.string() + ":2"}) {
    EXPECT_THAT(Check({"--data", name}),
                testing::ElementsAre(
                    testing::StartsWith("valid.jsonl:0 bad record: the file is empty"),
                    testing::StartsWith("test.jsonl:1 stands in the training data: the same prompt")))
        << name;
  }
}

TEST_F(CheckTest, SaysWhatHasNoAnswer) {
  const Path chats =
      Write("chats.jsonl",
            "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}]}\n"
            "{\"messages\": [{\"role\": \"user\", \"content\": \"r\"}, {\"role\": \"assistant\", "
            "\"content\": \"\"}, {\"role\": \"assistant\", \"content\": \"x\"}]}\n");
  EXPECT_THAT(Check({"--data", chats.string()}),
              testing::ElementsAre("chats.jsonl:1 nothing to learn: no message of the assistant's is learned",
                                   "chats.jsonl:2 empty answer: message 2 is the assistant's and empty"));
  const Path pairs =
      Write("pairs.jsonl",
            "{\"prompt\": \"a\", \"completion\": \"\"}\n{\"prompt\": \"b\", \"completion\": \" \"}\n");
  EXPECT_THAT(Check({"--data", pairs.string()}),
              testing::ElementsAre("pairs.jsonl:1 nothing to learn: the completion is empty",
                                   "pairs.jsonl:2 empty answer: the completion is white space alone"));
  EXPECT_THAT(
      Check({"--data", pairs.string(), "--model", kStories, "--raw"}),
      testing::ElementsAre(testing::StartsWith("pairs.jsonl:1 left out in training: the completion is empty"),
                           "pairs.jsonl:2 empty answer: the completion is white space alone"));
}

TEST_F(CheckTest, ComparesRecordsOfAllShapes) {
  const Path pairs = Write("pairs.jsonl", "{\"prompt\": \"a\", \"completion\": \"1\"}\n"),
             chats = Write("chats.jsonl",
                           "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, "
                           "{\"role\": \"assistant\", \"content\": \"1\"}]}\n");
  EXPECT_THAT(Check({"--data", pairs.string(), "--test-data", chats.string()}),
              testing::ElementsAre(testing::StartsWith("chats.jsonl:1 stands in the training data: ")));
  const Path segments = Write("segments.jsonl",
                              "{\"segments\": [{\"label\": true, \"text\": \"a\"}]}\n"
                              "{\"segments\": [{\"label\": true, \"text\": \"b\"}]}\n"
                              "{\"segments\": [{\"label\": true, \"text\": \"a\"}]}\n");
  EXPECT_THAT(Check({"--data", segments.string()}),
              testing::ElementsAre(testing::StartsWith("segments.jsonl:3 duplicate: of ")));
}

TEST_F(CheckTest, NamesAPlaceOnce) {
  const Path table = Write("u2.csv", "prompt,completion\na,b\nc,\"d\n");
  EXPECT_THAT(Check({"--data", table.string()}),
              testing::ElementsAre(testing::StartsWith("u2.csv:3 bad record: a quoted field does not end")));
  const Path packed = Write("x.gz", "\x1f\x8b\x08");
  EXPECT_THAT(Check({"--data", packed.string()}),
              testing::ElementsAre(testing::StartsWith("x.gz:0 bad record: the archive is damaged")));
  EXPECT_THAT(Refusal(AddData, {"check", "--data", packed.string()}).first, ExitCode::kBadInput);
}

// The order of findings is that of the rows, whatever the number of threads.
TEST_F(CheckTest, IsTheSameWithManyThreads) {
  std::string lines;
  for (int i = 0; i < 9000; ++i) {
    lines += i % 100 == 7 ? "nonsense\n"
                          : "{\"prompt\": \"" + std::to_string(i % 8900) + "\", \"completion\": \"" +
                                (i % 1000 == 0 ? " " : std::to_string(i % 3)) + "\"}\n";
  }
  const Path data = Write("a.jsonl", lines);
  const auto one = Check({"--data", data.string(), "--threads", "1"});
  EXPECT_GT(one.size(), 150u);
  EXPECT_EQ(Check({"--data", data.string(), "--threads", "3"}), one);
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
  EXPECT_EQ(Resolve(flags).cache_limit, uint64_t{20} << 30);
  flags.token_cache_limit = "350MB";
  EXPECT_EQ(Resolve(flags).cache_limit, 350000000u);
  flags.token_cache_limit = "much";
  EXPECT_THROW(Resolve(flags), Error);
  flags.token_cache_limit = "1GiB";
  flags.columns = "prmpt=q";
  EXPECT_THROW(Resolve(flags), Error);
}

}  // namespace
}  // namespace rung::cli
