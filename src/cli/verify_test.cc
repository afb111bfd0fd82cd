// What verify finds is in src/verify/verify_test.cc; here, how the command says it.
#include <nlohmann/json.hpp>

#include "cli/test_support.h"

namespace rung::cli {
namespace {

using VerifyVerb = FolderTest;

TEST_F(VerifyVerb, PrintsJsonAndEndsByWhatItFound) {
  const nlohmann::json good =
      nlohmann::json::parse(RunVerb(AddVerify, {"--model", kStories, "--json", "--threads", "1"}));
  EXPECT_EQ(good["problems"], 0);
  EXPECT_EQ(good["sha256"]["stories260K.gguf"],
            "270cba1bd5109f42d03350f60406024560464db173c0e387d91f0426d3bd256d");
  EXPECT_TRUE(good["perplexity"].is_number());
  const Path cut = folder_ / "cut.gguf";
  std::filesystem::copy_file(kStories, cut);
  std::filesystem::resize_file(cut, std::filesystem::file_size(cut) / 2);
  const auto [code, message] = Refusal(AddVerify, {"--model", cut.string(), "--json", "--threads", "1"});
  EXPECT_EQ(code, ExitCode::kBadInput);
  EXPECT_NE(message.find("1 problem"), std::string::npos) << message;
  EXPECT_EQ(Refusal(AddVerify, {"--model", (folder_ / "no").string()}).first, ExitCode::kBadInput);
}

TEST_F(VerifyVerb, RefusesSumsThatAreNoneOrNotLookedAt) {
  EXPECT_EQ(Refusal(AddVerify, {"--model", kStories, "--sha256", "123"}).first, ExitCode::kUsage);
  EXPECT_THROW(RunVerb(AddVerify, {"--model", kStories, "--sha256", std::string(64, 'a'), "--no-checksums"}),
               CLI::Error);
}

}  // namespace
}  // namespace rung::cli
