#include "io/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>
#include <utility>

#include "base/text.h"
#include "format/format.h"

namespace rung::io {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF fields are copied as they lie");

// Bounds that no real file comes near; they keep memory within a small multiple of the file's size.
constexpr uint64_t kMaxKeys = uint64_t{1} << 20;
constexpr uint64_t kMaxTensors = uint64_t{1} << 22;
constexpr uint64_t kMaxElements = uint64_t{1} << 26;  // of one metadata array; vocabularies have 2^18
constexpr uint64_t kMaxNameBytes = 65535;             // of a key (the format's own limit) or a tensor's name
constexpr uint64_t kMaxStringBytes = uint64_t{1} << 28;
constexpr uint64_t kMinAlignment = 8, kMaxAlignment = 65536, kDefaultAlignment = 32;
constexpr uint32_t kMaxDims = 4;
// The fewest bytes that one entry takes in the file: a count above remaining / this is a lie.
constexpr uint64_t kKeyBytes = 8 + 1 + 4 + 1;             // length, one letter, type, one byte of value
constexpr uint64_t kTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;  // length, one letter, rank, one dim, type, offset

enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
  kValueTypes
};
constexpr uint64_t kMinValueBytes[kValueTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};

struct NumberedType {
  int type;
  GgmlType info;
};
// The types that format/ does not read: their sizes are needed to find the data of the other tensors.
constexpr NumberedType kOtherTypes[] = {
    {9, {"q8_1", 32, 36}},     {15, {"q8_k", 256, 292}},   {16, {"iq2_xxs", 256, 66}},
    {17, {"iq2_xs", 256, 74}}, {18, {"iq3_xxs", 256, 98}}, {19, {"iq1_s", 256, 50}},
    {21, {"iq3_s", 256, 110}}, {22, {"iq2_s", 256, 82}},   {24, {"i8", 1, 1}},
    {25, {"i16", 1, 2}},       {26, {"i32", 1, 4}},        {27, {"i64", 1, 8}},
    {28, {"f64", 1, 8}},       {29, {"iq1_m", 256, 56}},   {34, {"tq1_0", 256, 54}},
    {35, {"tq2_0", 256, 66}},  {40, {"nvfp4", 64, 36}},    {41, {"q1_0", 128, 18}},
};

// Foreign text as it may stand in a message: quoted, escaped, not endless.
std::string Quoted(std::string_view text) {
  return text.size() <= 80 ? fmt::format("{:?}", text) : fmt::format("{:?}...", text.substr(0, 80));
}

bool Multiply(uint64_t a, uint64_t b, uint64_t* product) { return !__builtin_mul_overflow(a, b, product); }

// Where a tensor's bytes lie, relative to the data section.
struct DataSpan {
  uint64_t offset, bytes;
};

// Reads front to back. Every function returns false after setting `failure`.
class Parser {
 public:
  Parser(std::span<const std::byte> bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  bool ReadHeader(uint64_t* tensor_count, uint64_t* key_count);
  bool ReadMetadata(uint64_t key_count, std::map<std::string, GgufValue, std::less<>>* metadata,
                    std::map<std::string, GgufRawValue, std::less<>>* raw);
  bool ReadTensors(uint64_t tensor_count, std::vector<GgufTensor>* tensors,
                   std::map<std::string, size_t, std::less<>>* index);
  bool PlaceTensors(std::vector<GgufTensor>* tensors);

  const Failure& failure() const { return failure_; }

 private:
  uint64_t remaining() const { return bytes_.size() - position_; }

  bool Fail(std::string_view message) {
    failure_ = {fmt::format("{}: {}{}{}", name_, where_, where_.empty() ? "" : ": ", message),
                ExitCode::kBadInput};
    return false;
  }
  bool FailCutOff(std::string_view what) {
    return Fail(fmt::format("the file ends inside {} at byte {}: it is cut off or damaged, fetch it again",
                            what, position_));
  }

  template <class T>
  bool Read(T* value, std::string_view what) {
    if (remaining() < sizeof(T)) return FailCutOff(what);
    std::memcpy(value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return true;
  }

  bool ReadText(uint64_t limit, std::string_view what, std::string_view* text);
  bool ReadName(std::string_view what, std::string_view* name);
  bool ReadValue(uint32_t type, GgufValue* value);
  bool ReadArray(GgufValue* value);
  bool ReadTexts(uint64_t count, GgufValue* value);
  bool ReadBool(bool* value);
  template <class T>
  bool ReadNumber(GgufValue* value);
  template <class T>
  bool ReadNumbers(uint64_t count, GgufValue* value);
  bool SetAlignment(const GgufValue& value);
  bool ReadTensor(GgufTensor* tensor, DataSpan* data);
  bool MeasureTensor(const GgufTensor& tensor, uint64_t* bytes);
  bool CheckDisjoint(const std::vector<GgufTensor>& tensors);

  std::span<const std::byte> bytes_;
  const std::string& name_;
  uint64_t position_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  std::string where_;  // the key or tensor being read
  std::vector<DataSpan> data_;
  Failure failure_;
};

bool Parser::ReadHeader(uint64_t* tensor_count, uint64_t* key_count) {
  char magic[4];
  uint32_t version = 0;
  if (!Read(&magic, "the magic number")) return false;
  if (const std::string_view found(magic, 4); found != "GGUF") {
    if (found == "ggml" || found == "lmgg" || found == "ggmf" || found == "fmgg" || found == "ggjt" ||
        found == "tjgg")
      return Fail("a model file older than GGUF: convert the original model with a current llama.cpp");
    return Fail(fmt::format("not a GGUF file: it begins with {:?}, not \"GGUF\"", found));
  }
  if (!Read(&version, "the version")) return false;
  if (version == 1) return Fail("GGUF version 1 is not supported: convert the original model to version 3");
  if (version != 0 && (version & 0xffff) == 0)
    return Fail(
        "a big-endian GGUF file: only little-endian files are supported, convert it again for this machine");
  if (version != 2 && version != 3)
    return Fail(fmt::format("GGUF version {} is not supported, only 2 and 3 are", version));

  if (!Read(tensor_count, "the tensor count") || !Read(key_count, "the key count")) return false;
  if (*key_count > kMaxKeys || *key_count > remaining() / kKeyBytes)
    return Fail(fmt::format("{} metadata keys cannot fit into the {} bytes left: the file is damaged",
                            *key_count, remaining()));
  if (*tensor_count > kMaxTensors || *tensor_count > remaining() / kTensorBytes)
    return Fail(fmt::format("{} tensors cannot fit into the {} bytes left: the file is damaged",
                            *tensor_count, remaining()));
  return true;
}

bool Parser::ReadText(uint64_t limit, std::string_view what, std::string_view* text) {
  uint64_t length = 0;
  if (!Read(&length, what)) return false;
  if (length > limit)
    return Fail(
        fmt::format("{} of {} bytes at byte {}, at most {} are allowed", what, length, position_ - 8, limit));
  if (length > remaining()) return FailCutOff(what);
  *text = {reinterpret_cast<const char*>(bytes_.data() + position_), static_cast<size_t>(length)};
  position_ += length;
  return true;
}

bool Parser::ReadName(std::string_view what, std::string_view* name) {
  const uint64_t begin = position_;
  if (!ReadText(kMaxNameBytes, what, name)) return false;
  if (name->empty()) return Fail(fmt::format("{} at byte {} is empty", what, begin));
  if (!IsUtf8(*name)) return Fail(fmt::format("{} {} at byte {} is not UTF-8", what, Quoted(*name), begin));
  return true;
}

bool Parser::ReadBool(bool* value) {
  uint8_t byte = 0;
  if (!Read(&byte, "a bool")) return false;
  if (byte > 1) return Fail(fmt::format("a bool of value {} at byte {}", byte, position_ - 1));
  *value = byte != 0;
  return true;
}

template <class T>
bool Parser::ReadNumber(GgufValue* value) {
  T number = 0;
  if (!Read(&number, "a number")) return false;
  if constexpr (std::is_floating_point_v<T>) {
    *value = static_cast<double>(number);
  } else if constexpr (std::is_signed_v<T>) {
    *value = static_cast<int64_t>(number);
  } else {
    *value = static_cast<uint64_t>(number);
  }
  return true;
}

// The caller has checked that `count` numbers are there.
template <class T>
bool Parser::ReadNumbers(uint64_t count, GgufValue* value) {
  using Wide = std::conditional_t<std::is_floating_point_v<T>, double, int64_t>;
  std::vector<Wide> numbers(count);
  for (Wide& number : numbers) {
    T narrow;
    std::memcpy(&narrow, bytes_.data() + position_, sizeof(T));
    if constexpr (std::is_same_v<T, uint64_t>) {
      if (narrow > uint64_t{std::numeric_limits<int64_t>::max()})
        return Fail(fmt::format("array element {} at byte {} is above 2^63", narrow, position_));
    }
    position_ += sizeof(T);
    number = static_cast<Wide>(narrow);
  }
  *value = std::move(numbers);
  return true;
}

bool Parser::ReadTexts(uint64_t count, GgufValue* value) {
  std::vector<std::string> texts;
  texts.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    std::string_view text;
    if (!ReadText(kMaxStringBytes, "an array's string", &text)) return false;
    texts.emplace_back(text);
  }
  *value = std::move(texts);
  return true;
}

bool Parser::ReadArray(GgufValue* value) {
  uint32_t type = 0;
  uint64_t count = 0;
  if (!Read(&type, "an array's element type") || !Read(&count, "an array's length")) return false;
  if (type == kArray) return Fail("arrays of arrays are not supported");
  if (type >= kValueTypes)
    return Fail(fmt::format("unknown array element type {} at byte {}", type, position_ - 12));
  if (count > kMaxElements || count > remaining() / kMinValueBytes[type])
    return Fail(fmt::format(
        "an array of {} elements at byte {} cannot fit into the {} bytes left: the file is damaged", count,
        position_, remaining()));
  switch (type) {
    case kUint8:
      return ReadNumbers<uint8_t>(count, value);
    case kInt8:
      return ReadNumbers<int8_t>(count, value);
    case kUint16:
      return ReadNumbers<uint16_t>(count, value);
    case kInt16:
      return ReadNumbers<int16_t>(count, value);
    case kUint32:
      return ReadNumbers<uint32_t>(count, value);
    case kInt32:
      return ReadNumbers<int32_t>(count, value);
    case kFloat32:
      return ReadNumbers<float>(count, value);
    case kUint64:
      return ReadNumbers<uint64_t>(count, value);
    case kInt64:
      return ReadNumbers<int64_t>(count, value);
    case kFloat64:
      return ReadNumbers<double>(count, value);
    case kString:
      return ReadTexts(count, value);
    default: {  // kBool
      std::vector<int64_t> flags(count);
      for (int64_t& flag : flags) {
        bool set = false;
        if (!ReadBool(&set)) return false;
        flag = set;
      }
      *value = std::move(flags);
      return true;
    }
  }
}

bool Parser::ReadValue(uint32_t type, GgufValue* value) {
  switch (type) {
    case kUint8:
      return ReadNumber<uint8_t>(value);
    case kInt8:
      return ReadNumber<int8_t>(value);
    case kUint16:
      return ReadNumber<uint16_t>(value);
    case kInt16:
      return ReadNumber<int16_t>(value);
    case kUint32:
      return ReadNumber<uint32_t>(value);
    case kInt32:
      return ReadNumber<int32_t>(value);
    case kFloat32:
      return ReadNumber<float>(value);
    case kUint64:
      return ReadNumber<uint64_t>(value);
    case kInt64:
      return ReadNumber<int64_t>(value);
    case kFloat64:
      return ReadNumber<double>(value);
    case kBool: {
      bool set = false;
      if (!ReadBool(&set)) return false;
      *value = set;
      return true;
    }
    case kString: {
      std::string_view text;
      if (!ReadText(kMaxStringBytes, "a string", &text)) return false;
      *value = std::string(text);
      return true;
    }
    case kArray:
      return ReadArray(value);
    default:
      return Fail(fmt::format("unknown value type {} at byte {}", type, position_ - 4));
  }
}

bool Parser::SetAlignment(const GgufValue& value) {
  const uint64_t* alignment = std::get_if<uint64_t>(&value);
  if (!alignment) return Fail("must be an unsigned integer");
  if (!std::has_single_bit(*alignment) || *alignment < kMinAlignment || *alignment > kMaxAlignment)
    return Fail(
        fmt::format("{} is not a power of two from {} to {}", *alignment, kMinAlignment, kMaxAlignment));
  alignment_ = *alignment;
  return true;
}

bool Parser::ReadMetadata(uint64_t key_count, std::map<std::string, GgufValue, std::less<>>* metadata,
                          std::map<std::string, GgufRawValue, std::less<>>* raw) {
  for (uint64_t i = 0; i < key_count; ++i) {
    where_ = fmt::format("metadata key {} of {}", i + 1, key_count);
    std::string_view key;
    uint32_t type = 0;
    if (!ReadName("the key", &key)) return false;
    where_ = fmt::format("metadata key {}", Quoted(key));
    if (!Read(&type, "the value's type")) return false;
    auto [entry, fresh] = metadata->try_emplace(std::string(key));
    if (!fresh) return Fail("appears twice");
    const uint64_t begin = position_;
    if (!ReadValue(type, &entry->second)) return false;
    (*raw)[entry->first] = {type, bytes_.subspan(begin, position_ - begin)};
    if (key == "general.alignment" && !SetAlignment(entry->second)) return false;
  }
  where_.clear();
  return true;
}

// Elements and bytes both fit into 63 bits, whatever the file says.
bool Parser::MeasureTensor(const GgufTensor& tensor, uint64_t* bytes) {
  const std::optional<GgmlType> type = GgmlTypeOf(tensor.type);
  if (!type)
    return Fail(fmt::format("unknown or withdrawn ggml type {}: convert the model again", tensor.type));
  if (tensor.dims[0] % type->block != 0)
    return Fail(fmt::format("rows of {} numbers are not whole {} blocks of {}", tensor.dims[0], type->name,
                            type->block));
  uint64_t elements = 1;
  for (int64_t dim : tensor.dims) {
    if (!Multiply(elements, static_cast<uint64_t>(dim), &elements) || elements >> 63)
      return Fail(fmt::format("dimensions {} overflow", fmt::join(tensor.dims, " x ")));
  }
  if (!Multiply(elements / static_cast<uint64_t>(type->block), static_cast<uint64_t>(type->block_bytes),
                bytes) ||
      *bytes >> 63)
    return Fail(fmt::format("the size of {} {} numbers overflows", elements, type->name));
  return true;
}

bool Parser::ReadTensor(GgufTensor* tensor, DataSpan* data) {
  uint32_t rank = 0, type = 0;
  if (!Read(&rank, "the number of dimensions")) return false;
  if (rank < 1 || rank > kMaxDims)
    return Fail(fmt::format("{} dimensions at byte {}, 1 to {} are allowed", rank, position_ - 4, kMaxDims));
  for (uint32_t i = 0; i < rank; ++i) {
    uint64_t dim = 0;
    if (!Read(&dim, "the dimensions")) return false;
    if (dim == 0) return Fail(fmt::format("dimension {} is 0", i));
    if (dim >> 63) return Fail(fmt::format("dimension {} is {}", i, dim));
    tensor->dims.push_back(static_cast<int64_t>(dim));
  }
  if (!Read(&type, "the type") || !Read(&data->offset, "the offset")) return false;
  if (type > uint32_t{std::numeric_limits<int>::max()})
    return Fail(fmt::format("unknown ggml type {}", type));
  tensor->type = static_cast<int>(type);
  if (!MeasureTensor(*tensor, &data->bytes)) return false;
  if (data->offset % alignment_ != 0)
    return Fail(fmt::format("offset {} is not a multiple of the alignment {}", data->offset, alignment_));
  return true;
}

bool Parser::ReadTensors(uint64_t tensor_count, std::vector<GgufTensor>* tensors,
                         std::map<std::string, size_t, std::less<>>* index) {
  for (uint64_t i = 0; i < tensor_count; ++i) {
    where_ = fmt::format("tensor {} of {}", i + 1, tensor_count);
    std::string_view name;
    if (!ReadName("the name", &name)) return false;
    where_ = fmt::format("tensor {}", Quoted(name));
    if (!index->try_emplace(std::string(name), tensors->size()).second) return Fail("appears twice");
    GgufTensor tensor;
    DataSpan data{};
    tensor.name = name;
    if (!ReadTensor(&tensor, &data)) return false;
    tensors->push_back(std::move(tensor));
    data_.push_back(data);
  }
  where_.clear();
  return true;
}

bool Parser::PlaceTensors(std::vector<GgufTensor>* tensors) {
  if (tensors->empty()) return true;  // a vocabulary alone: such files may end without padding
  const uint64_t begin = (position_ + alignment_ - 1) & ~(alignment_ - 1);
  const uint64_t room = begin <= bytes_.size() ? bytes_.size() - begin : 0;
  for (size_t i = 0; i < tensors->size(); ++i) {
    const DataSpan& data = data_[i];
    if (data.offset > room || data.bytes > room - data.offset) {
      where_ = fmt::format("tensor {}", Quoted((*tensors)[i].name));
      return Fail(
          fmt::format("{} bytes at offset {} of the data, which has {}: the file is cut off, fetch it again",
                      data.bytes, data.offset, room));
    }
    (*tensors)[i].data = bytes_.subspan(begin + data.offset, data.bytes);
  }
  return CheckDisjoint(*tensors);
}

bool Parser::CheckDisjoint(const std::vector<GgufTensor>& tensors) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return data_[a].offset < data_[b].offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    const size_t a = order[i - 1], b = order[i];
    if (data_[a].offset + data_[a].bytes > data_[b].offset)
      return Fail(fmt::format("tensors {} and {} overlap: the file is damaged", Quoted(tensors[a].name),
                              Quoted(tensors[b].name)));
  }
  return true;
}

}  // namespace

std::optional<GgmlType> GgmlTypeOf(int type) {
  format::Format ignored{};
  if (const format::Info* info = format::FromGguf(type, &ignored))
    return GgmlType{info->name, info->block, info->block_bytes};
  for (const NumberedType& other : kOtherTypes) {
    if (other.type == type) return other.info;
  }
  return std::nullopt;
}

Result<Gguf> Gguf::Parse(std::span<const std::byte> bytes, std::string name) {
  Gguf gguf;
  gguf.name_ = std::move(name);
  Parser parser(bytes, gguf.name_);
  uint64_t tensor_count = 0, key_count = 0;
  if (!parser.ReadHeader(&tensor_count, &key_count) ||
      !parser.ReadMetadata(key_count, &gguf.metadata_, &gguf.raw_metadata_) ||
      !parser.ReadTensors(tensor_count, &gguf.tensors_, &gguf.index_) || !parser.PlaceTensors(&gguf.tensors_))
    return parser.failure();
  return gguf;
}

const GgufTensor* Gguf::Find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

namespace {

template <class T>
const T* Get(const std::map<std::string, GgufValue, std::less<>>& metadata, std::string_view key) {
  const auto found = metadata.find(key);
  return found == metadata.end() ? nullptr : std::get_if<T>(&found->second);
}

}  // namespace

std::optional<int64_t> Gguf::GetInt(std::string_view key) const {
  if (const int64_t* value = Get<int64_t>(metadata_, key)) return *value;
  if (const bool* value = Get<bool>(metadata_, key)) return *value;
  const uint64_t* value = Get<uint64_t>(metadata_, key);
  if (!value || *value >> 63) return std::nullopt;
  return static_cast<int64_t>(*value);
}

std::optional<double> Gguf::GetFloat(std::string_view key) const {
  if (const double* value = Get<double>(metadata_, key)) return *value;
  if (const int64_t* value = Get<int64_t>(metadata_, key)) return static_cast<double>(*value);
  if (const uint64_t* value = Get<uint64_t>(metadata_, key)) return static_cast<double>(*value);
  return std::nullopt;
}

std::optional<bool> Gguf::GetBool(std::string_view key) const {
  const bool* value = Get<bool>(metadata_, key);
  return value ? std::optional<bool>(*value) : std::nullopt;
}

const std::string* Gguf::GetString(std::string_view key) const { return Get<std::string>(metadata_, key); }
const std::vector<std::string>* Gguf::GetStrings(std::string_view key) const {
  return Get<std::vector<std::string>>(metadata_, key);
}
const std::vector<int64_t>* Gguf::GetInts(std::string_view key) const {
  return Get<std::vector<int64_t>>(metadata_, key);
}
const std::vector<double>* Gguf::GetFloats(std::string_view key) const {
  return Get<std::vector<double>>(metadata_, key);
}

}  // namespace rung::io
