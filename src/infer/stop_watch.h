// Finds stop texts in text that arrives in pieces.
#pragma once

#include <string>
#include <vector>

namespace rung::infer {

class StopWatch {
 public:
  // Empty stop texts are ignored. `stops` outlives the watch.
  explicit StopWatch(const std::vector<std::string>& stops) : stops_(stops) {}

  // Takes new text; returns what is certain: what may still become a stop text is held back. `*stopped` is
  // set when a stop text is complete; what came before it is then the last certain text.
  std::string Push(const std::string& text, bool* stopped);
  // What was held back.
  std::string Rest() { return std::move(held_); }

 private:
  const std::vector<std::string>& stops_;
  std::string held_;
};

}  // namespace rung::infer
