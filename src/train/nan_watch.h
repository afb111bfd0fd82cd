// Which operation a number that is not finite began with: the micro-batch is run once more, and what every
// operation writes is looked at.
#pragma once

#include <optional>
#include <string>

#include "base/files.h"
#include "model/forward.h"

namespace rung::train {

// `ex`, whose slab holds the step: as for Step with `learn`. Adds to the adapter's gradients. Nothing: every
// operation's output was finite.
std::optional<FiniteWatch::Finding> WatchMicroBatch(Exec& ex, const model::Backbone& backbone,
                                                    const model::Adapter& adapter, const data::Batch& batch,
                                                    uint64_t draw);
// "rungs.2.mlp.up.weight: 3 of 4096 numbers are not finite", of the first such parameter; empty: all are.
std::string DamagedParameter(const model::Adapter& adapter);
// How to go on in `out`, as the end of a sentence: from its newest checkpoint, or from one of those before
// it. Empty: there is none.
std::string WaysOn(const Path& out);

}  // namespace rung::train
