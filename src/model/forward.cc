#include "model/forward.h"

namespace rung::model {

Pass::Pass(Exec& ex, const Backbone& backbone, const Ladder* ladder, const PassInput& input, bool saving,
           const PassCaches& caches)
    : ex_(ex), backbone_(backbone), ladder_(ladder), input_(input), saving_(saving), caches_(caches) {
  RUNG_CHECK(!saving || ladder, "pass: only a ladder has a backward pass");
}

void Pass::Forward(Out z) {
  Frame frame(ex_.arena());
  const int64_t N = input_.ids.cols(), C = backbone_.config().C, M = input_.picked.cols();
  RUNG_CHECK(input_.rows.rows() == N, "pass: one position per id");
  RUNG_CHECK(z.t.rows() == M && z.t.cols() == C, "pass: z must be (M,C)");
  const Tensor x = ex_.arena().Scratch(DType::kF32, N, C, Use::kBackbone, "residual stream");
  if (!ladder_) {
    backbone_.Forward(ex_, input_.ids, input_.rows, caches_.backbone, Out{x}, nullptr);
    ops::Gather(ex_, x, input_.picked, z);
    return;
  }
  climb_.emplace(ex_, *ladder_, input_.rows, saving_, caches_.ladder);
  backbone_.Forward(ex_, input_.ids, input_.rows, caches_.backbone, Out{x},
                    [&](int64_t layer, In state) { climb_->Absorb(layer, state); });
  const Tensor state = climb_->Finish();

  const int64_t S = ladder_->spec().S;
  picked_state_ = saving_ ? ex_.arena().Keep(DType::kF32, M, S, Use::kRungs, "picked ladder state")
                          : ex_.arena().Scratch(DType::kF32, M, S, Use::kRungs, "picked ladder state");
  const Tensor picked_x = ex_.arena().Scratch(DType::kF32, M, C, Use::kHead, "picked residual stream");
  ops::Gather(ex_, state, input_.picked, Out{picked_state_});
  ops::Gather(ex_, x, input_.picked, Out{picked_x});
  ladder_->up().Forward(ex_, picked_state_, z);
  ops::Axpby(ex_, 1.0f, picked_x, ladder_->spec().output_scale, Acc{z.t});
}

void Pass::Backward(Acc dz) {
  RUNG_CHECK(saving_ && climb_, "pass: backward needs a saving forward");
  Frame frame(ex_.arena());
  const int64_t N = input_.ids.cols(), S = ladder_->spec().S, M = dz.t.rows();
  const Tensor ds = ex_.arena().Scratch(DType::kF32, N, S, Use::kRungs, "d ladder state");
  {
    Frame inner(ex_.arena());
    const Tensor dpicked = ex_.arena().Scratch(DType::kF32, M, S, Use::kRungs, "d picked ladder state");
    ops::Axpby(ex_, 0.0f, dz.t, ladder_->spec().output_scale, dz);
    ladder_->up().Backward(ex_, dz.t, picked_state_, Out{dpicked});
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
