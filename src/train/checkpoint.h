// Checkpoint folders of a run: out/checkpoint-<step>/ (docs/formats/checkpoint.md).
//
//   adapter_model.safetensors, adapter_config.json   the adapter, usable by itself
//   optimizer.safetensors                            moments
//   resume.json                                      position, counters, settings of the run
//   trainer_state.json                               the record so far, for people and other programs
//   checksums.sha256                                 of all of these; what `sha256sum -c` reads
//
// Written into a temporary folder that is renamed when complete: a folder with that name is whole.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/files.h"
#include "model/adapter_file.h"
#include "train/optimizer.h"

namespace rung::train {

struct RunPosition {
  int64_t step = 0;   // optimizer steps done
  int64_t epoch = 0;  // of the next micro-batch
  int64_t batch = 0;  // the next micro-batch in that epoch
};

// What evaluations of a run measure: only values of the same can be compared.
struct Measured {
  std::string metric = "";  // its name
  std::string data = "";    // identity of the evaluation data, as in train/identity.h
  bool operator==(const Measured&) const = default;
};

struct BestEvaluation {
  double metric = 0.0;  // of the options' metric
  int64_t step = 0;
  int64_t evaluations_since = 0;  // without enough improvement: what early stopping counts
  Measured of = {};               // its metric empty: unknown
};

// Where a run stands between two steps.
struct RunState {
  RunPosition position;
  int64_t skipped_steps = 0, skipped_in_row = 0;
  int64_t tokens = 0;          // rows of all steps so far
  double seconds = 0.0;        // spent so far, earlier parts of a resumed run included
  int64_t evaluated_step = 0;  // the last one whose evaluation is done
  std::optional<BestEvaluation> best;
};

// Everything that changes the resulting bits, by name. See RunSettings.
using Settings = std::map<std::string, std::string>;

struct Checkpoint {
  Path folder;
  RunState state;
  int64_t optimizer_steps = 0;  // skipped steps not counted
  Settings settings;
  std::string rung_version;  // that made it; empty: it does not say
};

struct CheckpointContext {
  const model::Config* config = nullptr;
  model::AdapterOrigin origin;
  Settings settings;
  std::string trainer_state = "";  // text of trainer_state.json; empty: none is written
};

// Synced and renamed; after a failure nothing of it is left, and a checkpoint of the same step stays.
Status SaveCheckpoint(const Path& out, const RunState& state, const model::Adapter& adapter,
                      Optimizer& optimizer, const CheckpointContext& context);

// Steps of the checkpoints under `out`, ascending, whatever may have become of them.
std::vector<int64_t> CheckpointSteps(const Path& out);
bool HasCheckpoint(const Path& out);
// Of this program, as "0.1.0".
std::string RungVersion();
// Reads every byte of the folder: each file is what its checksum says, and none that resuming needs is
// missing. A failure names the file and what is wrong with it.
Result<Checkpoint> ReadCheckpoint(const Path& folder);
// The newest checkpoint under `out` that ReadCheckpoint accepts; one with step 0 and an empty folder when
// there is none at all. Those that are damaged are passed over and their failures added to `damaged`; a
// failure when all are.
Result<Checkpoint> NewestCheckpoint(const Path& out, std::vector<std::string>* damaged);
// Refuses an adapter or optimizer of another shape.
Status LoadCheckpoint(const Checkpoint& checkpoint, model::Adapter* adapter, Optimizer* optimizer);

// Completes or removes what a run that died while saving left behind, by the private names of base/folders.h:
// no other entry of `out` is touched. For the only process that works on `out`.
Status CleanCheckpoints(const Path& out);
// Keeps the newest `keep` of those up to `step`. Later ones are damaged ones that a resumed run passed over:
// they must not push out what can be resumed.
void PruneCheckpoints(const Path& out, int64_t step, int64_t keep);

}  // namespace rung::train
