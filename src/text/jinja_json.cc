#include "text/jinja_json.h"

#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "io/json_file.h"

namespace rung::text::jinja {
namespace {

using Json = nlohmann::json;

// Containers that are open, innermost last.
struct Level {
  bool object;
  std::vector<Value> items;                 // of a list
  Members members;                          // of an object; the last waits for its value
  std::map<std::string, size_t> positions;  // of its keys
  size_t current = 0;
};

class Builder : public nlohmann::json_sax<Json> {
 public:
  Builder(std::string_view text, int32_t source, Budget& budget)
      : text_(text), source_(source), budget_(budget) {}

  Value Take() { return std::move(root_); }

  bool null() override { return Add(Value(None{})); }
  bool boolean(bool value) override { return Add(Value(value)); }
  bool number_integer(int64_t value) override { return Add(Value(value)); }
  bool number_unsigned(uint64_t value) override {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) RefuseInteger();
    return Add(Value(static_cast<int64_t>(value)));
  }
  bool number_float(double value, const std::string& digits) override {
    if (digits.find_first_of(".eE") == std::string::npos) RefuseInteger();
    return Add(Value(value));
  }
  bool string(std::string& value) override { return Add(MakeOwn(std::move(value))); }
  bool binary(Json::binary_t&) override { return false; }  // JSON text has none

  bool start_object(size_t) override { return Open(true); }
  bool start_array(size_t) override { return Open(false); }
  bool key(std::string& name) override {
    Level& level = levels_.back();
    const auto [known, added] = level.positions.emplace(name, level.members.size());
    level.current = known->second;
    if (added) level.members.emplace_back(MakeOwn(name), Value());
    return true;
  }
  bool end_object() override {
    Value object = MakeDict(budget_, std::move(levels_.back().members));
    levels_.pop_back();
    return Add(std::move(object));
  }
  bool end_array() override {
    Value list = MakeList(budget_, std::move(levels_.back().items));
    levels_.pop_back();
    return Add(std::move(list));
  }
  bool parse_error(size_t position, const std::string&, const Json::exception& error) override {
    Fail("not JSON: " + io::DescribeJsonError(text_, position, error.what()));
  }

 private:
  [[noreturn]] static void RefuseInteger() { Fail("JSON with an integer of more than 64 bits"); }

  bool Open(bool object) {
    if (levels_.size() >= kMaxNesting) Fail("JSON nested more than 64 deep");
    levels_.push_back({object, {}, {}, {}, 0});
    return true;
  }

  bool Add(Value value) {
    budget_.Step();
    if (levels_.empty()) {
      root_ = std::move(value);
    } else if (levels_.back().object) {
      levels_.back().members[levels_.back().current].second = std::move(value);
    } else {
      levels_.back().items.push_back(std::move(value));
    }
    return true;
  }

  Value MakeOwn(std::string value) {
    Text text{std::move(value), {}};
    if (source_ >= 0 && !text.bytes.empty()) text.runs.push_back({0, text.bytes.size(), source_, false});
    return MakeText(budget_, std::move(text));
  }

  std::string_view text_;
  int32_t source_;
  Budget& budget_;
  Value root_;
  std::vector<Level> levels_;
};

}  // namespace

Value ParseJson(std::string_view json, int32_t source, Budget& budget) {
  Builder builder(json, source, budget);
  Json::sax_parse(json.begin(), json.end(), &builder);  // errors are thrown
  return builder.Take();
}

Value* FindMember(Members& members, std::string_view key) {
  for (auto& [name, value] : members)
    if (name.text() && name.text()->bytes == key) return &value;
  return nullptr;
}

}  // namespace rung::text::jinja
