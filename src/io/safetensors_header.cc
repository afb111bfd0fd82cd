#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "io/json_file.h"
#include "io/safetensors.h"

namespace rung::io {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxRank = 16;  // a shape of millions of ones would cost more memory than the header
constexpr std::string_view kMetadataName = "__metadata__";

std::string Quoted(std::string_view text) {
  return text.size() <= 80 ? fmt::format("{:?}", text) : fmt::format("{:?}...", text.substr(0, 80));
}

// Accepts exactly
//   { "__metadata__": {text: text}, name: {"dtype": text, "shape": [n, ...], "data_offsets": [begin, end]},
//   ... }
// and stops at the first token outside of it, so neither depth nor memory depends on what else a header
// holds.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  HeaderReader(std::string_view text, std::map<std::string, std::string>* metadata)
      : text_(text), metadata_(metadata) {}

  // Some writers state the lack of metadata; the reference implementation reads that as none.
  bool null() override { return (at_ == At::kRoot && name_ == kMetadataName) || Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("true or false"); }
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected("the number " + text);
  }
  bool number_integer(number_integer_t value) override {
    return Unexpected(fmt::format("the number {}", value));
  }
  bool binary(binary_t&) override { return Unexpected("binary data"); }
  bool number_unsigned(number_unsigned_t value) override;
  bool string(string_t& value) override;
  bool start_object(size_t) override;
  bool key(string_t& name) override;
  bool end_object() override;
  bool start_array(size_t) override;
  bool end_array() override;

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    return Fail("JSON at " + DescribeJsonError(text_, position, error.what()));
  }

  std::vector<TensorEntry>& entries() { return entries_; }
  const std::string& error() const { return error_; }

 private:
  enum class At { kStart, kRoot, kTensor, kMetadata, kShape, kOffsets };
  enum class Field { kNone, kDtype, kShape, kOffsets };

  bool Fail(std::string message) {
    error_ = std::move(message);
    return false;
  }
  bool Unexpected(std::string_view what) {
    if (at_ == At::kStart) return Fail(fmt::format("{} where the header's object should begin", what));
    if (at_ == At::kRoot) return Fail(fmt::format("{}: {} where an object should be", Quoted(name_), what));
    const std::string_view field = field_ == Field::kDtype     ? "dtype"
                                   : field_ == Field::kShape   ? "shape"
                                   : field_ == Field::kOffsets ? "data_offsets"
                                                               : std::string_view(key_);
    return Fail(fmt::format("{}: unexpected {} as {}", Quoted(name_), what, Quoted(field)));
  }

  std::string_view text_;
  std::map<std::string, std::string>* metadata_;
  At at_ = At::kStart;
  Field field_ = Field::kNone;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
  std::string name_, key_;  // the tensor, and the key within it or the metadata
  std::vector<uint64_t> offsets_;
  TensorEntry entry_;
  std::vector<TensorEntry> entries_;
  std::unordered_set<std::string> seen_;
  std::string error_;
};

bool HeaderReader::start_object(size_t) {
  if (at_ == At::kStart) {
    at_ = At::kRoot;
    return true;
  }
  if (at_ != At::kRoot) return Unexpected("object");
  at_ = name_ == kMetadataName ? At::kMetadata : At::kTensor;
  entry_ = {};
  entry_.name = name_;
  field_ = Field::kNone;
  has_dtype_ = has_shape_ = has_offsets_ = false;
  return true;
}

bool HeaderReader::key(string_t& name) {
  if (at_ == At::kRoot) {
    name_ = std::move(name);
    return seen_.insert(name_).second || Fail(fmt::format("{} appears twice", Quoted(name_)));
  }
  key_ = std::move(name);
  if (at_ == At::kMetadata) return true;
  field_ = key_ == "dtype"          ? Field::kDtype
           : key_ == "shape"        ? Field::kShape
           : key_ == "data_offsets" ? Field::kOffsets
                                    : Field::kNone;
  if (field_ == Field::kNone) return Fail(fmt::format("{}: unknown key {}", Quoted(name_), Quoted(key_)));
  bool& has = field_ == Field::kDtype ? has_dtype_ : field_ == Field::kShape ? has_shape_ : has_offsets_;
  if (std::exchange(has, true)) return Fail(fmt::format("{}: {} appears twice", Quoted(name_), Quoted(key_)));
  return true;
}

bool HeaderReader::string(string_t& value) {
  if (at_ == At::kMetadata) {
    if (metadata_ && !metadata_->try_emplace(key_, std::move(value)).second)
      return Fail(fmt::format("{}: {} appears twice", Quoted(name_), Quoted(key_)));
    return true;
  }
  if (at_ != At::kTensor || field_ != Field::kDtype) return Unexpected("text");
  entry_.dtype = std::move(value);
  return true;
}

bool HeaderReader::start_array(size_t) {
  if (at_ != At::kTensor || (field_ != Field::kShape && field_ != Field::kOffsets))
    return Unexpected("array");
  at_ = field_ == Field::kShape ? At::kShape : At::kOffsets;
  offsets_.clear();
  return true;
}

bool HeaderReader::number_unsigned(number_unsigned_t value) {
  if (at_ == At::kShape) {
    if (value >> 63) return Fail(fmt::format("{}: a dimension of {}", Quoted(name_), value));
    if (entry_.shape.size() == kMaxRank)
      return Fail(fmt::format("{}: more than {} dimensions", Quoted(name_), kMaxRank));
    entry_.shape.push_back(static_cast<int64_t>(value));
    return true;
  }
  if (at_ == At::kOffsets && offsets_.size() < 2) {
    offsets_.push_back(value);
    return true;
  }
  return Unexpected(fmt::format("the number {}", value));
}

bool HeaderReader::end_array() {
  if (at_ == At::kOffsets) {
    if (offsets_.size() != 2) return Fail(fmt::format("{}: data_offsets needs two numbers", Quoted(name_)));
    if (offsets_[0] > offsets_[1])
      return Fail(
          fmt::format("{}: data_offsets [{}, {}] run backwards", Quoted(name_), offsets_[0], offsets_[1]));
    entry_.offset = offsets_[0];
    entry_.bytes = offsets_[1] - offsets_[0];
  }
  at_ = At::kTensor;
  return true;
}

bool HeaderReader::end_object() {
  if (at_ == At::kTensor) {
    if (!has_dtype_ || !has_shape_ || !has_offsets_)
      return Fail(fmt::format("{}: {} is missing", Quoted(name_),
                              !has_dtype_   ? "dtype"
                              : !has_shape_ ? "shape"
                                            : "data_offsets"));
    entries_.push_back(std::move(entry_));
  }
  at_ = At::kRoot;
  return true;
}

// Empty when the entry's bytes are what its dtype and shape need.
std::string CheckSize(const TensorEntry& entry) {
  const int bits = BitsOfDtype(entry.dtype);
  if (bits == 0) return fmt::format("unknown dtype {}", Quoted(entry.dtype));
  uint64_t total = static_cast<uint64_t>(bits);
  // A zero dimension is legal and must not hide an overflow of the others: what it multiplies is 0 anyway.
  if (std::find(entry.shape.begin(), entry.shape.end(), 0) != entry.shape.end()) total = 0;
  for (int64_t dim : entry.shape) {
    if (__builtin_mul_overflow(total, static_cast<uint64_t>(dim), &total))
      return fmt::format("shape [{}] overflows", fmt::join(entry.shape, ", "));
  }
  if (total % 8 != 0)
    return fmt::format("shape [{}] of {} is no whole number of bytes", fmt::join(entry.shape, ", "),
                       entry.dtype);
  if (total / 8 != entry.bytes)
    return fmt::format("shape [{}] of {} needs {} bytes, data_offsets span {}", fmt::join(entry.shape, ", "),
                       entry.dtype, total / 8, entry.bytes);
  return {};
}

}  // namespace

int BitsOfDtype(std::string_view dtype) {
  constexpr std::pair<std::string_view, int> kBits[] = {
      {"F32", 32},        {"BF16", 16}, {"F16", 16},    {"F64", 64},    {"I8", 8},      {"U8", 8},
      {"I16", 16},        {"U16", 16},  {"I32", 32},    {"U32", 32},    {"I64", 64},    {"U64", 64},
      {"BOOL", 8},        {"C64", 64},  {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
      {"F8_E5M2FNUZ", 8}, {"F4", 4},    {"F6_E2M3", 6}, {"F6_E3M2", 6}};
  for (const auto& [name, bits] : kBits) {
    if (name == dtype) return bits;
  }
  return 0;
}

Result<std::vector<TensorEntry>> ParseSafetensorsHeader(std::string_view header, uint64_t file_bytes,
                                                        const std::string& name,
                                                        std::map<std::string, std::string>* metadata) {
  // The format asks for the brace; nlohmann alone would accept a byte order mark before it.
  if (header.empty() || header[0] != '{')
    return Failure{fmt::format("{}: the header does not begin with '{{'", name)};
  if (file_bytes < kSafetensorsPrefix || file_bytes - kSafetensorsPrefix < header.size())
    return Failure{fmt::format("{}: the header of {} bytes does not fit into the file", name, header.size())};
  // nlohmann takes it for the end of the text and would let anything follow.
  if (const size_t zero = header.find('\0'); zero != header.npos)
    return Failure{fmt::format("{}: header: a zero byte at byte {}", name, kSafetensorsPrefix + zero)};
  HeaderReader reader(header, metadata);
  if (!Json::sax_parse(header.begin(), header.end(), &reader))
    return Failure{fmt::format("{}: header: {}", name, reader.error())};

  std::vector<TensorEntry> entries = std::move(reader.entries());
  // By end as well: an empty tensor shares its offset with the one that follows.
  std::stable_sort(entries.begin(), entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  const uint64_t begin = kSafetensorsPrefix + header.size();
  uint64_t end = 0;
  for (TensorEntry& entry : entries) {
    const auto fail = [&](std::string_view what) {
      return Failure{fmt::format("{}: tensor {}: {}", name, Quoted(entry.name), what)};
    };
    if (const std::string error = CheckSize(entry); !error.empty()) return fail(error);
    if (entry.offset != end)
      return fail(fmt::format("its data begin at {}, the data before it end at {}: {}", entry.offset, end,
                              entry.offset < end ? "they overlap" : "there is a hole"));
    if (entry.bytes > file_bytes - begin - end)
      return fail(
          fmt::format("its data end at {}, the file has {} bytes of data: it is cut off, fetch it again",
                      entry.offset + entry.bytes, file_bytes - begin));
    end += entry.bytes;
    entry.offset += begin;
  }
  if (end != file_bytes - begin)
    return Failure{
        fmt::format("{}: {} bytes behind the last tensor belong to none", name, file_bytes - begin - end)};
  return entries;
}

}  // namespace rung::io
