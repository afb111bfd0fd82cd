// rung eval, generate and version as a user runs them, on models that fit in a test.
#include <nlohmann/json.hpp>

#include "cli/load_model.h"
#include "cli/test_support.h"
#include "infer/test_support.h"

namespace rung::cli {
namespace {

using nlohmann::json;

constexpr const char* kTemplate =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}";

class VerbsTest : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    data_ = Write("test.jsonl", R"({"prompt": "Once upon a time", "completion": ", there was a little girl"}
{"prompt": "Lily went to the", "completion": " park"}
{"prompt": "The dog was", "completion": " happy"})");
  }
  // A ladder in a folder of its own.
  Path Adapter(const std::string& name, const std::string& chat_template,
               std::optional<int64_t> time = std::nullopt) const {
    const model::Config config = model::ReadConfig(kStories).OrThrow();
    model::Adapter ladder = infer::RandomLadder(config);
    EXPECT_TRUE(model::SaveAdapter(folder_ / name, ladder, config, {kStories, chat_template, time}).ok());
    return folder_ / name;
  }
  json Eval(std::vector<std::string> more) const {
    std::vector<std::string> arguments = {"--model", kStories,     "--data", data_.string(),
                                          "--json",  "--threads",  "1",      "--compute",
                                          "f32",     "--progress", "none"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return json::parse(RunVerb(AddEval, arguments));
  }
  static json Generate(std::vector<std::string> more) {
    std::vector<std::string> arguments = {"--model", kStories,    "--json", "--threads",
                                          "1",       "--compute", "f32"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return json::parse(RunVerb(AddGenerate, arguments));
  }
  Path data_;
};

TEST_F(VerbsTest, EvalPrintsOneObject) {
  const json found = Eval({});
  for (const char* key :
       {"loss", "perplexity", "target_tokens", "records", "accuracy", "accuracy_kind", "tokens_per_second"}) {
    EXPECT_TRUE(found.contains(key)) << key;
  }
  EXPECT_EQ(found["records"], 3);
  EXPECT_EQ(found["accuracy_kind"], "exact_match");
  EXPECT_NEAR(found["perplexity"].get<double>(), std::exp(found["loss"].get<double>()), 1e-9);
  EXPECT_EQ(Eval({"--limit", "1"})["records"], 1);
  EXPECT_TRUE(Eval({"--no-generate"})["accuracy"].is_null());
  // Batches of another size are the same loss.
  EXPECT_NEAR(Eval({"--tokens", "20", "--no-generate"})["loss"].get<double>(), found["loss"].get<double>(),
              1e-5);
}

TEST_F(VerbsTest, EvalRanksChoices) {
  const Path choices = Write("choices.txt", ", there was a little girl\n park\n\n happy\n");
  const json found = Eval({"--choices", choices.string()});
  EXPECT_EQ(found["accuracy_kind"], "ranking");
  EXPECT_GT(found["accuracy"].get<double>(), 0.3);
  const Path list = Write("choices.json", R"([", there was a little girl", " park", " happy"])");
  EXPECT_EQ(Eval({"--choices", list.string()})["accuracy"], found["accuracy"]);
  const auto refusal =
      Refusal(AddEval, {"--model", kStories, "--data", data_.string(), "--choices", "no/such"});
  EXPECT_EQ(refusal.first, ExitCode::kUsage);
}

TEST_F(VerbsTest, EvalOfTextHasNoAccuracy) {
  const Path text = Write("text.jsonl", R"({"text": "Once upon a time, there was a girl."})");
  const json found = json::parse(RunVerb(AddEval, {"--model", kStories, "--data", text.string(), "--json"}));
  EXPECT_TRUE(found["accuracy"].is_null());
  EXPECT_GT(found["loss"].get<double>(), 0.0);
}

TEST_F(VerbsTest, EvalAsksTheRecordsThatHaveAnAnswer) {
  const std::string
      asked = R"({"messages": [{"role": "user", "content": "Hello"}]})",
      answered =
          R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x"}]})";
  const std::string own = Write("own.jinja", kTemplate).string();
  for (const std::string& text : {asked + "\n" + answered, answered + "\n" + asked}) {
    data_ = Write("mixed.jsonl", text);
    EXPECT_EQ(Eval({"--chat-template", own})["accuracy_kind"], "exact_match") << text;
  }
}

TEST_F(VerbsTest, EvalSaysWhichRowsItLeavesOut) {
  const Path bad = Write("bad.jsonl", "{\"text\": \"Once upon a time\"}\nno json\n");
  testing::internal::CaptureStderr();
  RunVerb(AddEval,
          {"--model", kStories, "--data", bad.string(), "--max-bad-rows", "1", "--progress", "plain"});
  EXPECT_NE(testing::internal::GetCapturedStderr().find("bad.jsonl:2"), std::string::npos);
}

TEST_F(VerbsTest, EvalRefusesWhatChangesNothing) {
  for (const std::vector<std::string>& more : {std::vector<std::string>{"--per-token"},
                                               {"--no-generate", "--choices", "choices"},
                                               {"--no-generate", "--samples", "1"},
                                               {"--no-generate", "--slots", "2"},
                                               {"--choices", "choices", "--max-new-tokens", "8"}}) {
    std::vector<std::string> line = {"eval", "--model", kStories, "--data", data_.string()};
    line.insert(line.end(), more.begin(), more.end());
    const Outcome found = RunMain(line);
    EXPECT_EQ(found.code, ExitCode::kUsage) << more.front();
    EXPECT_NE(found.said.find(more.front()), std::string::npos) << found.said;
  }
}

TEST_F(VerbsTest, TheAdapterDecidesOnTheTemplate) {
  const Path raw = Adapter("raw", ""), chat = Adapter("chat", kTemplate);
  const auto tokens = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"--prompt", "Hello", "--max-tokens", "2"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Generate(arguments)["prompt_tokens"].get<int>();
  };
  EXPECT_EQ(tokens({"--adapter", raw.string()}), tokens({}));
  EXPECT_EQ(tokens({"--adapter", raw.string(), "--raw"}), tokens({}));
  EXPECT_GT(tokens({"--adapter", chat.string()}), tokens({}));
  const auto refusal =
      Refusal(AddGenerate, {"--model", kStories, "--prompt", "x", "--adapter", chat.string(), "--raw"});
  EXPECT_EQ(refusal.first, ExitCode::kUsage);
  EXPECT_NE(Eval({"--adapter", raw.string(), "--no-generate"})["loss"], Eval({"--no-generate"})["loss"]);
}

TEST_F(VerbsTest, ChatTemplateTakesTheModelsPlace) {
  const auto tokens = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"--prompt", "Hello", "--max-tokens", "2"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Generate(arguments)["prompt_tokens"].get<int>();
  };
  const std::string file = Write("own.jinja", kTemplate).string();
  const int templated = tokens({"--chat-template", kTemplate});
  EXPECT_GT(templated, tokens({}));
  EXPECT_EQ(tokens({"--chat-template", file}), templated);
  const double loss = Eval({"--no-generate", "--chat-template", file})["loss"].get<double>();
  EXPECT_NE(loss, Eval({"--no-generate"})["loss"].get<double>());

  // With an adapter it may only be the adapter's own.
  const std::string raw = Adapter("raw", "").string(), chat = Adapter("chat", kTemplate).string();
  EXPECT_EQ(tokens({"--chat-template", file, "--adapter", chat}), templated);
  const auto refused = [](std::vector<std::string> more) {
    more.insert(more.begin(), {"--model", kStories, "--prompt", "x"});
    const auto refusal = Refusal(AddGenerate, more);
    EXPECT_EQ(refusal.first, ExitCode::kUsage) << refusal.second;
    return refusal.second;
  };
  EXPECT_NE(refused({"--adapter", chat, "--chat-template", "{{ 1 }}"}).find("with another chat template"),
            std::string::npos);
  EXPECT_NE(refused({"--adapter", raw, "--chat-template", file}).find("without a chat template"),
            std::string::npos);
  EXPECT_NE(refused({"--raw", "--chat-template", file}).find("leave it or --chat-template out"),
            std::string::npos);
  EXPECT_NE(refused({"--chat-template", "chatml"}).find("neither a file nor a template"), std::string::npos);
}

TEST_F(VerbsTest, TheAdaptersTemplateShowsTheTimeOfItsTraining) {
  const std::string source = "{{ strftime_now('%Y') }}" + std::string(kTemplate);
  const auto ids = [&](const Path& adapter) {
    const LoadedModel loaded = LoadedModel::ReadText(kStories, adapter, {});
    const text::Message messages[] = {{"user", "Hello"}};
    const data::Encoder encoder(loaded.text().vocabulary(), {});
    return loaded.text().tokenizer.Decode(encoder.ChatPrompt(messages).OrThrow(), true);
  };
  EXPECT_EQ(ids(Adapter("then", source, 86400)), "1970user: Hello\nassistant: ");
  EXPECT_EQ(ids(Adapter("without", source)).find("1970"), std::string::npos);
}

TEST_F(VerbsTest, SpecialTokensOfTextsAreReadOnRequest) {
  data_ = Write("rendered.jsonl", R"({"text": "<s>Once upon a time</s>"})");
  const json plain = Eval({}), special = Eval({"--special-tokens"});
  EXPECT_GT(plain["target_tokens"].get<int>(), special["target_tokens"].get<int>());
}

TEST_F(VerbsTest, AnAdapterOfAnotherModelIsRefused) {
  const Path adapter = Adapter("raw", "");
  const auto refusal = Refusal(AddGenerate, {"--model", "tests/data/models/tinystories-656k", "--prompt", "x",
                                             "--adapter", adapter.string()});
  EXPECT_EQ(refusal.first, ExitCode::kBadInput);
  EXPECT_NE(refusal.second.find("was trained for"), std::string::npos) << refusal.second;
}

// Trained beside NF4: said where the model is read otherwise, and only there.
TEST_F(VerbsTest, WeightsOfOtherFormatsThanThoseOfTrainingAreAWarning) {
  const model::Config config = model::ReadConfig(kTrained).OrThrow();
  model::AdapterOrigin origin;
  origin.base_formats = model::Backbone::Load(kTrained, {}).OrThrow().formats();
  model::SaveAdapter(folder_ / "a", infer::RandomLadder(config), config, origin).OrThrow();
  const auto said = [&](std::vector<std::string> words, const char* quantize) {
    for (const std::string& word :
         {std::string("--model"), std::string(kTrained), std::string("--adapter"), (folder_ / "a").string(),
          std::string("--quantize"), std::string(quantize), std::string("--threads"), std::string("1")}) {
      words.push_back(word);
    }
    const Outcome outcome = RunMain(words);
    EXPECT_EQ(outcome.code, ExitCode::kDone) << outcome.said;
    return outcome.said;
  };
  for (const std::vector<std::string>& verb :
       {std::vector<std::string>{"generate", "--prompt", "x", "--max-tokens", "1"},
        std::vector<std::string>{"eval", "--data", data_.string(), "--no-generate", "--progress", "none"}}) {
    const std::string other = said(verb, "none"), same = said(verb, "nf4");
    EXPECT_NE(other.find("a: when it was trained, the blocks were in nf4, here they are in f32"),
              std::string::npos)
        << other;
    EXPECT_EQ(same.find("when it was trained"), std::string::npos) << same;
  }
}

TEST_F(VerbsTest, AdaptersSurviveTheRoundTrip) {
  const model::Config config = model::ReadConfig(kStories).OrThrow();
  model::Adapter saved = infer::RandomLadder(config);
  saved.ForEachBuffer([](const std::string& name, Tensor& tensor) {
    float* value = Out{tensor}.as<float>();
    for (int64_t i = 0; i < tensor.size(); ++i)
      value[i] = static_cast<float>(i) + static_cast<float>(name.size());
  });
  ASSERT_TRUE(model::SaveAdapter(folder_ / "a", saved, config, {"base", kTemplate}).ok());
  const model::AdapterInfo info = model::ReadAdapterInfo(folder_ / "a", config).OrThrow();
  EXPECT_EQ(info.chat_template, kTemplate);
  EXPECT_EQ(info.base_model, "base");
  model::Adapter loaded = model::LoadAdapter(folder_ / "a", config, false, 16).OrThrow();
  EXPECT_EQ(loaded.ladder()->spec().taps, saved.ladder()->spec().taps);
  EXPECT_EQ(loaded.ladder()->spec().gate, saved.ladder()->spec().gate);
  EXPECT_EQ(loaded.ladder()->spec().output_scale, saved.ladder()->spec().output_scale);
  const auto bytes = [](const Tensor& t) {
    return std::vector<std::byte>(t.data, t.data + static_cast<size_t>(t.size()) * sizeof(float));
  };
  EXPECT_EQ(bytes(loaded.params().values), bytes(saved.params().values));
  std::vector<std::vector<std::byte>> first, second;
  saved.ForEachBuffer([&](const std::string&, Tensor& tensor) { first.push_back(bytes(tensor)); });
  loaded.ForEachBuffer([&](const std::string&, Tensor& tensor) { second.push_back(bytes(tensor)); });
  EXPECT_EQ(first, second);
}

TEST_F(VerbsTest, GenerateStreamsWhatJsonHolds) {
  const json found = Generate({"--prompt", "Once upon", "--max-tokens", "20"});
  EXPECT_EQ(found["ids"].size(), 20u);
  EXPECT_EQ(found["finish_reason"], "length");
  EXPECT_TRUE(found["text"].get<std::string>().starts_with(" a time, there was")) << found["text"];
  const std::string streamed =
      RunVerb(AddGenerate, {"--model", kStories, "--prompt-file", Write("p.txt", "Once upon").string(),
                            "--max-tokens", "20", "--threads", "1", "--compute", "f32"});
  EXPECT_EQ(streamed, found["text"].get<std::string>() + "\n");
  const json stopped = Generate({"--prompt", "Once upon", "--stop", "there", "--stop", "girl"});
  EXPECT_EQ(stopped["text"], " a time, ");
  EXPECT_EQ(stopped["finish_reason"], "stop");
}

TEST_F(VerbsTest, GenerateRefusesWhatDoesNotFit) {
  // Five tokens a time; the model takes 2048.
  std::string longest;
  for (int i = 0; i < 390; ++i) longest += "the dog ran ";
  // The answer is cut where the model's context ends; its last token needs no position.
  const json cut = Generate({"--prompt", longest, "--max-tokens", "100000"});
  EXPECT_LT(cut["prompt_tokens"], 2048);
  EXPECT_EQ(cut["prompt_tokens"].get<size_t>() + cut["ids"].size(), 2049u);
  EXPECT_EQ(cut["finish_reason"], "length");
  const auto refusal = Refusal(AddGenerate, {"--model", kStories, "--prompt", longest + longest});
  EXPECT_EQ(refusal.first, ExitCode::kBadInput);
  EXPECT_NE(refusal.second.find("2048"), std::string::npos) << refusal.second;
  EXPECT_EQ(Refusal(AddGenerate, {"--model", kStories}).first, ExitCode::kUsage);
  EXPECT_EQ(Refusal(AddGenerate, {"--model", kStories, "--prompt", "x", "--system", "y"}).first,
            ExitCode::kUsage);
}

TEST_F(VerbsTest, VersionNamesEverything) {
  const json version = json::parse(RunVerb(AddVersion, {"--json"}));
  for (const char* key : {"version", "build", "compiler", "isa", "isa_supported", "compute", "threads"}) {
    EXPECT_TRUE(version.contains(key)) << key;
  }
  for (const auto& [name, text] : version["libraries"].items()) EXPECT_NE(text, "") << name;
  EXPECT_NE(RunVerb(AddVersion, {}).find("oneDNN"), std::string::npos);
}

TEST_F(VerbsTest, TrainRefusesWhatItWouldNotUse) {
  const auto refuse = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"--model",      kStories, "--data",
                                          data_.string(), "--out",  (folder_ / "run").string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto refusal = Refusal(AddTrain, arguments);
    EXPECT_EQ(refusal.first, ExitCode::kUsage) << more[0];
    EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
    return refusal.second;
  };
  EXPECT_NE(refuse({"--layers", "top:1"}).find("--method lora"), std::string::npos);
  EXPECT_NE(refuse({"--recompute", "--rejoin", "0"}).find("crosses"), std::string::npos);
  EXPECT_NE(refuse({"--recompute", "--method", "xladder"}).find("crosses"), std::string::npos);
  EXPECT_NE(refuse({"--recompute", "--rung-block", "plain"}).find("crosses"), std::string::npos);
  EXPECT_NE(refuse({"--method", "lora", "--width", "32"}).find("--width"), std::string::npos);
  EXPECT_NE(refuse({"--fisher-samples", "3"}).find("fisher"), std::string::npos);
  EXPECT_NE(refuse({"--tap-map", "pooled", "--tap-storage", "int8"}).find("pooled"), std::string::npos);
  EXPECT_NE(refuse({"--tap-cache-limit", "1GiB"}).find("--tap-cache"), std::string::npos);
  EXPECT_NE(refuse({"--method", "lora", "--tap-cache", "taps"}).find("of a ladder"), std::string::npos);
  EXPECT_NE(refuse({"--eval-steps", "5"}).find("held-out records"), std::string::npos);
  EXPECT_NE(refuse({"--method", "lora", "--lora-r", "0"}).find("rank"), std::string::npos);
  EXPECT_NE(refuse({"--taps", ""}).find("empty"), std::string::npos);
  for (const char* flag : {"--learning-rate", "--output-scale", "--width"}) refuse({flag, "nan"});
  refuse({"--method", "lora", "--lora-alpha", "nan"});
}

}  // namespace
}  // namespace rung::cli
