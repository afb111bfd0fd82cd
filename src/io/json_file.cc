#include "io/json_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/text.h"

namespace rung::io {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxValues = size_t{1} << 24;

// Builds the document itself, because nlohmann's own builder keeps the last of two equal keys and has no
// bounds.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(std::string_view text) : text_(text) {}

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t&) override { return Add(value); }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t&) override { return Fail("binary data"); }
  bool start_object(size_t) override { return Enter(Json::object()); }
  bool end_object() override { return Leave(); }
  bool start_array(size_t) override { return Enter(Json::array()); }
  bool end_array() override { return Leave(); }

  bool key(string_t& name) override {
    auto [slot, fresh] = open_.back()->get_ref<Json::object_t&>().try_emplace(std::move(name));
    if (!fresh) return Fail(fmt::format("key {:?} appears twice in one object", slot->first.substr(0, 80)));
    slot_ = &slot->second;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    error_ = fmt::format(":{}", DescribeJsonError(text_, position, error.what()));
    return false;
  }

  Json TakeDocument() { return std::move(document_); }
  const std::string& error() const { return error_; }  // to be put right behind the file's name

 private:
  bool Fail(std::string_view message) {
    error_ = fmt::format(": {}", message);
    return false;
  }

  bool Add(Json value) {
    if (++count_ > kMaxValues) return Fail(fmt::format("more than {} values", kMaxValues));
    if (open_.empty()) {
      slot_ = &document_;
    } else if (open_.back()->is_array()) {
      slot_ = &open_.back()->get_ref<Json::array_t&>().emplace_back();
    }  // in an object, key() has made the slot
    *slot_ = std::move(value);
    return true;
  }

  bool Enter(Json container) {
    if (open_.size() == kMaxDepth) return Fail(fmt::format("nested deeper than {} levels", kMaxDepth));
    if (!Add(std::move(container))) return false;
    open_.push_back(slot_);
    return true;
  }

  bool Leave() {
    open_.pop_back();
    return true;
  }

  std::string_view text_;
  Json document_;
  // Addresses stay good: a container does not grow while one of its elements is open.
  std::vector<Json*> open_;
  Json* slot_ = nullptr;
  size_t count_ = 0;
  std::string error_;
};

}  // namespace

std::string DescribeJsonError(std::string_view text, size_t position, std::string_view what) {
  const std::string_view before = text.substr(0, position > 0 ? position - 1 : 0);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t newline = before.rfind('\n');
  const size_t column = newline == std::string_view::npos ? before.size() + 1 : before.size() - newline;
  // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while ..."
  if (const size_t place = what.find(" column "); place != std::string_view::npos) {
    if (const size_t colon = what.find(": ", place); colon != std::string_view::npos)
      what.remove_prefix(colon + 2);
  }
  return fmt::format("{}:{}: {}", line, column, Printable(what.substr(0, 200)));
}

Result<Json> ParseJson(std::string_view text, const std::string& name) {
  // nlohmann takes it for the end of the text and would let anything follow.
  if (const size_t zero = text.find('\0'); zero != text.npos)
    return Failure{fmt::format("{}: a zero byte at byte {}", name, zero)};
  Builder builder(text);
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    return Failure{name + builder.error()};
  }
  return builder.TakeDocument();
}

Result<Json> ReadJson(const Path& path, uint64_t limit) {
  Result<std::string> text = ReadTextFile(path, limit);
  if (!text.ok()) return text.failure();
  return ParseJson(text.value(), path.string());
}

}  // namespace rung::io
