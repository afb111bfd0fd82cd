// The outcome of reading foreign bytes: a value, or one message saying what is wrong and where.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "base/error.h"

namespace rung {

struct Failure {
  std::string message;  // "what: where: what to do", without a trailing newline
  ExitCode code = ExitCode::kBadInput;
};

// What was asked for is wrong, not what was read.
inline Failure UsageFailure(std::string message) { return {std::move(message), ExitCode::kUsage}; }

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}              // implicit: `return value;`
  Result(Failure failure) : failure_(std::move(failure)) {}  // implicit: `return Failure{...};`

  bool ok() const { return value_.has_value(); }
  const T& value() const& {
    RUNG_CHECK(ok(), "value() of a failed Result");
    return *value_;
  }
  T&& value() && {
    RUNG_CHECK(ok(), "value() of a failed Result");
    return std::move(*value_);
  }
  const Failure& failure() const {
    RUNG_CHECK(!ok(), "failure() of a good Result");
    return failure_;
  }

  // For callers that cannot go on without the value.
  T OrThrow() && {
    if (!ok()) throw Error(failure_.code, failure_.message);
    return std::move(*value_);
  }

 private:
  std::optional<T> value_;
  Failure failure_;
};

// A Result without a value: `return Ok{};`
struct Ok {};
using Status = Result<Ok>;

}  // namespace rung
