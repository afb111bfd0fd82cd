#include "io/json_fields.h"

#include <gtest/gtest.h>

namespace rung::io {
namespace {

using nlohmann::json;

TEST(JsonFields, NoTypeStandsForAnother) {
  const auto failure = [](const json& object, const auto& read) {
    JsonFields fields(object, "a.json");
    read(fields);
    return fields.ok() ? std::string() : fields.failure().message;
  };
  const auto whole = [](JsonFields& fields) { fields.Get<int64_t>("n"); };
  EXPECT_EQ(failure({{"n", 3}}, whole), "");
  EXPECT_EQ(failure({{"n", 3.0}}, whole), "a.json: \"n\" is 3.0: of the wrong type");
  EXPECT_EQ(failure({{"n", 1e300}}, whole), "a.json: \"n\" is 1e+300: of the wrong type");
  EXPECT_EQ(failure({{"n", ~uint64_t{0}}}, whole),
            "a.json: \"n\" is 18446744073709551615: of the wrong type");
  EXPECT_EQ(failure({{"n", true}}, whole), "a.json: \"n\" is true: of the wrong type");
  EXPECT_EQ(failure({{"n", nullptr}}, whole), "a.json: \"n\" is null: of the wrong type");
  EXPECT_EQ(failure({{"m", 3}}, whole), "a.json: \"n\" is missing");
  EXPECT_EQ(failure(json::array({3}), whole), "a.json: \"n\" is missing");
  EXPECT_EQ(failure({{"n", {1, 2.5}}}, [](JsonFields& f) { f.Get<std::vector<int64_t>>("n"); }),
            "a.json: \"n\" is [1,2.5]: of the wrong type");
  EXPECT_EQ(failure({{"n", {{"a", "b"}}}}, [](JsonFields& f) { f.Get<std::map<std::string, int64_t>>("n"); }),
            "a.json: \"n\" is {\"a\":\"b\"}: of the wrong type");
  EXPECT_EQ(failure({{"n", -1}}, [](JsonFields& f) { f.Count("n"); }), "a.json: \"n\" is -1: negative");
  EXPECT_EQ(failure({{"n", "2"}}, [](JsonFields& f) { f.GetOr<double>("n", 1.0); }),
            "a.json: \"n\" is \"2\": of the wrong type");
}

TEST(JsonFields, ReadsAndKeepsTheFirstFailure) {
  const json object = {{"n", 3}, {"x", 2}, {"text", "t"}, {"list", {1, 2}}, {"flag", true}};
  JsonFields fields(object, "a.json");
  EXPECT_EQ(fields.Get<int64_t>("n"), 3);
  EXPECT_EQ(fields.Get<double>("x"), 2.0);
  EXPECT_EQ(fields.Get<std::string>("text"), "t");
  EXPECT_EQ(fields.Get<std::vector<int64_t>>("list"), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(fields.GetOr<int64_t>("absent", 7), 7);
  EXPECT_TRUE(fields.Get<bool>("flag"));
  EXPECT_TRUE(fields.ok());
  EXPECT_EQ(fields.Get<int64_t>("text"), 0);
  fields.Get<int64_t>("nothing");
  EXPECT_EQ(fields.failure().message, "a.json: \"text\" is \"t\": of the wrong type");
}

}  // namespace
}  // namespace rung::io
