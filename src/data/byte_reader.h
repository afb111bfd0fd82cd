// Bytes of a source one by one and line by line, for the readers of rows.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "data/byte_source.h"

namespace rung::data {

// A failure of the source ends the bytes; the caller asks for it at the end.
class ByteReader {
 public:
  explicit ByteReader(std::unique_ptr<ByteSource> source);

  static constexpr int kEnd = -1;
  int Peek() { return begin_ < end_ || Fill() ? static_cast<unsigned char>(buffer_[begin_]) : kEnd; }
  int Get() {
    const int c = Peek();
    if (c != kEnd) ++begin_;
    return c;
  }
  // What is in the buffer, at least one byte unless it is the end; Skip takes bytes from it.
  std::string_view Ahead() { return Peek() == kEnd ? std::string_view() : View(); }
  void Skip(size_t count) { begin_ += count; }
  // The first bytes, as many as the buffer holds. Before anything is taken.
  std::string_view Head();

  // The bytes up to the next line end, which is taken and not given. At most `limit` bytes are kept, `size`
  // says how many there were. False: there is no line left.
  bool Line(size_t limit, std::string* line, uint64_t* size);

  const Status& status() const { return status_; }

 private:
  std::string_view View() const { return {buffer_.data() + begin_, end_ - begin_}; }
  bool Fill();

  std::unique_ptr<ByteSource> source_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
  Status status_ = Ok{};
  bool ended_ = false;
};

}  // namespace rung::data
