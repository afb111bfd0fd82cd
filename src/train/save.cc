// What a run writes of its work: checkpoints on the way, and the adapter at its end.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file_calls.h"
#include "model/adapter_file.h"
#include "train/nan_watch.h"
#include "train/trainer.h"

namespace rung::train {
namespace {

// Pauses between attempts of the last save, in seconds: doubling from the first to the longest, together at
// most as long as this. An interrupted run is soon killed by whoever asked it to end; a finished one may wait
// for someone to make room.
struct Patience {
  unsigned first, longest, total;
};
constexpr Patience kInterrupted{1, 4, 7}, kFinished{60, 600, 3600};

// False: interrupted meanwhile.
bool Wait(unsigned seconds, const std::atomic<bool>& interrupt) {
  for (unsigned s = 0; s < seconds; ++s) {
    if (interrupt.load()) return false;
    Files().sleep(1);
  }
  return true;
}

}  // namespace

RunState Trainer::State() const {
  RunState state;
  state.position = position_;
  state.skipped_steps = skipped_;
  state.skipped_in_row = skipped_in_row_;
  state.tokens = total_tokens_;
  state.seconds = earlier_seconds_ + SecondsSince(started_);
  state.evaluated_step = evaluated_step_;
  state.best = best_;
  return state;
}

model::AdapterOrigin Trainer::Origin() const {
  return {options_.model.string(), text_->chat_source(), text_->time, backbone_->formats()};
}

Status Trainer::SaveAdapterTo(const Path& folder) const {
  return model::SaveAdapter(folder, *adapter_, config_, Origin());
}

Status Trainer::Save() {
  const CheckpointContext context{&config_, Origin(), Settings(), log_->StateText()};
  Status saved = SaveCheckpoint(options_.out, State(), *adapter_, *optimizer_, context);
  if (!saved.ok()) return saved;
  saved_step_ = position_.step;
  // What follows steps that were skipped may be no better: earlier ones stay.
  if (skipped_in_row_ == 0) PruneCheckpoints(options_.out, position_.step, options_.save_limit);
  log_->Saved(fmt::format("checkpoint-{}", position_.step));
  return saved;
}

void Trainer::SaveAndNote() {
  const Status saved = Save();
  const auto now = SaveSchedule::Clock::now();
  if (saved.ok()) {
    saves_->Saved(now);
    return RetryBest(false);
  }
  const auto pause = std::chrono::duration_cast<std::chrono::minutes>(saves_->Failed(now));
  Note(fmt::format("checkpoint not saved: {}; the run goes on and tries again in {} minute{}",
                   saved.failure().message, pause.count(), pause.count() == 1 ? "" : "s"));
}

void Trainer::SaveAtEnd(bool interrupted) {
  const auto save = [&] { return interrupted ? Save() : SaveAdapterTo(options_.out); };
  // Nothing that its folder does not have.
  if (interrupted && (position_.step == first_step_ || position_.step == saved_step_)) return;
  const Patience patience = interrupted ? kInterrupted : kFinished;
  Status saved = save();
  unsigned pause = patience.first, waited = 0;
  bool given_up = false;  // by whoever waits for a finished run
  while (!saved.ok() && waited + pause <= patience.total) {
    Note(fmt::format("step {} is not saved: {}; trying again in {} s", position_.step,
                     saved.failure().message, pause));
    if (interrupted) {
      Files().sleep(pause);
    } else {
      given_up = !Wait(pause, interrupt_);
    }
    waited += pause;
    pause = std::min(2 * pause, patience.longest);
    saved = save();
    if (given_up) break;
  }
  if (saved.ok()) {
    if (!interrupted || skipped_in_row_ == 0) return;
    return Note(fmt::format("skipped steps in a row: {}; checkpoint-{} has the weights before them{}",
                            skipped_in_row_, position_.step, WaysOn(options_.out)));
  }
  const std::vector<int64_t> steps = CheckpointSteps(options_.out);
  const std::string rest = steps.empty() ? "there is no earlier checkpoint"
                                         : fmt::format("checkpoint-{} in {} is good: go on with --resume",
                                                       steps.back(), options_.out.string());
  throw Error(given_up ? ExitCode::kInterrupted : saved.failure().code,
              fmt::format("step {} is not saved: {}; {}", position_.step, saved.failure().message, rest));
}

}  // namespace rung::train
