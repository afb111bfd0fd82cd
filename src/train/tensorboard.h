// TensorBoard's event files: scalars over steps, as `tensorboard --logdir OUT` shows them.
//
// A file is a sequence of TFRecords: length (8 bytes), masked CRC-32C of those (4), an Event message in the
// wire format of protocol buffers, masked CRC-32C of it (4); integers little-endian. Fields are those of
// tensorboard/compat/proto/{event,summary}.proto.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/append_file.h"

namespace rung::train {

// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78) of the bytes.
uint32_t Crc32c(std::string_view bytes);

// `message` framed as a TFRecord.
std::string TfRecord(std::string_view message);

struct Scalar {
  std::string_view tag;  // "train/loss"
  double value = 0.0;    // stored as f32; values that are not finite are kept
};

// Event messages; `wall_time` in seconds since 1970.
std::string VersionEvent(double wall_time);                     // what every file begins with
std::string SessionStartEvent(double wall_time, int64_t step);  // events from `step` on are void
std::string ScalarEvent(double wall_time, int64_t step, std::span<const Scalar> scalars);

// out/events.out.tfevents.<seconds>.<host>.<pid>: one file a process. Files sort by name in the order of
// their making, which is the order TensorBoard reads them in.
class EventFile {
 public:
  // `first_step`: the first that will be written. Where earlier files are there, events from it on are
  // declared void, as a resumed run does those steps again.
  static Result<EventFile> Create(const Path& out, int64_t first_step);

  Status Add(int64_t step, std::span<const Scalar> scalars);
  Status Sync() { return file_.Sync(); }
  const Path& path() const { return file_.path(); }

 private:
  explicit EventFile(AppendFile file) : file_(std::move(file)) {}
  AppendFile file_;
};

}  // namespace rung::train
