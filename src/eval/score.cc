#include "eval/score.h"

#include <algorithm>

namespace rung::eval {

int64_t Accuracy::right() const {
  return std::count_if(answers.begin(), answers.end(), [](const Answer& answer) { return answer.right; });
}

double Accuracy::share() const {
  return answers.empty() ? 0.0 : static_cast<double>(right()) / static_cast<double>(answers.size());
}

}  // namespace rung::eval
