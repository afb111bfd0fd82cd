// The run's record: one JSON object a line in out/train_log.jsonl.
#pragma once

#include <cstdio>
#include <memory>

#include "train/run.h"

namespace rung::train {

class RunLog {
 public:
  explicit RunLog(const Path& out);  // appends; throws Error when the file cannot be opened
  void Write(const StepReport& step);
  void Write(const EvalReport& eval);

 private:
  void Line(const std::string& text);
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace rung::train
