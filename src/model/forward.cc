#include "model/forward.h"

namespace rung::model {

Pass::Pass(Exec& ex, const Backbone& backbone, const Adapter* adapter, const PassInput& input, bool saving,
           const PassCaches& caches)
    : ex_(ex),
      backbone_(backbone),
      adapter_(adapter),
      ladder_(adapter ? adapter->ladder() : nullptr),
      input_(input),
      saving_(saving),
      caches_(caches),
      first_crossed_(adapter ? adapter->first_crossed(backbone.config().L) : backbone.config().L) {
  RUNG_CHECK(!saving || adapter, "pass: only an adapter has a backward pass");
  RUNG_CHECK(!input.crossing || (saving && ladder_),
             "pass: only a ladder's training pass has crossing states");
  RUNG_CHECK(!input.crossing || !input.crossing->load || !input.crossing->store,
             "pass: states are loaded or stored");
}

nn::BlockCall Pass::CallOf(int64_t layer) const {
  nn::BlockCall call{input_.rows, backbone_.rope(layer)};
  if (!caches_.backbone.empty()) call.cache = &caches_.backbone[static_cast<size_t>(layer)];
  if (adapter_ && adapter_->lora()) call.loras = adapter_->lora()->layer(layer);
  call.draw = input_.draw;
  return call;
}

void Pass::RunBelow(const Tensor& x) {
  {
    At at(ex_, "the embedding");
    backbone_.Embed(ex_, input_.ids, input_.rows.position, Out{x});
  }
  for (int64_t layer = 0; layer < first_crossed_; ++layer) {
    At at(ex_, "layer", layer);
    backbone_.block(layer).Forward(ex_, x, CallOf(layer), Out{x}, nullptr);
    if (climb_) climb_->Absorb(layer, x);
  }
}

void Pass::LoadBelow(const Tensor& x) {
  CrossingStates states;
  states.x = x;
  for (size_t j = 0; j < ladder_->spec().taps.size(); ++j) {
    states.taps.push_back(climb_->TakeStored(backbone_.config().C));
  }
  At at(ex_, "the tap cache");
  std::vector<Tensor> written = {x};
  for (const StoredTap& tap : states.taps) written.insert(written.end(), {tap.data, tap.scale});
  ex_.Launch("load_states", {}, std::span<const Tensor>(written), [&] { input_.crossing->load(states); });
  for (const StoredTap& tap : states.taps) climb_->ClimbStored(tap);
}

void Pass::StoreBelow(const Tensor& x) {
  ex_.Launch("store_states", {}, [&] { input_.crossing->store({climb_->stored(), x}); });
}

void Pass::JoinPicked(const Tensor& x, Out z) {
  const int64_t M = z.t.rows(), S = ladder_->spec().S;
  At at(ex_, "the ladder's output");
  const Tensor state = climb_->Finish();
  joined_state_ = saving_ ? ex_.arena().Keep(DType::kF32, M, S, Use::kRungs, "picked ladder state")
                          : ex_.arena().Scratch(DType::kF32, M, S, Use::kRungs, "picked ladder state");
  ops::Gather(ex_, state, input_.picked, Out{joined_state_});
  ladder_->up().Forward(ex_, joined_state_, z);
  ops::Axpby(ex_, 1.0f, x, ladder_->spec().output_scale, Acc{z.t});
}

void Pass::Forward(Out z) {
  Frame frame(ex_.arena());
  const int64_t N = input_.ids.cols(), C = backbone_.config().C, M = input_.picked.cols();
  RUNG_CHECK(input_.rows.rows() == N, "pass: one position per id");
  RUNG_CHECK(z.t.rows() == M && z.t.cols() == C, "pass: z must be (M,C)");
  const bool crosses = first_crossed_ < backbone_.config().L;
  const bool cached = input_.crossing && input_.crossing->load;
  if (ladder_) climb_.emplace(ex_, *ladder_, adapter_->policy, input_.rows, saving_, caches_.ladder);

  // The stream below the crossed layers is the input of the first one: kept with it.
  const bool rows_wanted = crosses || !cached;
  Tensor x;
  if (rows_wanted) {
    x = crosses && saving_ ? ex_.arena().Keep(DType::kF32, N, C, Use::kSaved, "crossed layer's input")
                           : ex_.arena().Scratch(DType::kF32, N, C, Use::kBackbone, "residual stream");
  }
  const Tensor picked =
      ladder_ && !crosses ? ex_.arena().Scratch(DType::kF32, M, C, Use::kHead, "picked residual stream") : x;
  if (cached) {
    LoadBelow(picked);
  } else {
    RunBelow(x);
    if (ladder_ && !crosses) ops::Gather(ex_, x, input_.picked, Out{picked});
    if (input_.crossing) StoreBelow(picked);
  }
  if (ladder_ && !crosses) {
    JoinPicked(picked, z);
    return;
  }
  if (ladder_) {
    joined_state_ = climb_->Finish();
    At at(ex_, "the ladder's output");
    Frame inner(ex_.arena());
    const Tensor up = ex_.arena().Scratch(DType::kF32, N, C, Use::kRungs, "ladder output");
    ladder_->up().Forward(ex_, joined_state_, Out{up});
    ops::Axpby(ex_, ladder_->spec().output_scale, up, 1.0f, Acc{x});
  }
  ops::Gather(ex_, RunCrossed(x), input_.picked, z);
}

// The crossed layers from x up.
Tensor Pass::RunCrossed(Tensor x) {
  if (saving_) {
    crossed_.emplace(backbone_, first_crossed_, adapter_->policy.blocks,
                     [this](int64_t layer) { return CallOf(layer); });
    return crossed_->Forward(ex_, x);
  }
  for (int64_t layer = first_crossed_; layer < backbone_.config().L; ++layer) {
    At at(ex_, "layer", layer);
    backbone_.block(layer).Forward(ex_, x, CallOf(layer), Out{x}, nullptr);
  }
  return x;
}

// From the gradient of the joined stream to that of the ladder's last state.
void Pass::JoinBack(Acc dx, const Tensor& ds) {
  At at(ex_, "the backward pass of the ladder's output");
  ops::Scale(ex_, ladder_->spec().output_scale, dx);
  ladder_->up().Backward(ex_, dx.t, joined_state_, Out{ds});
}

void Pass::Backward(Acc dz) {
  RUNG_CHECK(saving_, "pass: backward needs a saving forward");
  Frame frame(ex_.arena());
  const int64_t N = input_.ids.cols(), C = backbone_.config().C, M = dz.t.rows();
  const auto rows = [&](int64_t count, int64_t cols, const char* label) {
    return ex_.arena().Scratch(DType::kF32, count, cols, ladder_ ? Use::kRungs : Use::kBackbone, label);
  };
  if (first_crossed_ < backbone_.config().L) {
    const Tensor dx = ex_.arena().Scratch(DType::kF32, N, C, Use::kBackbone, "d residual stream");
    ops::Scatter(ex_, dz.t, input_.picked, Out{dx});
    // Below the crossed layers only a ladder's output waits for the gradient of the stream.
    crossed_->Backward(ex_, Acc{dx}, ladder_ ? nn::Reach::kInput : nn::Reach::kTrained);
    if (!ladder_) return;
    const Tensor ds = rows(N, ladder_->spec().S, "d ladder state");
    JoinBack(Acc{dx}, ds);
    climb_->Backward(Acc{ds});
    return;
  }
  const int64_t S = ladder_->spec().S;
  const Tensor ds = rows(N, S, "d ladder state");
  {
    Frame inner(ex_.arena());
    const Tensor dpicked = rows(M, S, "d picked ladder state");
    JoinBack(dz, dpicked);
    ops::Scatter(ex_, dpicked, input_.picked, Out{ds});
  }
  climb_->Backward(Acc{ds});
}

BatchInput::BatchInput(const data::Batch& batch) {
  const int64_t N = batch.rows();
  for (int64_t n = 0; n < N; ++n) {
    const int32_t target = batch.target[static_cast<size_t>(n)];
    if (target < 0) continue;
    picked_.push_back(static_cast<int32_t>(n));
    targets_.push_back(target);
  }
  const int64_t M = target_count();
  // Ops read these; View takes no const, In gives none back.
  pass_.ids = View(const_cast<int32_t*>(batch.ids.data()), 1, N);
  pass_.rows.position = View(const_cast<int32_t*>(batch.position.data()), 1, N);
  for (size_t s = 0; s + 1 < batch.starts.size(); ++s) {
    const int64_t begin = batch.starts[s], count = batch.starts[s + 1] - begin;
    pass_.rows.spans.push_back({begin, count, begin, count});
  }
  pass_.picked = View(picked_.data(), 1, M);
  target_ = View(targets_.data(), 1, M);
}

}  // namespace rung::model
