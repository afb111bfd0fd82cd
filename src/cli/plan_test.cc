// rung plan as a user runs it.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/plan_compare.h"
#include "cli/test_support.h"
#include "cli/xml_check.h"

namespace rung::cli {
namespace {

using nlohmann::json;

constexpr const char* kConfig = "tests/data/plan/config.json";
constexpr const char* kGolden = "tests/data/plan/plan.json";

// The same on every machine.
std::vector<std::string> Fixed(std::vector<std::string> arguments) {
  for (const char* word : {"--compute", "f32", "--isa", "baseline", "--threads", "2"}) {
    arguments.emplace_back(word);
  }
  return arguments;
}
json Plan(std::vector<std::string> arguments) {
  arguments.emplace_back("--json");
  return json::parse(RunVerb(AddPlan, Fixed(std::move(arguments))));
}
std::pair<ExitCode, std::string> Refused(std::vector<std::string> arguments) {
  return Refusal(AddPlan, Fixed(std::move(arguments)));
}
std::string FileText(const Path& path) { return ReadTextFile(path, uint64_t{1} << 20).OrThrow(); }

class PlanTest : public FolderTest {};

// Over the rows that differ, for each column that has a formula.
void ExpectDifferencesAddUp(const json& compare) {
  struct Pair {
    const char *method, *formula;
    size_t method_row, formula_row;
  };
  for (const Pair& pair :
       {Pair{"lora keep", "QLoRA formula", 2, 0}, Pair{"ladder", "ladder formula", 0, 1}}) {
    int64_t sum = 0;
    for (const json& d : compare["differences"]) {
      if (d["method"] != pair.method) continue;
      EXPECT_EQ(d["formula"], pair.formula);
      sum += d["plan_bytes"].get<int64_t>() - d["formula_bytes"].get<int64_t>();
      EXPECT_FALSE(d["reason"].get<std::string>().empty()) << d["item"];
    }
    const json &method = compare["methods"][pair.method_row],
               &formula = compare["formulas"][pair.formula_row];
    EXPECT_EQ(method["name"], pair.method);
    EXPECT_EQ(formula["name"], pair.formula);
    EXPECT_EQ(sum, method["total_bytes"].get<int64_t>() - formula["total_bytes"].get<int64_t>())
        << pair.method;
  }
}

// A plan that changes is a change of what people can run. To accept one: write what `actual` holds to the
// file.
TEST_F(PlanTest, PlansOfASmallModelStayWhatTheyWere) {
  const json compare =
      Plan({"--model", kConfig, "--tokens", "768", "--max-length", "256", "--compare"})["compare"];
  json actual;
  for (const json& method : compare["methods"]) {
    json& items = actual[method["name"].get<std::string>()];
    for (const json& item : method["items"]) items[item["name"].get<std::string>()] = item["bytes"];
    items["step arena"] = method["step_arena_bytes"];
    items["trained parameters"] = method["parameters"];
  }
  EXPECT_EQ(actual, json::parse(FileText(kGolden))) << actual.dump(2);
}

TEST_F(PlanTest, ColumnsEqualPlansOfTheirOwn) {
  const std::vector<std::string> common = {"--shape", "qwen2.5-0.5b", "--tokens",
                                           "1024",    "--max-length", "512"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), common.begin(), common.end());
    return Plan(more);
  };
  const json methods = with({"--compare"})["compare"]["methods"];
  const std::vector<std::pair<std::string, std::vector<std::string>>> alone = {
      {"ladder", {"--method", "ladder"}},
      {"xladder", {"--method", "xladder"}},
      {"lora keep", {"--method", "lora"}},
      {"lora recompute", {"--method", "lora", "--recompute"}}};
  ASSERT_EQ(methods.size(), alone.size());
  for (size_t m = 0; m < alone.size(); ++m) {
    EXPECT_EQ(methods[m]["name"], alone[m].first);
    const json plan = with(alone[m].second);
    for (const char* key : {"items", "total_bytes", "step_arena_bytes", "step_flops", "parameters"}) {
      EXPECT_EQ(methods[m][key], plan[key]) << alone[m].first << " " << key;
    }
  }
}

TEST_F(PlanTest, SettingsOfOneMethodDoNotDisturbTheOthers) {
  const json methods = Plan({"--model", kConfig, "--compare", "--method", "xladder", "--delta", "2",
                             "--lora-r", "4"})["compare"]["methods"];
  EXPECT_EQ(methods[1]["parameters"],
            Plan({"--model", kConfig, "--method", "xladder", "--delta", "2"})["parameters"]);
  EXPECT_EQ(methods[2]["parameters"],
            Plan({"--model", kConfig, "--method", "lora", "--lora-r", "4"})["parameters"]);
  EXPECT_EQ(methods[0]["parameters"], Plan({"--model", kConfig})["parameters"]);
  const auto refusal = Refused({"--model", kConfig, "--compare", "--rungs", "1"});
  EXPECT_EQ(refusal.first, ExitCode::kUsage);
  EXPECT_NE(refusal.second.find("ladder: --rungs 1"), std::string::npos) << refusal.second;
}

// A ladder rejoins by default, and a rank then gives it pairs: in a comparison as in the run.
TEST_F(PlanTest, ARankIsOfTheLadderThatRejoinsByDefault) {
  const json methods = Plan({"--model", kConfig, "--compare", "--lora-r", "4"})["compare"]["methods"];
  EXPECT_EQ(methods[0]["parameters"], Plan({"--model", kConfig, "--lora-r", "4"})["parameters"]);
  EXPECT_GT(methods[0]["parameters"], Plan({"--model", kConfig})["parameters"]);
  EXPECT_EQ(methods[1]["parameters"], Plan({"--model", kConfig, "--method", "xladder"})["parameters"]);
  const json without =
      Plan({"--model", kConfig, "--compare", "--lora-r", "4", "--rejoin", "0"})["compare"]["methods"];
  EXPECT_EQ(without[0]["parameters"], Plan({"--model", kConfig, "--rejoin", "0"})["parameters"]);
  // In layers that no ladder crosses the rank is lora's: the way out is named.
  for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"--fit", "64MiB"}}) {
    std::vector<std::string> below = {"--model", kConfig, "--compare", "--lora-r", "4", "--layers", "all"};
    below.insert(below.end(), more.begin(), more.end());
    const auto [code, message] = Refused(below);
    EXPECT_EQ(code, ExitCode::kUsage);
    EXPECT_TRUE(message.starts_with("--compare, ladder: ")) << message;
    EXPECT_NE(message.find("--method lora"), std::string::npos) << message;
    below.insert(below.end(), {"--method", "lora"});
    EXPECT_EQ(Plan(below)["compare"]["methods"].size(), 4u);
  }
}

// What a tap for each free rung would add: what the same ladder has with one.
TEST_F(PlanTest, FreeRungsAreComparedWithTappedOnes) {
  for (const char* gate : {"sum", "interpolate", "interpolate-vector"}) {
    const std::vector<std::string> common = {"--model",  kConfig, "--rungs", "4",
                                             "--rejoin", "0",     "--gate",  gate};
    const auto with = [&](std::vector<std::string> more) {
      more.insert(more.end(), common.begin(), common.end());
      return Fixed(more);
    };
    const std::string text = RunVerb(AddPlan, with({"--method", "xladder", "--delta", "2"}));
    std::vector<std::string> tapped = with({"--taps", "top:4", "--json"});
    const json parameters = json::parse(RunVerb(AddPlan, tapped))["parameters"];
    EXPECT_NE(text.find(fmt::format("2 rungs free (with a tap for each: {} parameters)",
                                    parameters.get<int64_t>())),
              std::string::npos)
        << gate << " " << parameters << "\n"
        << text;
  }
}

// Of a model whose embedding is packed, nobody is told to pack it: training would refuse the flag.
TEST_F(PlanTest, PackedEmbeddingsAreNoPolicy) {
  const auto policies = [&](const Path& model) {
    const json found = Plan({"--model", model.string(), "--fit", "64MiB"});
    std::string all;
    for (const json& row : found["fit"]["methods"][0]["rows"])
      all += row["policies"].get<std::string>() + "\n";
    return all;
  };
  EXPECT_NE(policies(kTrained).find("--quantize-embeddings"), std::string::npos);
  RunVerb(AddQuantize, {"--model", kTrained, "--out", (folder_ / "nf4").string(), "--quantize-embeddings"});
  EXPECT_EQ(policies(folder_ / "nf4").find("--quantize-embeddings"), std::string::npos);
  RunVerb(AddQuantize, {"--model", kTrained, "--out", (folder_ / "half").string()});
  EXPECT_NE(policies(folder_ / "half").find("--quantize-embeddings"), std::string::npos);
}

TEST_F(PlanTest, PlainRungsRefuseATapNorm) {
  const auto refused = Refused({"--model", kConfig, "--rung-block", "plain", "--tap-norm", "rms"});
  EXPECT_EQ(refused.first, ExitCode::kUsage);
  EXPECT_NE(refused.second.find("--tap-norm has no use with --rung-block plain"), std::string::npos)
      << refused.second;
}

TEST_F(PlanTest, ReasonsCoverEveryRowThatDiffersAndAddUp) {
  const json compare =
      Plan({"--shape", "qwen2.5-7b", "--tokens", "2048", "--max-length", "2048", "--compare"})["compare"];
  ExpectDifferencesAddUp(compare);
  // 34 s b h L + 5 a s^2 b L in one row.
  const auto saved = std::find_if(compare["differences"].begin(), compare["differences"].end(),
                                  [](const json& d) { return d["item"] == "saved activations"; });
  ASSERT_NE(saved, compare["differences"].end());
  EXPECT_NEAR((*saved)["formula_bytes"].get<double>() / 1e9, 6.99 + 16.44, 0.01);
  EXPECT_NE((*saved)["reason"].get<std::string>().find("-15.3 GiB"), std::string::npos) << (*saved)["reason"];
}

// Whatever takes less than the default of 512: a model's context is its longest example, unless one was
// given.
TEST_F(PlanTest, TheDefaultLengthIsTheModelsContext) {
  json config = json::parse(FileText(kConfig));
  config["max_position_embeddings"] = 96;
  const Path file = Write("config.json", config.dump());
  const std::vector<std::string> model = {"--model", file.string()};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), model.begin(), model.end());
    return more;
  };
  EXPECT_EQ(Plan(model)["sequence"], 96);
  EXPECT_EQ(Plan(model)["tokens"], 512);
  EXPECT_EQ(Plan(model), Plan(with({"--max-length", "96"})));
  const json fit = Plan(with({"--fit", "1GiB"}))["fit"];
  EXPECT_EQ(fit["longest_sequence"], 96);
  EXPECT_EQ(RunVerb(AddPlan, Fixed(with({"--fit", "1GiB"}))).find("--max-length 512"), std::string::npos);
  EXPECT_EQ(Plan(with({"--compare"}))["sequence"], 96);
  for (const std::vector<std::string>& more :
       {std::vector<std::string>{"--max-length", "970"}, {"--sequence", "970"}}) {
    const auto [code, message] = Refused(with(more));
    EXPECT_EQ(code, ExitCode::kUsage) << message;
    EXPECT_NE(message.find(" 970: "), std::string::npos) << message;
    EXPECT_NE(message.find("96"), std::string::npos) << message;
  }
}

// Of every setting that moves bytes between the rows.
TEST_F(PlanTest, ReasonsAddUpWhateverTheSettings) {
  const std::vector<std::vector<std::string>> settings = {
      {"--layers", "top:2"},
      {"--rejoin", "2", "--lora-r", "4"},
      {"--tap-storage", "int8", "--recompute-rungs", "--optimizer", "adamw8bit"},
      {"--tap-map", "pooled", "--quantize-embeddings"}};
  for (std::vector<std::string> more : settings) {
    for (const char* word : {"--model", kConfig, "--compare"}) more.emplace_back(word);
    ExpectDifferencesAddUp(Plan(more)["compare"]);
  }
}

// The number is of a layer that keeps something, whatever the number of layers that do not.
TEST_F(PlanTest, BytesOfALayerAreOfCrossedLayers) {
  const auto bytes = [&](std::vector<std::string> more) {
    for (const char* word :
         {"--shape", "qwen2.5-7b", "--tokens", "2048", "--max-length", "2048", "--compare"}) {
      more.emplace_back(word);
    }
    const json found = Plan(more);
    for (const json& d : found["compare"]["differences"]) {
      if (d["item"] != "saved activations" || d["method"] != "lora keep") continue;
      const auto reason = d["reason"].get<std::string>();
      const size_t end = reason.find(" bytes a token and channel");
      return std::stod(reason.substr(reason.rfind(' ', end - 1) + 1));
    }
    return 0.0;
  };
  const double all = bytes({});
  EXPECT_GT(all, 10.0);
  EXPECT_NEAR(bytes({"--layers", "top:4"}), all, 0.05 * all);
}

TEST_F(PlanTest, FitsAreLargestAndTheirFlagsGiveThatPlan) {
  const json found = Plan({"--model", kConfig, "--fit", "64MiB", "--method", "lora"});
  const json& method = found["fit"]["methods"][0];
  ASSERT_TRUE(method["fits"]);
  EXPECT_GT(method["rows"].size(), 3u);
  std::vector<std::string> again = {"--model", kConfig, "--method", "lora", "--memory-limit", "64MiB"};
  std::istringstream words(method["flags"].get<std::string>());
  for (std::string word; words >> word;) again.push_back(word);
  const json plan = Plan(again);
  EXPECT_EQ(plan["total_bytes"], found["total_bytes"]);
  EXPECT_EQ(plan["tokens"], found["tokens"]);
  EXPECT_LE(plan["total_bytes"], 64u << 20);
  *(std::find(again.begin(), again.end(), "--tokens") + 1) =
      std::to_string(plan["tokens"].get<int64_t>() + 64);
  EXPECT_EQ(Refused(again).first, ExitCode::kNoMemory);
}

// A window bounds what a token sees, not how long a sequence may be.
TEST_F(PlanTest, SequencesMayBeLongerThanAWindow) {
  const json found = Plan({"--model", "tests/data/families/mistral_window", "--fit", "64MiB"});
  EXPECT_EQ(found["fit"]["longest_sequence"], 128);
}

// What stands below the line that names the remedy.
std::string AdviceOf(const std::string& text, const std::string& head) {
  const size_t at = text.find(head + ":\n  ");
  if (at == std::string::npos) return "not found in: " + text;
  const size_t begin = at + head.size() + 4;
  return text.substr(begin, text.find('\n', begin) - begin);
}

// Each is followed to the letter, and the plan then fits.
TEST_F(PlanTest, AdviceWorksAsPrinted) {
  const std::vector<std::string> common = {"--shape", "qwen2.5-7b", "--method", "lora"};
  const auto text = [&](std::vector<std::string> more) {
    more.insert(more.end(), common.begin(), common.end());
    for (const char* word : {"--fit", "10GiB"}) more.emplace_back(word);
    return RunVerb(AddPlan, Fixed(more));
  };
  const auto fits = [&](std::vector<std::string> words, const std::string& advice) {
    words.insert(words.end(), common.begin(), common.end());
    std::istringstream stream(advice);
    for (std::string word; stream >> word;) words.push_back(word);
    words.insert(words.end(), {"--memory-limit", "10GiB"});
    return Plan(words)["fits"].get<bool>();
  };
  // The size that was asked for: policies alone, and the plan is of that size.
  std::string said = text({"--tokens", "2048"});
  EXPECT_EQ(AdviceOf(said, "add to the command"), "--recompute");
  EXPECT_NE(said.find("the cheapest that takes --tokens 2048;"), std::string::npos) << said;
  EXPECT_TRUE(fits({"--tokens", "2048"}, "--recompute"));
  EXPECT_EQ(
      Plan({"--shape", "qwen2.5-7b", "--method", "lora", "--fit", "10GiB", "--tokens", "2048"})["tokens"],
      2048);
  // It fits without more.
  EXPECT_NE(text({"--tokens", "128"}).find("takes --tokens 128: the command as it is"), std::string::npos);
  // No size was given: the largest is added.
  const std::string largest = AdviceOf(text({}), "add to the command");
  EXPECT_TRUE(largest.starts_with("--tokens ")) << largest;
  EXPECT_TRUE(fits({}, largest));
  // Nothing takes it: what replaces the flags that were given.
  said = text({"--tokens", "1000000", "--max-length", "4096"});
  std::string instead = AdviceOf(said, "this takes the most; instead of --tokens 1000000");
  EXPECT_TRUE(instead.starts_with("--tokens ")) << instead;
  EXPECT_EQ(instead.find("--max-length"), std::string::npos) << instead;
  EXPECT_TRUE(fits({"--max-length", "4096"}, instead));
  // The default --max-length is not the length of the proposal.
  said = text({"--tokens", "1000000"});
  instead = AdviceOf(said, "instead of --tokens 1000000");
  EXPECT_TRUE(fits({}, instead)) << instead;
}

TEST_F(PlanTest, TheCheapestPoliciesThatSufficeAreChosen) {
  const auto flags = [&](const std::string& tokens) {
    return Plan({"--shape", "qwen2.5-7b", "--fit", "10GiB", "--method", "lora", "--tokens",
                 tokens})["fit"]["methods"][0]["flags"]
        .get<std::string>();
  };
  EXPECT_EQ(flags("128").find("--recompute"), std::string::npos) << flags("128");
  EXPECT_TRUE(flags("2048").ends_with(" --recompute")) << flags("2048");
  // More than anything takes: all policies.
  EXPECT_TRUE(flags("1000000").ends_with("--recompute --optimizer adamw8bit --quantize-embeddings"));
}

TEST_F(PlanTest, PoliciesThatAreGivenStay) {
  EXPECT_EQ(
      Plan({"--model", kConfig, "--fit", "64MiB", "--recompute-rungs"})["fit"]["methods"][0]["rows"].size(),
      1u);
  const json found = Plan({"--model", kConfig, "--compare", "--fit", "64MiB"});
  ASSERT_EQ(found["fit"]["methods"].size(), 4u);
  for (const json& method : found["fit"]["methods"]) {
    EXPECT_TRUE(method["fits"]) << method["name"];
    ASSERT_EQ(method["rows"].size(), 2u) << method["name"];
    EXPECT_GT(method["rows"][1]["tokens"], method["rows"][0]["tokens"]) << method["name"];
  }
  EXPECT_EQ(found["limit_bytes"], 64 << 20);
  const auto refused = Refused({"--model", kConfig, "--compare", "--fit", "64KiB"});
  EXPECT_EQ(refused.first, ExitCode::kNoMemory);
  EXPECT_NE(refused.second.find("--fit"), std::string::npos) << refused.second;
  EXPECT_EQ(found["fit"]["methods"][2]["rows"][1]["policies"], "--optimizer adamw8bit --quantize-embeddings");
  EXPECT_EQ(found["fit"]["methods"][3]["rows"][1]["policies"], "--optimizer adamw8bit --quantize-embeddings");
  // A given --max-length bounds sequences.
  const json bounded = Plan({"--model", kConfig, "--max-length", "96", "--fit", "64MiB"});
  EXPECT_EQ(bounded["sequence"], 96);
  EXPECT_GT(bounded["tokens"], 96);
}

TEST_F(PlanTest, ChartsHoldEveryItem) {
  const Path file = folder_ / "plan.svg";
  const json found = Plan({"--shape", "Qwen2.5-0.5B", "--compare", "--fit", "2GiB", "--svg", file.string()});
  const std::string svg = FileText(file);
  EXPECT_EQ(XmlFault(svg), "");
  for (const json& method : found["compare"]["methods"]) {
    EXPECT_NE(svg.find(">" + method["name"].get<std::string>() + "<"), std::string::npos) << method["name"];
    for (const json& item : method["items"]) {
      EXPECT_NE(svg.find(">" + item["name"].get<std::string>() + "<"), std::string::npos) << item["name"];
    }
  }
  EXPECT_NE(svg.find("limit 2.0 GiB"), std::string::npos);
  EXPECT_EQ(Refused({"--model", kConfig, "--svg", "no/such/folder/x.svg"}).first, ExitCode::kFailed);
  RunVerb(AddPlan, {"--model", kConfig, "--svg", file.string()});
  EXPECT_EQ(XmlFault(FileText(file)), "");
}

TEST_F(PlanTest, OneObjectOrNothing) {
  // A drawing that cannot be written: nothing is printed.
  testing::internal::CaptureStdout();
  CLI::App app;
  const Action action = AddPlan(app);
  std::vector<std::string> words = Fixed({"--model", kConfig, "--json", "--svg", "no/such/folder/x.svg"});
  std::reverse(words.begin(), words.end());
  app.parse(words);
  EXPECT_THROW(action(), Error);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
}

// Printed, and then the exit status.
TEST_F(PlanTest, APlanThatDoesNotFitIsPrintedAsOneObject) {
  for (const char* flag : {"--fit", "--memory-limit"}) {
    testing::internal::CaptureStdout();
    CLI::App app;
    const Action action = AddPlan(app);
    std::vector<std::string> words = Fixed({"--shape", "qwen2.5-7b", "--json", flag, "1GiB"});
    std::reverse(words.begin(), words.end());
    app.parse(words);
    EXPECT_THROW(action(), Error) << flag;
    const json found = json::parse(testing::internal::GetCapturedStdout());
    EXPECT_EQ(found["fits"], false) << flag;
    EXPECT_EQ(found["limit_bytes"], 1 << 30) << flag;
  }
}

TEST_F(PlanTest, LimitsAndFreeMemoryAreToldApart) {
  const json free = Plan({"--model", kConfig});
  EXPECT_TRUE(free["limit_bytes"].is_null());
  for (const char* flag : {"--fit", "--memory-limit"}) {
    EXPECT_EQ(Plan({"--model", kConfig, flag, "64MiB"})["limit_bytes"], 64 << 20);
    const std::string text = RunVerb(AddPlan, Fixed({"--model", kConfig, flag, "64MiB"}));
    EXPECT_NE(text.find("of the limit of 64.0 MiB\n"), std::string::npos) << text;
    EXPECT_EQ(text.find("64.0 MiB free"), std::string::npos) << text;
  }
}

TEST_F(PlanTest, LaddersSayWhatATapCacheTakes) {
  const json found = Plan({"--model", kConfig, "--taps", "1,3,5", "--rejoin", "0"});
  EXPECT_EQ(found["tap_cache"],
            (json{{"bytes_per_token", 3 * 128 * 4}, {"bytes_per_learned_token", 128 * 4}}));
  EXPECT_NE(RunVerb(AddPlan, Fixed({"--model", kConfig, "--taps", "1,3,5", "--rejoin", "0"}))
                .find("tap cache: 1536 bytes a token of data, 512 more if it is learned\n"),
            std::string::npos);
  EXPECT_NE(RunVerb(AddPlan, Fixed({"--model", kConfig, "--taps", "1,3", "--rejoin", "2"}))
                .find("tap cache: 1536 bytes a token of data\n"),
            std::string::npos);
  EXPECT_FALSE(Plan({"--model", kConfig, "--method", "lora"}).contains("tap_cache"));
}

TEST_F(PlanTest, TablesNameColumnsRowsAndReasons) {
  const std::string text = RunVerb(AddPlan, Fixed({"--model", kConfig, "--compare", "--fit", "64MiB"}));
  for (const char* word :
       {"ladder", "xladder", "lora keep", "lora recompute", "QLoRA formula", "total", "trained parameters",
        "FLOP of a step", "keeps no (s,s) matrices", "largest --tokens",
        "lora keep against the QLoRA formula:", "ladder against the ladder formula:"}) {
    EXPECT_NE(text.find(word), std::string::npos) << word;
  }
}

TEST_F(PlanTest, RefusesWhatHasNoMeaning) {
  const auto usage = [&](std::vector<std::string> arguments, const char* part) {
    const auto refusal = Refused(std::move(arguments));
    EXPECT_EQ(refusal.first, ExitCode::kUsage) << refusal.second;
    EXPECT_NE(refusal.second.find(part), std::string::npos) << refusal.second;
  };
  usage({}, "neither --model nor --shape");
  usage({"--model", kConfig, "--shape", "qwen2.5-7b"}, "both --model and --shape");
  usage({"--shape", "qwen2.5-7"}, "did you mean qwen2.5-7b?");
  usage({"--model", kConfig, "--fit", "0"}, "--fit 0");
  usage({"--model", kConfig, "--fit", "lots"}, "--fit lots");
  usage({"--shape", "opt-1.3b", "--tokens", "4096", "--max-length", "4096"}, "2048");
  usage({"--shape", "opt-1.3b", "--fit", "8GiB", "--max-length", "4096"}, "2048");
  usage({"--model", kConfig, "--sequence", "600"}, "--sequence 600");
  const auto small = Refused({"--shape", "qwen2.5-7b", "--fit", "1GiB"});
  EXPECT_EQ(small.first, ExitCode::kNoMemory);
  EXPECT_NE(small.second.find("weights"), std::string::npos) << small.second;
}

}  // namespace
}  // namespace rung::cli
