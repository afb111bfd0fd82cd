// Checkpoint folders of a run: out/checkpoint-<step>/ (docs/formats/checkpoint.md).
//
//   adapter_model.safetensors, adapter_config.json   the adapter, usable by itself
//   optimizer.safetensors                            moments
//   trainer_state.json                               position and what the run was made of
//
// Written into a temporary folder that is renamed when complete: a folder with that name is whole.
#pragma once

#include <cstdint>
#include <string>

#include "base/files.h"
#include "model/adapter.h"
#include "train/optimizer.h"

namespace rung::train {

struct RunPosition {
  int64_t step = 0;   // optimizer steps done
  int64_t epoch = 0;  // of the next micro-batch
  int64_t batch = 0;  // the next micro-batch in that epoch
};

struct Checkpoint {
  Path folder;
  RunPosition position;
  int64_t optimizer_steps = 0;  // skipped steps not counted
  std::string fingerprint;      // of model, data and settings that change the result
};

struct CheckpointContext {
  const model::Config* config = nullptr;
  std::string base_model, chat_template, fingerprint;
};

Status SaveCheckpoint(const Path& out, const RunPosition& position, const model::Adapter& adapter,
                      Optimizer& optimizer, const CheckpointContext& context);
// The newest whole checkpoint under `out`; one with step 0 and an empty folder when there is none.
Result<Checkpoint> NewestCheckpoint(const Path& out);
Status LoadCheckpoint(const Checkpoint& checkpoint, model::Adapter* adapter, Optimizer* optimizer);
// What a run that died while saving left behind.
void RemoveUnfinishedCheckpoints(const Path& out);
// Keeps the newest `keep`.
void PruneCheckpoints(const Path& out, int64_t keep);

}  // namespace rung::train
