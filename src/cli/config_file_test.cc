#include "cli/config_file.h"

#include <set>

#include "base/text.h"
#include "cli/config_keys.h"
#include "cli/option_info.h"
#include "cli/test_support.h"

namespace rung::cli {
namespace {

using Words = std::vector<std::string>;

class ConfigFileTest : public FolderTest {
 protected:
  // What a verb is given: the words of the line, then those of the file.
  Result<Words> Merged(const std::string& verb, Action (*add)(CLI::App&), Words line,
                       const std::string& text) const {
    CLI::App app("", verb);
    const Action action = add(app);
    const Path file = Write("run.yaml", text);
    Words arguments = line;
    arguments.push_back("--config=" + file.string());
    const size_t typed = arguments.size();
    const Result<ConfigOrigins> merged = MergeConfigFile(app, &arguments);
    if (!merged.ok()) return merged.failure();
    return Words(arguments.begin() + static_cast<std::ptrdiff_t>(typed), arguments.end());
  }
  Words Train(const std::string& text, Words line = {}) const {
    return Merged("train", AddTrain, std::move(line), text).OrThrow();
  }
  Words Plan(const std::string& text, Words line = {}) const {
    return Merged("plan", AddPlan, std::move(line), text).OrThrow();
  }
  std::string Refused(const std::string& text) const {
    const Result<Words> found = Merged("train", AddTrain, {}, text);
    if (found.ok()) return "";
    EXPECT_EQ(found.failure().code, ExitCode::kUsage);
    return found.failure().message;
  }
};

TEST_F(ConfigFileTest, FlagsWin) {
  EXPECT_EQ(Train("tokens: 64\nlearning_rate: 2e-3\nraw: true\nresume: false\n"),
            (Words{"--tokens=64", "--learning-rate=2e-3", "--raw"}));
  EXPECT_EQ(Train("tokens: 64\nseed: 3\n", {"--tokens", "128"}), Words{"--seed=3"});
  EXPECT_EQ(Train("tokens: 64\n", {"--tokens=128"}), Words{});
  EXPECT_EQ(Train(""), Words{});
}

TEST_F(ConfigFileTest, ListsAreJoined) {
  EXPECT_EQ(Train("taps: [1, 3]\nlora_targets:\n  - q_proj\n  - v_proj\nlayers: [5]\n"),
            (Words{"--taps=1,3", "--lora-targets=q_proj,v_proj", "--layers=5"}));
  for (const char* text :
       {"taps: []\n", "taps: [1, [2]]\n", "taps: {a: 1}\n", "taps:\n", "raw: [true, true]\n"}) {
    EXPECT_NE(Refused(text).find("run.yaml:1: "), std::string::npos) << text << Refused(text);
  }
}

TEST_F(ConfigFileTest, NamesOfOtherPrograms) {
  EXPECT_EQ(
      Train("target_modules: [q_proj]\nlora_rank: 8\ngradient_checkpointing: true\nnum_train_epochs: 2\n"
            "gradient_accumulation_steps: 4\n"),
      (Words{"--lora-targets=q_proj", "--lora-r=8", "--recompute", "--epochs=2",
             "--gradient-accumulation=4"}));
  EXPECT_EQ(Train("r: 8\n"), Words{"--lora-r=8"});
  EXPECT_EQ(Train("r: 8\ngradient_checkpointing: false\n", {"--lora-r=4"}), Words{});
  for (const char* key : {"micro_batch_size", "per_device_train_batch_size"}) {
    const std::string message = Refused(std::string(key) + ": 4\n");
    EXPECT_NE(message.find(key), std::string::npos) << message;
    EXPECT_NE(message.find("\"tokens\""), std::string::npos) << message;
  }
  EXPECT_NE(Refused("lora_r: 8\nlora_rank: 16\n").find("run.yaml:2: lora_r is set twice"), std::string::npos);
}

TEST_F(ConfigFileTest, ARunIsPlannedWithItsOwnFile) {
  const std::string run =
      "model: m\ndata: d.jsonl\nout: o\nepochs: 2\ntap_cache: c\nresume: true\ntokens: 64\n";
  EXPECT_EQ(Plan(run), (Words{"--model=m", "--tokens=64"}));
  EXPECT_EQ(Train(run).size(), 7u);
  const Result<Words> unknown = Merged("plan", AddPlan, {}, run + "lerning_rate: 1\n");
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.failure().message.find("run.yaml:8: key \"lerning_rate\" is not known to rung plan"),
            std::string::npos)
      << unknown.failure().message;
  // Only a plan is of a run.
  EXPECT_FALSE(Merged("eval", AddEval, {}, "epochs: 2\n").ok());
}

TEST_F(ConfigFileTest, TheLineDropsWhatItExcludes) {
  EXPECT_EQ(Plan("memory_limit: 8GiB\n", {"--fit", "4GiB"}), Words{});
  EXPECT_EQ(Plan("memory_limit: 8GiB\n"), Words{"--memory-limit=8GiB"});
  EXPECT_EQ(Plan("fit: 8GiB\n", {"--memory-limit=4GiB"}), Words{});
}

TEST_F(ConfigFileTest, MistakesAreNamedWithTheirLine) {
  EXPECT_NE(Refused("tokens: 64\nlerning_rate: 1\n")
                .find("run.yaml:2: key \"lerning_rate\" is not known to rung train; did you mean "
                      "\"learning_rate\"?"),
            std::string::npos);
  EXPECT_NE(Refused("raw: 1\n").find("run.yaml:1: raw must be true or false"), std::string::npos);
  EXPECT_NE(Refused("- tokens\n").find("must be a map"), std::string::npos);
  EXPECT_NE(Refused("config: x\n").find("not known"), std::string::npos);
  EXPECT_NE(Refused("a: [\n"), "");
  EXPECT_NE(Refused("tokens: many\n").find("run.yaml:1: tokens must be a whole number"), std::string::npos);
  EXPECT_NE(Refused("seed: 1\ntokens: 1\n").find("run.yaml:2: tokens must be at least 2"), std::string::npos);
  EXPECT_NE(Refused("optimizer: lion\n").find("optimizer must be one of adamw, adamw8bit"),
            std::string::npos);
  EXPECT_NE(Refused("tokens: [64, 128]\n").find("takes no list"), std::string::npos);
  EXPECT_NE(Refused("seed: 1\n\nseed: 1\n").find("run.yaml:3: seed is set twice: line 1 sets it too"),
            std::string::npos);
  EXPECT_NE(Refused("warmup_steps: 5\nwarmup_ratio: 0.1\n").find("run.yaml:2: "), std::string::npos);
}

TEST_F(ConfigFileTest, JsonIsYaml) {
  EXPECT_EQ(Train("{\"learning_rate\": 2e-3, \"raw\": true, \"taps\": [1, 3], \"out\": \"a \\u00e9\"}\n"),
            (Words{"--learning-rate=2e-3", "--raw", "--taps=1,3", "--out=a \u00e9"}));
}

TEST_F(ConfigFileTest, ValuesOfOtherPrograms) {
  EXPECT_EQ(Train("optim: adamw_torch\n"), Words{"--optimizer=adamw"});
  EXPECT_EQ(Train("optimizer: paged_adamw_8bit\n"), Words{"--optimizer=adamw8bit"});
  EXPECT_EQ(Train("lr_scheduler_type: constant_with_warmup\n"), Words{"--lr-scheduler=constant"});
  EXPECT_EQ(Train("lr_scheduler_type: linear\nwarmup_steps: 10\n"),
            (Words{"--lr-scheduler=linear", "--warmup-steps=10"}));
  EXPECT_EQ(Train("load_in_4bit: True\nbnb_4bit_quant_type: nf4\n"), Words{}) << "so is a folder by default";
  EXPECT_EQ(Train("train_on_inputs: true\n"), Words{"--train-on-prompt"});
  EXPECT_EQ(Train("assistant_only_loss: false\n"), Words{"--train-on-prompt"});
  EXPECT_EQ(Train("assistant_only_loss: true\n"), Words{});
  EXPECT_EQ(Train("max_steps: -1\nsample_packing: true\ntarget_modules: all-linear\nadapter: qlora\n"),
            (Words{"--max-steps=0", "--lora-targets=all", "--method=lora"}));
  EXPECT_EQ(Train("data: [a.jsonl, b.jsonl]\n"), (Words{"--data=a.jsonl", "--data=b.jsonl"}));
  for (const auto& [text, hint] : {std::pair{"lr_scheduler_type: constant\n", "warmup_ratio: 0"},
                                   {"sample_packing: false\n", "packed"},
                                   {"load_in_4bit: q8_0\n", "quantize"},
                                   {"bf16: true\n", "compute"},
                                   {"scale: 20\n", "lora_alpha"},
                                   {"datasets:\n  - path: a.jsonl\n", "data: train.jsonl"},
                                   {"val_set_size: 500\n", "below 1"},
                                   {"resume_from_checkpoint: out/checkpoint-5\n", "resume: true"},
                                   {"metric_for_best_model: f1\n", "must be one of loss"}}) {
    EXPECT_NE(Refused(text).find(hint), std::string::npos) << text << Refused(text);
    EXPECT_NE(Refused(text).find("run.yaml:1: "), std::string::npos) << Refused(text);
  }
  // Two names, two values.
  EXPECT_NE(Refused("load_in_4bit: true\nquantize: q8_0\n").find("run.yaml:2: quantize is set twice"),
            std::string::npos);
}

TEST_F(ConfigFileTest, SectionsAreNotRead) {
  const std::string message = Refused("seed: 1\nlora_parameters:\n  r: 8\n  lora_alpha: 16\n  keys: [q]\n");
  EXPECT_NE(message.find("run.yaml:2: key \"lora_parameters\""), std::string::npos) << message;
  EXPECT_NE(message.find("\"r\" (lora_r), \"lora_alpha\""), std::string::npos) << message;
}

class ConfigKeysTest : public testing::Test {
 protected:
  ConfigKeysTest() : action_(AddTrain(app_)) {}
  Words Translated(Words words) {
    EXPECT_TRUE(TranslateFlags(app_, &words).ok());
    return words;
  }
  CLI::App app_{"", "train"};
  Action action_;
};

// All words that one edit makes of a name: a letter left out, two exchanged, one replaced.
Words Misspellings(const std::string& name) {
  Words words;
  for (size_t i = 0; i < name.size(); ++i) {
    words.push_back(name.substr(0, i) + name.substr(i + 1));
    words.push_back(name);
    words.back()[i] = name[i] == 'x' ? 'z' : 'x';
    if (i + 1 == name.size()) continue;
    words.push_back(name);
    std::swap(words.back()[i], words.back()[i + 1]);
  }
  return words;
}

TEST_F(ConfigKeysTest, OneWrongLetterIsFound) {
  const Words names = KnownNames(app_);
  EXPECT_GT(names.size(), 200u);
  const std::vector<std::string_view> views(names.begin(), names.end());
  const std::set<std::string> known(names.begin(), names.end());
  for (const std::string& name : names) {
    for (const std::string& word : Misspellings(name)) {
      if (word.empty() || known.contains(word)) continue;
      const std::string_view found = Nearest(word, views);
      EXPECT_TRUE(found == name || EditDistance(word, found) == 1) << name << " " << word << " " << found;
    }
    const std::string word = name + "x";
    if (!known.contains(word)) {
      EXPECT_NE(Suggestion(app_, word).find("did you mean \"" + std::string(Nearest(word, views)) + "\""),
                std::string::npos);
    }
  }
}

TEST_F(ConfigKeysTest, EveryAliasLeadsSomewhere) {
  for (const Alias& alias : Aliases()) {
    const std::string name(alias.name);
    EXPECT_TRUE(MeaningOf(app_, name).alias) << name << " stands for " << alias.key << ", which is no option";
    EXPECT_FALSE(FindKey(app_, name)) << name << " is an option: its alias is never reached";
    EXPECT_EQ(FindAlias(name), &alias) << name << " is there twice";
    EXPECT_TRUE(!alias.key.empty() || !alias.hint.empty()) << name;
  }
  for (const ValueAlias& value : ValueAliases()) {
    EXPECT_TRUE(MeaningOf(app_, std::string(value.name)).known()) << value.name;
    EXPECT_EQ(FindValueAlias(value.name, value.value), &value) << value.name << " " << value.value;
  }
}

TEST_F(ConfigKeysTest, FlagsHaveTheSameNames) {
  EXPECT_EQ(Translated({"--learning_rate", "2e-3", "--max_length=64", "x_y"}),
            (Words{"--learning-rate", "2e-3", "--max-length=64", "x_y"}));
  EXPECT_EQ(Translated({"--num-train-epochs", "2", "--output_dir=o", "--model_name_or_path", "m"}),
            (Words{"--epochs=2", "--out=o", "--model=m"}));
  EXPECT_EQ(
      Translated({"--gradient_checkpointing", "True", "--raw", "false", "--train_on_inputs", "--seed", "1"}),
      (Words{"--recompute", "--raw=false", "--train-on-prompt", "--seed", "1"}));
  EXPECT_EQ(Translated({"--optim", "adamw_torch", "--packing", "true", "--max_steps", "-1", "--resume"}),
            (Words{"--optimizer=adamw", "--max-steps=0", "--resume"}));
  EXPECT_EQ(Translated({"--nothing_like_it", "--", "--learning_rate"}),
            (Words{"--nothing_like_it", "--", "--learning_rate"}));
  Words words = {"--micro_batch_size", "4"};
  const Status refused = TranslateFlags(app_, &words);
  ASSERT_FALSE(refused.ok());
  EXPECT_TRUE(refused.failure().message.starts_with("rung train: --micro_batch_size: "))
      << refused.failure().message;
  EXPECT_NE(refused.failure().message.find("\"tokens\""), std::string::npos);
}

}  // namespace
}  // namespace rung::cli
