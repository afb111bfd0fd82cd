#include "cli/config_file.h"

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
    if (Status merged = MergeConfigFile(app, &arguments); !merged.ok()) return merged.failure();
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
}

}  // namespace
}  // namespace rung::cli
