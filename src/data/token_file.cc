#include "data/token_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

namespace rung::data {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is little-endian");

constexpr std::string_view kMagic = "RUNGTOK1";
constexpr size_t kFlushWords = size_t{1} << 18;
constexpr uint64_t kChunk = uint64_t{1} << 20;
constexpr uint64_t kMaxNotes = uint64_t{64} << 20;

struct Header {
  std::array<char, 8> magic;
  uint64_t examples, words, notes;
  std::array<std::byte, 32> content;  // SHA-256 of words and offsets
  std::array<std::byte, 32> rest;     // SHA-256 of the fields above and the notes
};
static_assert(sizeof(Header) == 96, "as the format says");

// Offsets are aligned.
uint64_t OffsetsAt(uint64_t words) { return sizeof(Header) + (words * sizeof(TokenWord) + 7) / 8 * 8; }

std::array<std::byte, 32> SumOfRest(const Header& header, std::string_view notes) {
  io::Sha256 sum;
  sum.Add(std::as_bytes(std::span(&header, 1)).first(offsetof(Header, rest)));
  sum.Add(notes);
  return sum.Bytes();
}

// A shared lock for as long as it lives. Without locks on the file system it is none.
class InUse {
 public:
  explicit InUse(const Path& path) : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ >= 0) (void)::flock(descriptor_, LOCK_SH);
  }
  ~InUse() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;

 private:
  int descriptor_;
};

struct Mapping {
  explicit Mapping(const Path& path) : in_use(path) {}
  InUse in_use;
  std::optional<MappedFile> file;
};

Status AddRange(const RandomAccessFile& file, uint64_t begin, uint64_t size,
                const std::atomic<bool>* interrupt, io::Sha256* sum) {
  std::vector<std::byte> chunk;
  for (uint64_t at = 0; at < size; at += kChunk) {
    if (interrupt && interrupt->load()) return Failure{"interrupted", ExitCode::kInterrupted};
    chunk.resize(static_cast<size_t>(std::min(kChunk, size - at)));
    if (Status read = file.Read(begin + at, chunk); !read.ok()) return read.failure();
    sum->Add(chunk);
  }
  return Ok{};
}

// The header and notes, once all of the file is as they say. Read piece by piece: a mapping would count every
// page of it.
Status Check(const RandomAccessFile& file, const std::atomic<bool>* interrupt, Header* header,
             std::string* notes) {
  const Failure damaged{fmt::format("{}: a damaged file of tokens", file.path().string())};
  if (file.size() < sizeof(Header)) return damaged;
  if (Status read = file.Read(0, std::as_writable_bytes(std::span(header, 1))); !read.ok()) return read;
  const uint64_t most = file.size();
  if (std::string_view(header->magic.data(), header->magic.size()) != kMagic || header->words > most ||
      header->examples > most || header->notes > std::min(most, kMaxNotes)) {
    return damaged;
  }
  const uint64_t offsets = OffsetsAt(header->words), end = offsets + (header->examples + 1) * sizeof(int64_t);
  if (file.size() != end + header->notes) return damaged;
  notes->resize(static_cast<size_t>(header->notes));
  if (Status read = file.Read(end, std::as_writable_bytes(std::span(*notes))); !read.ok()) return read;
  if (SumOfRest(*header, *notes) != header->rest) return damaged;
  io::Sha256 sum;
  Status read = AddRange(file, sizeof(Header), header->words * sizeof(TokenWord), interrupt, &sum);
  if (read.ok()) read = AddRange(file, offsets, end - offsets, interrupt, &sum);
  if (!read.ok()) return read;
  if (sum.Bytes() != header->content) return damaged;
  return Ok{};
}

}  // namespace

Result<TokenFileWriter> TokenFileWriter::Create(const Path& path, const Path& temporary) {
  Result<AtomicFile> file = AtomicFile::Create(path, temporary);
  if (!file.ok()) return file.failure();
  TokenFileWriter writer(std::move(file).value());
  const Header empty{};  // its place
  if (Status wrote = writer.file_.Append(std::as_bytes(std::span(&empty, 1))); !wrote.ok())
    return wrote.failure();
  return writer;
}

Status TokenFileWriter::Flush() {
  const auto bytes = std::as_bytes(std::span(buffer_));
  sum_.Add(bytes);
  Status wrote = file_.Append(bytes);
  buffer_.clear();
  return wrote;
}

Status TokenFileWriter::Add(std::span<const TokenWord> words) {
  buffer_.insert(buffer_.end(), words.begin(), words.end());
  offsets_.push_back(offsets_.back() + static_cast<int64_t>(words.size()));
  return buffer_.size() < kFlushWords ? Status(Ok{}) : Flush();
}

Status TokenFileWriter::Commit(std::string_view notes) {
  Status wrote = Flush();
  const auto words = static_cast<uint64_t>(offsets_.back());
  const std::array<std::byte, 8> padding{};
  const uint64_t end = sizeof(Header) + words * sizeof(TokenWord);
  if (wrote.ok()) wrote = file_.Append(std::span(padding).first(static_cast<size_t>(OffsetsAt(words) - end)));
  const auto offsets = std::as_bytes(std::span(offsets_));
  sum_.Add(offsets);
  if (wrote.ok()) wrote = file_.Append(offsets);
  if (wrote.ok()) wrote = file_.Append(notes);
  Header header{};
  std::copy(kMagic.begin(), kMagic.end(), header.magic.begin());
  header.examples = offsets_.size() - 1;
  header.words = words;
  header.notes = notes.size();
  header.content = sum_.Bytes();
  header.rest = SumOfRest(header, notes);
  if (wrote.ok()) wrote = file_.WriteAt(0, std::as_bytes(std::span(&header, 1)));
  return wrote.ok() ? file_.Commit() : wrote;
}

Result<TokenFile> OpenTokenFile(const Path& path, const std::atomic<bool>* interrupt) {
  Header header{};
  TokenFile opened;
  auto owner = std::make_shared<Mapping>(path);
  {
    Result<RandomAccessFile> file = RandomAccessFile::Open(path);
    if (!file.ok()) return file.failure();
    Status checked = Check(file.value(), interrupt, &header, &opened.notes);
    if (!checked.ok()) return checked.failure();
  }
  Result<MappedFile> mapped = MappedFile::Open(path);
  if (!mapped.ok()) return mapped.failure();
  owner->file = std::move(mapped).value();
  const std::byte* bytes = owner->file->bytes().data();
  const std::span words(reinterpret_cast<const TokenWord*>(bytes + sizeof(Header)),
                        static_cast<size_t>(header.words));
  const std::span offsets(reinterpret_cast<const int64_t*>(bytes + OffsetsAt(header.words)),
                          static_cast<size_t>(header.examples + 1));
  bool right = offsets.front() == 0 && offsets.back() == static_cast<int64_t>(header.words);
  for (size_t i = 0; i + 1 < offsets.size(); ++i) right = right && offsets[i + 1] >= offsets[i] + 2;
  if (!right) return Failure{fmt::format("{}: a damaged file of tokens", path.string())};
  opened.examples = Examples(words, offsets, io::HexOf(header.content), 0, owner);
  return opened;
}

}  // namespace rung::data
