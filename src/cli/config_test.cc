// rung config: the schema describes what files may hold, and what is shown is such a file.
#include "cli/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/cli.h"
#include "cli/config_file.h"
#include "cli/config_keys.h"
#include "cli/option_info.h"
#include "cli/test_support.h"
#include "cli/train_flags.h"

namespace rung::cli {
namespace {

using Json = nlohmann::ordered_json;
using Words = std::vector<std::string>;

Json ShownJson(Words words) {
  words.insert(words.begin(), {"config", "show", "--json"});
  const Outcome found = RunMain(words);
  EXPECT_EQ(found.code, ExitCode::kDone) << found.said;
  return found.code == ExitCode::kDone ? Json::parse(found.output) : Json();
}

// The part of JSON Schema that the schema uses. `root` resolves references.
bool HasType(const Json& value, const std::string& type) {
  return type == "string"    ? value.is_string()
         : type == "boolean" ? value.is_boolean()
         : type == "integer" ? value.is_number_integer()
         : type == "number"  ? value.is_number()
                             : type == "array" && value.is_array();
}

bool Accepts(const Json& root, const Json& schema, const Json& value) {
  for (const auto& [word, what] : schema.items()) {
    bool good = true;
    if (word == "type") {
      const Json types = what.is_array() ? what : Json::array({what});
      good = std::any_of(types.begin(), types.end(), [&](const Json& t) { return HasType(value, t); });
    } else if (word == "enum") {
      good = std::find(what.begin(), what.end(), value) != what.end();
    } else if (word == "anyOf") {
      good = std::any_of(what.begin(), what.end(), [&](const Json& s) { return Accepts(root, s, value); });
    } else if (word == "not") {
      good = !Accepts(root, what, value);
    } else if (word == "$ref") {
      good = Accepts(root, root.at(Json::json_pointer(what.get<std::string>().substr(1))), value);
    } else if (word == "items") {
      good = !value.is_array() || std::all_of(value.begin(), value.end(), [&, &item = what](const Json& v) {
        return Accepts(root, item, v);
      });
    } else if (word == "minItems") {
      good = !value.is_array() || value.size() >= what.get<size_t>();
    } else if (word == "minimum") {
      good = !value.is_number() || value >= what;
    } else if (word == "exclusiveMinimum") {
      good = !value.is_number() || value > what;
    } else if (word == "maximum") {
      good = !value.is_number() || value <= what;
    } else {
      const bool annotation = word == "description" || word == "default" || word == "deprecated";
      EXPECT_TRUE(annotation) << word << " is not looked at by this test";
    }
    if (!good) return false;
  }
  return true;
}

class ConfigTest : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    AddTrainFlags(app_, &flags_);
    schema_ = Json::parse(RunMain({"config", "schema"}).output);
  }
  // Whether a file with this one key is taken.
  bool Takes(const std::string& key, const Json& value) const {
    const Path file = folder_ / "one.json";
    std::ofstream(file) << Json{{key, value}}.dump();  // thousands of them: not synced to the disk
    Words arguments = {"--config", file.string()};
    return MergeConfigFile(app_, &arguments).ok();
  }
  CLI::App app_{"", "train"};
  TrainFlags flags_;
  Json schema_;
};

TEST_F(ConfigTest, TheSchemaHasEveryKey) {
  EXPECT_EQ(schema_["$schema"], "https://json-schema.org/draft/2020-12/schema");
  EXPECT_EQ(schema_["additionalProperties"], false);
  const Json& properties = schema_["properties"];
  EXPECT_GT(OptionsOf(app_).size(), 60u);
  for (const OptionInfo& info : OptionsOf(app_)) {
    ASSERT_TRUE(properties.contains(info.key)) << info.key;
    const Json& property = properties[info.key];
    EXPECT_EQ(property["description"], info.help);
    const bool fits = !property.contains("default") || Accepts(schema_, property, property["default"]);
    EXPECT_TRUE(fits) << info.key;
  }
  EXPECT_EQ(properties["epochs"]["default"], 3.0);
  EXPECT_EQ(properties["epochs"]["exclusiveMinimum"], 0);
  EXPECT_EQ(properties["tokens"]["type"], "integer");
  EXPECT_EQ(properties["tokens"]["minimum"], 2);
  EXPECT_EQ(properties["tokens"]["maximum"], 1 << 22);
  EXPECT_EQ(properties["method"]["anyOf"][0]["enum"], Json::array({"ladder", "xladder", "lora"}));
  EXPECT_EQ(properties["num_train_epochs"]["$ref"], "#/properties/epochs");
  EXPECT_EQ(properties["num_train_epochs"]["deprecated"], true);
  EXPECT_FALSE(properties.contains("micro_batch_size"));
  for (const char* key : {"config", "help", "dry_run", "json"}) EXPECT_FALSE(properties.contains(key)) << key;
}

// What the schema and the reader take is the same.
TEST_F(ConfigTest, FilesAreTakenByTheirSchema) {
  // Enumerations and defaults come from the schema.
  const std::vector<Json> values = {true,
                                    false,
                                    0,
                                    2,
                                    0.5,
                                    -1,
                                    "all",
                                    "8GiB",
                                    "bf16",
                                    "cosine",
                                    "constant",
                                    "fp4",
                                    "4",
                                    4,
                                    Json::object(),
                                    nullptr,
                                    Json::array(),
                                    Json::array({"a", "b"})};
  for (const auto& [key, property] : schema_["properties"].items()) {
    size_t taken = 0;
    std::vector<Json> tried = values;
    const Json::json_pointer target(property.contains("$ref") ? property["$ref"].get<std::string>().substr(1)
                                                              : "/properties/" + key);
    const Json& described = schema_.at(target);
    if (described.contains("default")) tried.push_back(described["default"]);
    if (property.contains("enum")) {
      tried.insert(tried.end(), property["enum"].begin(), property["enum"].end());
    }
    for (const Json& value : tried) {
      bool good = Accepts(schema_, property, value);
      if (value.is_primitive() && !value.is_null()) {
        // YAML's scalars are texts: 4 and "4" are one.
        const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
        const Json read = Json::parse(text, nullptr, false);
        good = good || Accepts(schema_, property, text) ||
               (!read.is_discarded() && Accepts(schema_, property, read));
      }
      const bool takes = Takes(key, value);
      taken += takes;
      EXPECT_EQ(good, takes) << key << ": " << value;
    }
    EXPECT_GT(taken, 0u) << key;
  }
}

TEST_F(ConfigTest, WhatIsShownIsAFileThatShowsTheSame) {
  const std::string model = kStories;
  const std::vector<Words> runs = {
      {},
      {"--config", Write("a.yaml", "tokens: 64\ndata: [a.jsonl, \"b c.jsonl\"]\nraw: false\n").string()},
      {"--model", model, "--out", "runs/x y: #1", "--learning-rate", "2e-3", "--seed",
       "18446744073709551615"},
      {"--model", model, "--method", "lora", "--lora-targets", "q_proj,v_proj", "--rslora"},
      {"--method", "lora"},
      {"--model", model, "--method", "xladder", "--delta", "2", "--recompute-rungs"},
      {"--model", model, "--rejoin", "2", "--lora-r", "4", "--layers", "top:1", "--recompute"},
      {"--model", model, "--rung-block", "plain", "--memory-limit", "1GiB"},
      {"--model", model, "--taps", "1,3", "--rejoin", "0", "--width", "0.5", "--tap-map", "pooled"},
      {"--model", model, "--tokens", "64", "--max-length", "32", "--warmup-steps", "5"},
      {"--quantize-embeddings", "--keep", "*.q_proj.*=bf16", "--keep", "*.down*=f16"},
      {"--model", kTrained, "--ladder-init", "pruned", "--optimizer", "adamw8bit"}};
  for (const Words& run : runs) {
    const Json first = ShownJson(run);
    Words shown = run;
    shown.insert(shown.begin(), {"config", "show"});
    const std::string text = RunMain(shown).output;
    const Path file = Write("shown.yaml", text);
    Json again = ShownJson({"--config", file.string()});
    for (auto& [key, one] : again.items()) {
      const bool given = first[key]["origin"] == "flag" || first[key]["origin"] == "file";
      EXPECT_EQ(one["origin"], given ? "file" : first[key]["origin"].get<std::string>()) << key;
      EXPECT_EQ(one["value"], first[key]["value"]) << key;
      EXPECT_EQ(one.value("unused", ""), first[key].value("unused", "")) << key;
    }
    const auto lines = std::count(text.begin(), text.end(), '\n');
    EXPECT_EQ(lines, static_cast<std::ptrdiff_t>(OptionsOf(app_).size())) << text;
  }
}

TEST_F(ConfigTest, ShowSaysWhereValuesComeFrom) {
  const Path file = Write("run.yaml", "tokens: 64\nnum_train_epochs: 2\nseed: 5\n");
  const Json found = ShownJson({"--config", file.string(), "--seed", "6", "--model", kStories});
  EXPECT_EQ(found["tokens"]["value"], 64);
  EXPECT_EQ(found["tokens"]["origin"], "file");
  EXPECT_EQ(found["tokens"]["file"], file.string());
  EXPECT_EQ(found["tokens"]["line"], 1);
  EXPECT_EQ(found["epochs"]["line"], 2);
  EXPECT_EQ(found["seed"]["value"], 6);
  EXPECT_EQ(found["seed"]["origin"], "flag");
  EXPECT_EQ(found["weight_decay"]["origin"], "default");
  EXPECT_EQ(found["width"]["origin"], "model");
  EXPECT_EQ(found["width"]["value"], 32);
  EXPECT_GT(found["learning_rate"]["value"].get<double>(), 3e-3);
  EXPECT_NE(found["lora_alpha"]["unused"].get<std::string>().find("--method lora"), std::string::npos);
  EXPECT_TRUE(ShownJson({})["width"]["value"].is_null());
  EXPECT_EQ(ShownJson({"--max-length", "9"})["max_length"]["origin"], "flag");
  const std::string text = RunMain({"config", "show", "--config", file.string()}).output;
  EXPECT_NE(text.find("epochs: 2.0"), std::string::npos) << text;
  EXPECT_NE(text.find("# " + file.string() + ":2\n"), std::string::npos) << text;
}

TEST_F(ConfigTest, ShowRefusesWhatARunWould) {
  const Outcome unused = RunMain({"config", "show", "--lora-alpha", "8"});
  EXPECT_EQ(unused.code, ExitCode::kUsage);
  EXPECT_NE(unused.said.find("--lora-alpha"), std::string::npos);
  const Path file = Write("run.yaml", "tokns: 64\n");
  const Outcome unknown = RunMain({"config", "show", "--config", file.string()});
  EXPECT_EQ(unknown.code, ExitCode::kUsage);
  EXPECT_NE(unknown.said.find("run.yaml:1: key \"tokns\" is not known to rung config show; did you mean "
                              "\"tokens\"?"),
            std::string::npos)
      << unknown.said;
}

TEST_F(ConfigTest, ARefusalNamesTheLinesOfItsOptions) {
  const Path file = Write("run.yaml", "method: lora\ntaps: [1, 2]\n");
  const Outcome both = RunMain({"config", "show", "--config", file.string()});
  EXPECT_EQ(both.code, ExitCode::kUsage);
  EXPECT_EQ(both.said, fmt::format("{0}:2: --taps is of a ladder; --method lora has none (--method: {0}:1)\n",
                                   file.string()));
  const Outcome flag = RunMain({"config", "show", "--config", file.string(), "--taps", "3"});
  EXPECT_EQ(flag.said,
            fmt::format("--taps is of a ladder; --method lora has none (--method: {}:1)\n", file.string()));
}

TEST(WithOrigins, NamesOptionsOfTheFileAlone) {
  const ConfigOrigins origins = {{"eval_steps", {"a.yaml", 3}}, {"eval", {"a.yaml", 4}}};
  EXPECT_EQ(WithOrigins("--eval-steps, --eval-steps: no", origins),
            "a.yaml:3: --eval-steps, --eval-steps: no");
  EXPECT_EQ(WithOrigins("x: give --eval-steps", origins), "a.yaml:3: x: give --eval-steps");
  EXPECT_EQ(WithOrigins("--out or --eval-steps", origins), "--out or --eval-steps (--eval-steps: a.yaml:3)");
  EXPECT_EQ(WithOrigins("my--eval --evals --", origins), "my--eval --evals --");
  EXPECT_EQ(WithOrigins("", origins), "");
}

class RunRecordTest : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    data_ = Write("data.jsonl", R"({"prompt": "Once upon a time", "completion": " there was a dog."}
{"prompt": "Lily went to the", "completion": " park"}
)");
    out_ = folder_ / "out";
  }
  Outcome Train(Words more) const {
    Words words = {"train",       "--model",   kStories, "--data",     data_.string(), "--out",
                   out_.string(), "--threads", "1",      "--progress", "none"};
    words.insert(words.end(), more.begin(), more.end());
    return RunMain(words);
  }
  Json Record() const { return Json::parse(ReadTextFile(out_ / "run.json", 1 << 20).OrThrow()); }
  Path data_, out_;
};

TEST_F(RunRecordTest, HoldsWhatWasAsked) {
  const Outcome found = Train({"--max_steps", "1", "--lr", "1e-3", "--eval-data", data_.string()});
  ASSERT_EQ(found.code, ExitCode::kDone) << found.said;
  const Json record = Record();
  EXPECT_EQ(record["format_version"], 1);
  EXPECT_EQ(record["options"]["learning_rate"]["value"], 1e-3);
  EXPECT_EQ(record["options"]["learning_rate"]["origin"], "flag");
  EXPECT_EQ(record["options"]["rungs"]["origin"], "model");
  EXPECT_EQ(record["schedule"]["steps"], 1);
  EXPECT_EQ(record["compute"]["threads"], 1);
  EXPECT_EQ(record["model"]["path"], kStories);
  EXPECT_EQ(record["data"]["files"][0]["bytes"], std::filesystem::file_size(data_));
  EXPECT_EQ(record["data"]["files"][0]["sha256"].get<std::string>().size(), 64u);
  EXPECT_EQ(record["data"]["identity"], record["eval_data"]["identity"]);
  EXPECT_TRUE(record["resumed"].empty());
  for (const char* key : {"version", "commit", "compiler", "isa"})
    EXPECT_TRUE(record["rung"].contains(key)) << key;
  EXPECT_EQ(record["started"].get<std::string>().size(), std::string("2026-01-02T03:04:05Z").size());
}

TEST_F(RunRecordTest, AResumedRunAppends) {
  const Words run = {"--max-steps", "2", "--save-steps", "1"};
  ASSERT_EQ(Train(run).code, ExitCode::kDone);
  const Json begun = Record();
  // As if it had been stopped before its end.
  std::filesystem::remove(out_ / "adapter_config.json");
  Words resumed = run;
  resumed.emplace_back("--resume");
  Words preview = resumed;
  preview.emplace_back("--dry-run");
  EXPECT_NE(Train(preview).output.find("would go on after step 1 of 2"), std::string::npos);
  const Outcome second = Train(resumed);
  ASSERT_EQ(second.code, ExitCode::kDone) << second.said;
  Json record = Record();
  EXPECT_EQ(record["started"], begun["started"]);
  EXPECT_EQ(record["resumed"].size(), 1u);
  EXPECT_EQ(record["resumed"][0]["step"], 1);
  EXPECT_EQ(record["resumed"][0]["checkpoint"], "checkpoint-1");
  EXPECT_TRUE(record["resumed"][0]["differences"].empty());

  std::filesystem::remove(out_ / "adapter_config.json");
  Words forced = resumed;
  forced.insert(forced.end(), {"--resume-force", "--weight-decay", "0.5"});
  const Outcome third = Train(forced);
  ASSERT_EQ(third.code, ExitCode::kDone) << third.said;
  record = Record();
  EXPECT_EQ(record["resumed"].size(), 2u);
  EXPECT_EQ(record["resumed"][1]["differences"].size(), 1u);
  EXPECT_NE(record["resumed"][1]["differences"][0].get<std::string>().find("then 0, now 0.5"),
            std::string::npos)
      << record["resumed"][1]["differences"];
  EXPECT_EQ(record["options"]["weight_decay"]["value"], 0.5);
}

TEST_F(RunRecordTest, ADryRunWritesNothing) {
  const Outcome found = Train({"--max-steps", "4", "--dry-run"});
  ASSERT_EQ(found.code, ExitCode::kDone) << found.said;
  EXPECT_FALSE(std::filesystem::exists(out_));
  EXPECT_NE(found.output.find("2 examples, 0 held out; 4 steps"), std::string::npos) << found.output;
  EXPECT_NE(found.output.find("would begin in " + out_.string()), std::string::npos) << found.output;
  const Outcome large = Train({"--dry-run", "--memory-limit", "1MiB"});
  EXPECT_EQ(large.code, ExitCode::kNoMemory);
  EXPECT_FALSE(std::filesystem::exists(out_));
  // A folder that is there is left as it is, and what it holds is refused as by the run.
  std::filesystem::create_directories(out_);
  EXPECT_EQ(Train({"--max-steps", "4", "--dry-run"}).code, ExitCode::kDone);
  EXPECT_TRUE(std::filesystem::is_empty(out_));
  WriteTextFile(out_ / "adapter_config.json", "{}").OrThrow();
  EXPECT_EQ(Train({"--max-steps", "4", "--dry-run"}).code, ExitCode::kUsage);
  std::filesystem::remove_all(out_);
  EXPECT_EQ(Train({"--dry-run", "--data", "no_such.jsonl"}).code, ExitCode::kBadInput);
}

}  // namespace
}  // namespace rung::cli
