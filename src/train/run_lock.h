// Keeps a second run out of an output folder.
#pragma once

#include <optional>
#include <string>

#include "base/files.h"

namespace rung::train {

// A lock on <folder>/run.lock that the system ends with the process, however it ends: a file that a dead
// process left is no obstacle. The file says who holds it ("4711 hostname") and stays. Movable.
class RunLock {
 public:
  // Nothing: there is no such folder. Refuses with the number of the process that has it, a tenth of a second
  // later: it may be one that checks.
  static Result<std::optional<RunLock>> TakeIfThere(const Path& folder);

  // Fails where TakeIfThere would, unless the file of the lock cannot be made. Writes nothing.
  static Status Check(const Path& folder);

  RunLock(RunLock&& other) noexcept;
  RunLock& operator=(RunLock&&) = delete;
  ~RunLock();

  // Not empty where the file system has no locks: what the user must see to.
  const std::string& note() const { return note_; }

 private:
  explicit RunLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
  std::string note_;
};

// Of this machine; "localhost" where it has none.
std::string HostName();

}  // namespace rung::train
