#include "train/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <cstring>
#include <utility>

#include "train/run_lock.h"

namespace rung::train {
namespace {

constexpr std::string_view kPrefix = "events.out.tfevents.";

// Wire types of protocol buffers (protobuf.dev/programming-guides/encoding).
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0u);
    table[i] = crc;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = MakeCrcTable();

// TFRecord stores sums rotated and shifted, so that a sum over data with sums in it stays sound.
uint32_t MaskedCrc(std::string_view bytes) {
  const uint32_t crc = Crc32c(bytes);
  return std::rotr(crc, 15) + 0xa282ead8u;
}

template <class T>
void PutFixed(T value, std::string* out) {
  for (size_t i = 0; i < sizeof(T); ++i) out->push_back(static_cast<char>((value >> (8 * i)) & 0xff));
}

void PutVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>((value & 0x7f) | 0x80));
  out->push_back(static_cast<char>(value));
}

void PutKey(uint32_t field, WireType type, std::string* out) { PutVarint(field << 3 | type, out); }

void PutBytes(uint32_t field, std::string_view bytes, std::string* out) {
  PutKey(field, kBytes, out);
  PutVarint(bytes.size(), out);
  out->append(bytes);
}

// message Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5;
//                 SessionLog session_log = 7; }
std::string EventHead(double wall_time, int64_t step) {
  std::string event;
  PutKey(1, kFixed64, &event);
  PutFixed(std::bit_cast<uint64_t>(wall_time), &event);
  if (step != 0) {
    PutKey(2, kVarint, &event);
    PutVarint(static_cast<uint64_t>(step), &event);
  }
  return event;
}

double Now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// The largest <seconds> of the event files in `out`; -1 when there are none.
int64_t NewestSeconds(const Path& out) {
  int64_t newest = -1;
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator(out, error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    int64_t seconds = 0;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), seconds);
    newest = std::max(newest, seconds);
  }
  return newest;
}

}  // namespace

uint32_t Crc32c(std::string_view bytes) {
  uint32_t crc = 0xffffffffu;
  for (const char c : bytes) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<unsigned char>(c)) & 0xff];
  return crc ^ 0xffffffffu;
}

std::string TfRecord(std::string_view message) {
  std::string record;
  PutFixed(static_cast<uint64_t>(message.size()), &record);
  PutFixed(MaskedCrc(record), &record);
  record.append(message);
  PutFixed(MaskedCrc(message), &record);
  return record;
}

std::string VersionEvent(double wall_time) {
  std::string event = EventHead(wall_time, 0);
  PutBytes(3, "brain.Event:2", &event);
  return event;
}

std::string SessionStartEvent(double wall_time, int64_t step) {
  std::string log;  // message SessionLog { enum SessionStatus { START = 1; } SessionStatus status = 1; }
  PutKey(1, kVarint, &log);
  PutVarint(1, &log);
  std::string event = EventHead(wall_time, step);
  PutBytes(7, log, &event);
  return event;
}

std::string ScalarEvent(double wall_time, int64_t step, std::span<const Scalar> scalars) {
  // message Summary { message Value { string tag = 1; float simple_value = 2; } repeated Value value = 1; }
  std::string summary;
  for (const Scalar& scalar : scalars) {
    std::string value;
    PutBytes(1, scalar.tag, &value);
    PutKey(2, kFixed32, &value);
    PutFixed(std::bit_cast<uint32_t>(static_cast<float>(scalar.value)), &value);
    PutBytes(1, value, &summary);
  }
  std::string event = EventHead(wall_time, step);
  PutBytes(5, summary, &event);
  return event;
}

Result<EventFile> EventFile::Create(const Path& out, int64_t first_step) {
  const int64_t newest = NewestSeconds(out);
  const int64_t seconds = std::max(static_cast<int64_t>(Now()), newest + 1);
  std::string host = HostName();
  std::replace(host.begin(), host.end(), '/', '_');
  const Path path = out / fmt::format("{}{:010}.{}.{}", kPrefix, seconds, host, ::getpid());
  Result<AppendFile> file = AppendFile::Open(path);
  if (!file.ok()) return file.failure();
  EventFile events(std::move(file).value());
  std::string head = TfRecord(VersionEvent(Now()));
  if (newest >= 0) head += TfRecord(SessionStartEvent(Now(), first_step));
  if (Status written = events.file_.Append(head); !written.ok()) return written.failure();
  return events;
}

Status EventFile::Add(int64_t step, std::span<const Scalar> scalars) {
  return file_.Append(TfRecord(ScalarEvent(Now(), step, scalars)));
}

}  // namespace rung::train
