#include "io/gguf_writer.h"

#include <fmt/format.h>

#include <set>

#include "base/text.h"

namespace rung::io {
namespace {

constexpr uint64_t kAlignment = 32;  // what readers assume when general.alignment is absent
constexpr uint32_t kVersion = 3;
constexpr size_t kLongestName = 63, kMostDims = 4;  // ggml's

uint64_t Aligned(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// The header's numbers are little-endian, as is every machine this is built for.
template <class T>
void Put(std::string* header, T value) {
  header->append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void PutText(std::string* header, const std::string& text) {
  Put(header, uint64_t{text.size()});
  *header += text;
}

void PutElement(std::string* header, const std::string& text) { PutText(header, text); }
void PutElement(std::string* header, bool truth) { Put(header, static_cast<uint8_t>(truth)); }
template <class T>
void PutElement(std::string* header, T number) {
  Put(header, number);
}

// `kind`: the number of the elements' kind.
template <class T>
void PutArray(std::string* header, uint32_t kind, const std::vector<T>& values) {
  Put(header, uint32_t{9});
  Put(header, kind);
  Put(header, uint64_t{values.size()});
  for (size_t i = 0; i < values.size(); ++i) PutElement(header, static_cast<const T&>(values[i]));
}

// A value with the number of its kind before it.
void PutField(std::string* header, const GgufField& field) {
  if (const auto* number = std::get_if<uint32_t>(&field)) {
    Put(header, uint32_t{4});
    Put(header, *number);
  } else if (const auto* real = std::get_if<float>(&field)) {
    Put(header, uint32_t{6});
    Put(header, *real);
  } else if (const auto* truth = std::get_if<bool>(&field)) {
    Put(header, uint32_t{7});
    Put(header, static_cast<uint8_t>(*truth));
  } else if (const auto* text = std::get_if<std::string>(&field)) {
    Put(header, uint32_t{8});
    PutText(header, *text);
  } else if (const auto* texts = std::get_if<std::vector<std::string>>(&field)) {
    PutArray(header, 8, *texts);
  } else if (const auto* reals = std::get_if<std::vector<float>>(&field)) {
    PutArray(header, 6, *reals);
  } else if (const auto* truths = std::get_if<std::vector<bool>>(&field)) {
    PutArray(header, 7, *truths);
  } else if (const auto* raw = std::get_if<GgufRawValue>(&field)) {
    Put(header, raw->type);
    header->append(reinterpret_cast<const char*>(raw->bytes.data()), raw->bytes.size());
  } else {
    PutArray(header, 5, std::get<std::vector<int32_t>>(field));
  }
}

// Bytes of a tensor; a failure for what no reader takes.
Result<uint64_t> BytesOf(const GgufLayout& tensor) {
  const std::optional<GgmlType> type = GgmlTypeOf(tensor.type);
  const auto refuse = [&](const char* why) {
    return Failure{fmt::format("tensor {:?}: {}", tensor.name, why), ExitCode::kFailed};
  };
  if (tensor.name.empty() || tensor.name.size() > kLongestName) return refuse("names have 1 to 63 bytes");
  if (!type) return refuse("no such ggml type");
  if (tensor.dims.empty() || tensor.dims.size() > kMostDims) return refuse("1 to 4 dimensions are possible");
  unsigned __int128 count = 1;
  for (const int64_t dim : tensor.dims) {
    if (dim <= 0) return refuse("dimensions must be positive");
    count *= static_cast<unsigned __int128>(dim);
    if (count >> 56) return refuse("too large");
  }
  if (tensor.dims[0] % type->block != 0) return refuse("rows are not whole blocks of its type");
  return static_cast<uint64_t>(count) / static_cast<uint64_t>(type->block) *
         static_cast<uint64_t>(type->block_bytes);
}

struct Header {
  std::string bytes;
  std::vector<std::pair<uint64_t, uint64_t>> places;  // of the tensors: begin within the data, and bytes
  uint64_t data_bytes = 0;
};

Result<Header> HeaderOf(const Path& path, const GgufFields& fields, const std::vector<GgufLayout>& tensors) {
  const auto refuse = [&](const std::string& why) {
    return Failure{fmt::format("{}: {}", path.string(), why), ExitCode::kFailed};
  };
  std::set<std::string> names;
  Header result;
  std::string& header = result.bytes;
  header = "GGUF";
  Put(&header, kVersion);
  Put(&header, uint64_t{tensors.size()});
  Put(&header, uint64_t{fields.size()});
  for (const auto& [key, value] : fields) {
    if (!names.insert(key).second) return refuse(fmt::format("key {:?} is given twice", key));
    PutText(&header, key);
    PutField(&header, value);
  }
  names.clear();
  uint64_t& at = result.data_bytes;
  for (const GgufLayout& tensor : tensors) {
    Result<uint64_t> bytes = BytesOf(tensor);
    if (!bytes.ok()) return refuse(bytes.failure().message);
    if (!names.insert(tensor.name).second)
      return refuse(fmt::format("tensor {:?} is given twice", tensor.name));
    PutText(&header, tensor.name);
    Put(&header, static_cast<uint32_t>(tensor.dims.size()));
    for (const int64_t dim : tensor.dims) Put(&header, static_cast<uint64_t>(dim));
    Put(&header, static_cast<uint32_t>(tensor.type));
    Put(&header, at);
    result.places.emplace_back(at, bytes.value());
    at += Aligned(bytes.value());
  }
  header.resize(Aligned(header.size()), '\0');
  return result;
}

}  // namespace

Result<uint64_t> GgufWriter::PlannedBytes(const Path& path, const GgufFields& fields,
                                          const std::vector<GgufLayout>& tensors) {
  const Result<Header> header = HeaderOf(path, fields, tensors);
  if (!header.ok()) return header.failure();
  return header.value().bytes.size() + header.value().data_bytes;
}

Result<GgufWriter> GgufWriter::Create(const Path& path, const GgufFields& fields,
                                      const std::vector<GgufLayout>& tensors) {
  const Result<Header> made = HeaderOf(path, fields, tensors);
  if (!made.ok()) return made.failure();
  const Header& header = made.value();
  Result<AtomicFile> created = AtomicFile::Create(path);
  if (!created.ok()) return created.failure();
  GgufWriter writer(std::move(created).value());
  writer.data_begin_ = header.bytes.size();
  writer.data_bytes_ = header.data_bytes;
  for (const auto& [begin, bytes] : header.places) writer.tensors_.push_back({begin, bytes});
  if (Status wrote = writer.file_.WriteAt(0, std::as_bytes(std::span(header.bytes))); !wrote.ok()) {
    return wrote.failure();
  }
  return writer;
}

Status GgufWriter::Write(size_t tensor, uint64_t begin, std::span<const std::byte> bytes) {
  RUNG_CHECK(tensor < tensors_.size(), "gguf: no such tensor");
  const Placed& placed = tensors_[tensor];
  RUNG_CHECK(begin <= placed.bytes && bytes.size() <= placed.bytes - begin, "gguf: beyond the tensor's end");
  return file_.WriteAt(data_begin_ + placed.begin + begin, bytes);
}

Status GgufWriter::Commit() {
  // Padding between tensors is what was never written; behind the last one the file must be made longer.
  if (!tensors_.empty()) {
    const uint64_t end = tensors_.back().begin + tensors_.back().bytes;
    const std::vector<std::byte> padding(static_cast<size_t>(data_bytes_ - end));
    if (Status wrote = file_.WriteAt(data_begin_ + end, padding); !wrote.ok()) return wrote;
  }
  return file_.Commit();
}

}  // namespace rung::io
