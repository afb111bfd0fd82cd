#include "data/byte_reader.h"

#include <algorithm>
#include <span>

namespace rung::data {
namespace {
constexpr size_t kBuffer = size_t{256} << 10;
}  // namespace

ByteReader::ByteReader(std::unique_ptr<ByteSource> source) : source_(std::move(source)), buffer_(kBuffer) {}

bool ByteReader::Fill() {
  if (ended_) return false;
  Result<size_t> read = source_->Read(buffer_);
  begin_ = end_ = 0;
  if (!read.ok()) {
    status_ = read.failure();
  } else {
    end_ = read.value();
  }
  ended_ = end_ == 0;
  return !ended_;
}

std::string_view ByteReader::Head() {
  RUNG_CHECK(begin_ == 0, "the head is looked at first");
  constexpr size_t kHead = 4096;
  while (!ended_ && end_ < kHead) {
    Result<size_t> read = source_->Read(std::span(buffer_).subspan(end_));
    if (!read.ok()) status_ = read.failure();
    const size_t count = read.ok() ? read.value() : 0;
    ended_ = count == 0;
    end_ += count;
  }
  return View();
}

bool ByteReader::Line(size_t limit, std::string* line, uint64_t* size) {
  line->clear();
  *size = 0;
  bool any = false;
  for (std::string_view ahead = Ahead(); !ahead.empty(); ahead = Ahead()) {
    any = true;
    const size_t end = ahead.find('\n');
    const size_t count = std::min(end, ahead.size());
    line->append(ahead.substr(0, std::min(count, limit - std::min(limit, line->size()))));
    *size += count;
    Skip(end == ahead.npos ? count : count + 1);
    if (end != ahead.npos) break;
  }
  return any;
}

}  // namespace rung::data
