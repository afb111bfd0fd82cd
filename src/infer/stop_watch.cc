#include "infer/stop_watch.h"

#include <algorithm>
#include <string_view>

namespace rung::infer {

std::string StopWatch::Push(const std::string& text, bool* stopped) {
  held_ += text;
  size_t cut = std::string::npos;
  for (const std::string& stop : stops_) {
    if (!stop.empty()) cut = std::min(cut, held_.find(stop));
  }
  *stopped = cut != std::string::npos;
  if (*stopped) return held_.substr(0, cut);
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size(), held_.size()); n > keep; --n) {
      if (held_.ends_with(std::string_view(stop).substr(0, n))) keep = n;
    }
  }
  std::string certain = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return certain;
}

}  // namespace rung::infer
