// What `rung train` takes for granted where its user says nothing.
#include <nlohmann/json.hpp>

#include "cli/test_support.h"

namespace rung::cli {
namespace {

class TrainFlagsTest : public FolderTest {};

// As `rung plan`: the default of 512 is more than this model takes.
TEST_F(TrainFlagsTest, TheDefaultLengthIsTheModelsContext) {
  const Path model = folder_ / "model";
  std::filesystem::copy(kTrained, model);
  nlohmann::json config = nlohmann::json::parse(ReadTextFile(model / "config.json", 1 << 20).OrThrow());
  config["max_position_embeddings"] = 96;
  WriteTextFile(model / "config.json", config.dump()).OrThrow();
  const Path data = Write("data.jsonl", R"({"prompt": "Once upon a time", "completion": " there was a dog."})"
                                        "\n");
  const auto train = [&](const std::string& out, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"--model",    model.string(), "--data", data.string(), "--out",
                                          out,          "--max-steps",  "1",      "--threads",   "1",
                                          "--progress", "none"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Refusal(AddTrain, arguments);
  };
  const std::string out = (folder_ / "out").string();
  const auto [code, message] = train(out, {});
  EXPECT_EQ(code, ExitCode::kDone) << message;
  EXPECT_TRUE(std::filesystem::exists(Path(out) / "adapter_model.safetensors"));
  const auto refused = train((folder_ / "other").string(), {"--max-length", "97"});
  EXPECT_EQ(refused.first, ExitCode::kUsage);
  EXPECT_NE(refused.second.find("--max-length 97"), std::string::npos) << refused.second;
}

}  // namespace
}  // namespace rung::cli
