#include "cli/inspect.h"

#include "base/text.h"
#include "cli/test_support.h"
#include "convert/quantize_gguf.h"
#include "infer/test_support.h"
#include "io/gguf_writer.h"
#include "io/json_file.h"

namespace rung::cli {
namespace {

using nlohmann::json;

json InspectJson(const Path& path, bool tensors = true) {
  std::vector<std::string> arguments = {path.string(), "--json"};
  if (tensors) arguments.push_back("--tensors");
  return json::parse(RunVerb(AddInspect, arguments));
}

class InspectTest : public FolderTest {};

TEST_F(InspectTest, GgufFile) {
  const json found = InspectJson("tests/data/models/stories260k/stories260K.gguf");
  EXPECT_EQ(found["kind"], "GGUF file");
  EXPECT_EQ(found["architecture"], "llama");
  EXPECT_EQ(found["shapes"]["layers"], 5);
  EXPECT_EQ(found["shapes"]["hidden_size"], 64);
  EXPECT_EQ(found["shapes"]["heads"], 8);
  EXPECT_EQ(found["shapes"]["kv_heads"], 4);
  EXPECT_EQ(found["shapes"]["vocabulary"], 512);
  EXPECT_EQ(found["tokenizer"]["vocabulary"], 512);
  EXPECT_EQ(found["tokenizer"]["bos"], 1);
  EXPECT_TRUE(found["not_supported"].empty());
  uint64_t bytes = 0;
  for (const json& tensor : found["tensors"]) bytes += tensor["bytes"].get<uint64_t>();
  EXPECT_EQ(found["formats"]["f32"]["bytes"], bytes);
  EXPECT_EQ(found["parameters"].get<uint64_t>() * 4, bytes);
  EXPECT_FALSE(InspectJson("tests/data/models/stories260k/stories260K.gguf", false).contains("tensors"));
}

TEST_F(InspectTest, FolderPlainAndQuantised) {
  const Path model = "tests/data/models/tinystories-656k";
  const json plain = InspectJson(model);
  EXPECT_EQ(plain["kind"], "Hugging Face folder");
  EXPECT_EQ(plain["shapes"]["hidden_size"], 128);
  EXPECT_TRUE(plain["formats"].contains("f32"));
  convert::QuantizeFolder({model, folder_ / "out", {}}, nullptr, nullptr);
  const json packed = InspectJson(folder_ / "out");
  EXPECT_EQ(packed["formats"]["nf4"]["tensors"], 2 * 7);
  EXPECT_EQ(packed["parameters"], plain["parameters"]);
  EXPECT_EQ(packed["tensors"].size(), plain["tensors"].size());
}

TEST_F(InspectTest, AModelWithoutVocabularyIsNotBroken) {
  convert::QuantizeGguf({"tests/data/families/llama3", folder_ / "x.gguf", {model::Quantize::kQ8_0, {}, {}}},
                        nullptr, nullptr);
  const json found = InspectJson(folder_ / "x.gguf");
  EXPECT_TRUE(found["not_supported"].empty()) << found["not_supported"];
  EXPECT_TRUE(found["tokenizer"].is_null());
  EXPECT_NE(
      RunVerb(AddInspect, {(folder_ / "x.gguf").string()}).find("none: the file says that it has weights"),
      std::string::npos);
}

// What loading would make of each tensor, with the options of loading.
TEST_F(InspectTest, ARecipeIsShownByTensor) {
  const Path model = "tests/data/families/qwen3";
  const std::vector<std::string> recipe = {"--quantize", "q8_0",   "--quantize-embeddings",
                                           "q4_0",       "--keep", "*.0.*=f32"};
  std::vector<std::string> arguments = {model.string(), "--tensors", "--json"};
  arguments.insert(arguments.end(), recipe.begin(), recipe.end());
  const json found = json::parse(RunVerb(AddInspect, arguments));
  std::map<std::string, std::string> used;
  for (const json& tensor : found["tensors"]) used[tensor["name"]] = tensor["used"];
  EXPECT_EQ(used["model.layers.0.mlp.up_proj.weight"], "f32");
  EXPECT_EQ(used["model.layers.1.mlp.up_proj.weight"], "q8_0");
  EXPECT_EQ(used["model.embed_tokens.weight"], "q4_0");
  EXPECT_EQ(used["model.norm.weight"], found["tensors"].back()["format"]) << "no matrix";
  model::BackboneOptions options;
  options.recipe = {model::Quantize::kQ8_0, model::Quantize::kQ4_0, {{"*.0.*", model::Quantize::kF32}}};
  const model::Backbone loaded = model::Backbone::Load(model, options).OrThrow();
  EXPECT_EQ(found["loaded"].get<decltype(model::WeightTotals::bytes)>(), loaded.weight_totals().bytes);
  arguments = {model.string(), "--tensors"};
  arguments.insert(arguments.end(), recipe.begin(), recipe.end());
  const std::string text = RunVerb(AddInspect, arguments);
  EXPECT_NE(text.find("as loaded        q8_0"), std::string::npos) << text;
  EXPECT_NE(text.find(" -> q4_0"), std::string::npos) << text;
  EXPECT_FALSE(InspectJson(model).contains("loaded"));
  const auto [code, message] = Refusal(AddInspect, {kStories, "--quantize", "nf4"});
  EXPECT_EQ(code, ExitCode::kUsage);
  EXPECT_NE(message.find("leave --quantize out"), std::string::npos) << message;
}

// A shape of no numbers whose dimensions multiply to more than 2^63.
TEST_F(InspectTest, ShapesOfNoNumbersCountNone) {
  Write("config.json", R"({"model_type": "mamba"})");
  const std::string header =
      R"({"x": {"dtype": "F32", "shape": [4611686018427387904, 4611686018427387904, 0], "data_offsets": [0, 0]}})";
  const uint64_t length = header.size();
  Write("model.safetensors", std::string(reinterpret_cast<const char*>(&length), sizeof length) + header);
  EXPECT_EQ(InspectJson(folder_)["parameters"], 0);
}

TEST_F(InspectTest, AdapterFolder) {
  const model::Backbone backbone = infer::LoadSmall("tests/data/families/llama3", DType::kF32, 64);
  model::Adapter ladder = infer::RandomLadder(backbone.config());
  ASSERT_TRUE(model::SaveAdapter(folder_, ladder, backbone.config(), {"base", "{{ messages }}"}).ok());
  const json found = InspectJson(folder_);
  EXPECT_EQ(found["kind"], "adapter");
  EXPECT_EQ(found["ladder"]["rungs"], 3);
  EXPECT_EQ(found["ladder"]["taps"], json({0, 2}));
  EXPECT_EQ(found["parameters"], ladder.parameter_count());
  EXPECT_EQ(found["chat_template"], "{{ messages }}");
  EXPECT_NE(RunVerb(AddInspect, {folder_.string()}).find("after layers 0, 2"), std::string::npos);
}

TEST_F(InspectTest, WhatIsNotSupportedIsShownAsFarAsItGoes) {
  const Path config = Write("config.json", R"({"model_type": "mamba", "hidden_size": 77, "vocab_size": 5})");
  const json found = InspectJson(config);
  EXPECT_EQ(found["architecture"], "mamba");
  EXPECT_EQ(found["shapes"]["hidden_size"], "77");
  ASSERT_EQ(found["not_supported"].size(), 1u);
  EXPECT_NE(RunVerb(AddInspect, {config.string()}).find("mamba"), std::string::npos);
  // A GGUF file that holds every type of tensor and no model.
  const json tiny = InspectJson("tests/data/io/tiny.gguf");
  EXPECT_FALSE(tiny["not_supported"].empty());
  EXPECT_FALSE(tiny["tensors"].empty());
}

// No byte of a foreign file reaches the terminal as a control character.
void ExpectPlain(const std::string& text) {
  EXPECT_EQ(text, Printable(text, Newlines::kKeep));
  EXPECT_NE(text.find("\\"), std::string::npos) << "nothing was escaped";
}

TEST_F(InspectTest, NamesFromFilesDoNotSteerTheTerminal) {
  const std::string esc =
      "\x1b]0;owned\x07\xc2\x9b"
      "2J\x7f\r";
  const std::vector<std::byte> four(16);
  io::GgufWriter writer = io::GgufWriter::Create(folder_ / "x.gguf",
                                                 {{"general.architecture", "llama" + esc},
                                                  {"general.name", esc},
                                                  {"llama" + esc + ".key" + esc, esc}},
                                                 {{"weight" + esc, 0, {4}}})
                              .OrThrow();
  writer.Write(0, 0, four).OrThrow();
  writer.Commit().OrThrow();
  const Path config = Write("config.json", json({{"model_type", esc}, {"hidden_size" + esc, 5}}).dump());
  for (const Path& path : {folder_ / "x.gguf", config}) {
    ExpectPlain(RunVerb(AddInspect, {path.string(), "--tensors"}));
    ExpectPlain(RunVerb(AddInspect, {path.string(), "--tensors", "--json"}));
  }
  EXPECT_EQ(InspectJson(folder_ / "x.gguf")["name"], esc);

  const Path pairs = folder_ / "pairs";
  std::filesystem::copy("tests/data/lora/peft_llama3", pairs);
  json peft = io::ReadJson(pairs / "adapter_config.json").OrThrow();
  peft["base_model_name_or_path"] = esc;
  WriteTextFile(pairs / "adapter_config.json", peft.dump()).OrThrow();
  ExpectPlain(RunVerb(AddInspect, {pairs.string()}));
}

TEST_F(InspectTest, PathsMayBeAnyBytes) {
  const Path folder = folder_ / "caf\xe9";
  std::filesystem::create_directory(folder);
  Write("caf\xe9/config.json", R"({"model_type": "mamba"})");
  EXPECT_EQ(InspectJson(folder)["architecture"], "mamba");
  EXPECT_NE(RunVerb(AddInspect, {folder.string()}).find("caf\\xe9"), std::string::npos);
}

TEST_F(InspectTest, RefusesWhatIsNoModel) {
  EXPECT_EQ(Refusal(AddInspect, {"no/such.gguf"}).first, ExitCode::kBadInput);
  EXPECT_EQ(Refusal(AddInspect, {folder_.string()}).first, ExitCode::kBadInput);
  EXPECT_EQ(Refusal(AddInspect, {Write("x.gguf", "text").string()}).first, ExitCode::kBadInput);
}

}  // namespace
}  // namespace rung::cli
