#include "data/byte_source.h"

#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

namespace rung::data {
namespace {

using namespace std::string_view_literals;

constexpr size_t kChunk = size_t{256} << 10;
constexpr std::string_view kGzipMagic = "\x1F\x8B", kZstdMagic = "\x28\xB5\x2F\xFD"sv;

class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::string_view bytes) : bytes_(bytes) {}
  Result<size_t> Read(std::span<char> into) override {
    const size_t count = std::min(into.size(), bytes_.size());
    if (count > 0) std::memcpy(into.data(), bytes_.data(), count);
    bytes_.remove_prefix(count);
    return count;
  }

 private:
  std::string_view bytes_;
};

class FileSource final : public ByteSource {
 public:
  FileSource(RandomAccessFile file, uint64_t* taken) : file_(std::move(file)), taken_(taken) {}
  Result<size_t> Read(std::span<char> into) override {
    const auto count = static_cast<size_t>(std::min<uint64_t>(into.size(), file_.size() - offset_));
    if (count == 0) return size_t{0};
    if (Status read = file_.Read(offset_, std::as_writable_bytes(into.first(count))); !read.ok()) {
      return read.failure();
    }
    offset_ += count;
    if (taken_) *taken_ += count;
    return count;
  }

 private:
  RandomAccessFile file_;
  uint64_t* taken_;
  uint64_t offset_ = 0;
};

// A source whose first bytes were looked at, and are given again.
class HeadSource final : public ByteSource {
 public:
  HeadSource(std::string head, std::unique_ptr<ByteSource> rest)
      : head_(std::move(head)), rest_(std::move(rest)) {}
  Result<size_t> Read(std::span<char> into) override {
    if (at_ == head_.size()) return rest_->Read(into);
    const size_t count = head_.copy(into.data(), into.size(), at_);
    at_ += count;
    return count;
  }

 private:
  std::string head_;
  size_t at_ = 0;
  std::unique_ptr<ByteSource> rest_;
};

// What both unpackers share: a buffer of packed bytes.
class PackedSource : public ByteSource {
 public:
  PackedSource(std::unique_ptr<ByteSource> packed, std::string name)
      : packed_(std::move(packed)), name_(std::move(name)), buffer_(kChunk) {}

 protected:
  // False at the end of the packed bytes.
  Result<bool> Refill() {
    if (begin_ < end_) return true;
    Result<size_t> read = packed_->Read(buffer_);
    if (!read.ok()) return read.failure();
    begin_ = 0;
    end_ = read.value();
    return end_ > 0;
  }
  Failure Broken(std::string_view what) const {
    return Failure{fmt::format("{}: the archive is damaged: {}: fetch it again", name_, what)};
  }

  std::unique_ptr<ByteSource> packed_;
  std::string name_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
  bool inside_ = true;  // a member or frame has begun and not ended
};

class GzipSource final : public PackedSource {
 public:
  GzipSource(std::unique_ptr<ByteSource> packed, std::string name)
      : PackedSource(std::move(packed), std::move(name)) {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    RUNG_CHECK(inflateInit2(&stream_, kGzipOnly) == Z_OK, "zlib refuses its own settings");
  }
  ~GzipSource() override { inflateEnd(&stream_); }

  Result<size_t> Read(std::span<char> into) override {
    for (;;) {
      Result<bool> more = Refill();
      if (!more.ok()) return more.failure();
      if (!more.value()) {
        if (inside_) return Broken("it ends early");
        return size_t{0};
      }
      if (!inside_) {
        // Members may follow one another; so may zeros, which fill up the blocks of a tape or an archive.
        while (begin_ < end_ && buffer_[begin_] == '\0') ++begin_;
        if (begin_ == end_) continue;
        inflateReset(&stream_);
        inside_ = true;
      }
      stream_.next_in = reinterpret_cast<Bytef*>(buffer_.data() + begin_);
      stream_.avail_in = static_cast<uInt>(end_ - begin_);
      stream_.next_out = reinterpret_cast<Bytef*>(into.data());
      stream_.avail_out = static_cast<uInt>(std::min(into.size(), kChunk));
      const uInt room = stream_.avail_out;
      const int code = inflate(&stream_, Z_NO_FLUSH);
      begin_ = end_ - stream_.avail_in;
      if (code == Z_STREAM_END) inside_ = false;
      if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR) {
        return Broken(stream_.msg ? stream_.msg : "zlib cannot read it");
      }
      if (const uInt made = room - stream_.avail_out; made > 0) return size_t{made};
    }
  }

 private:
  z_stream stream_{};
};

class ZstdSource final : public PackedSource {
 public:
  ZstdSource(std::unique_ptr<ByteSource> packed, std::string name)
      : PackedSource(std::move(packed), std::move(name)), context_(ZSTD_createDCtx()) {
    RUNG_CHECK(context_ != nullptr, "zstd gives no context");
  }
  ~ZstdSource() override { ZSTD_freeDCtx(context_); }

  Result<size_t> Read(std::span<char> into) override {
    for (;;) {
      Result<bool> more = Refill();
      if (!more.ok()) return more.failure();
      if (!more.value() && !pending_) {
        if (inside_) return Broken("it ends early");
        return size_t{0};
      }
      ZSTD_inBuffer in{buffer_.data() + begin_, end_ - begin_, 0};
      ZSTD_outBuffer out{into.data(), into.size(), 0};
      const size_t code = ZSTD_decompressStream(context_, &out, &in);
      if (ZSTD_isError(code)) return Broken(ZSTD_getErrorName(code));
      begin_ += in.pos;
      inside_ = code != 0;  // 0: a frame has ended and is flushed
      pending_ = inside_ && out.pos == out.size;
      if (out.pos > 0) return out.pos;
    }
  }

 private:
  ZSTD_DCtx* context_;
  bool pending_ = false;  // the context may hold output that did not fit
};

}  // namespace

std::unique_ptr<ByteSource> ByteSource::OfMemory(std::string_view bytes) {
  return std::make_unique<MemorySource>(bytes);
}

Result<std::unique_ptr<ByteSource>> ByteSource::Unpacked(std::unique_ptr<ByteSource> packed,
                                                         std::string name) {
  std::string head(kZstdMagic.size(), '\0');
  size_t have = 0;
  while (have < head.size()) {
    Result<size_t> read = packed->Read(std::span(head).subspan(have));
    if (!read.ok()) return read.failure();
    if (read.value() == 0) break;
    have += read.value();
  }
  head.resize(have);
  const bool gzip = head.starts_with(kGzipMagic), zstd = head == kZstdMagic;
  for (const auto& [extension, is] : {std::pair{".gz", gzip}, {".zst", zstd}}) {
    if (name.ends_with(extension) && !is) {
      return Failure{fmt::format(
          "{}: its first bytes are not those of a {} file: rename it or fetch it again", name, extension)};
    }
  }
  auto whole = std::make_unique<HeadSource>(std::move(head), std::move(packed));
  if (gzip)
    return std::unique_ptr<ByteSource>(std::make_unique<GzipSource>(std::move(whole), std::move(name)));
  if (zstd)
    return std::unique_ptr<ByteSource>(std::make_unique<ZstdSource>(std::move(whole), std::move(name)));
  return std::unique_ptr<ByteSource>(std::move(whole));
}

Result<std::unique_ptr<ByteSource>> ByteSource::Open(const Path& path, uint64_t* taken) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return Failure{fmt::format("{}: it is a directory: name a file in it", path.string())};
  }
  if (std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error)) {
    return Failure{fmt::format("{}: it is no regular file; data is read more than once: write it to a file",
                               path.string())};
  }
  Result<RandomAccessFile> file = RandomAccessFile::Open(path);
  if (!file.ok()) return file.failure();
  return Unpacked(std::make_unique<FileSource>(std::move(file).value(), taken), path.string());
}

}  // namespace rung::data
