#include "infer/session.h"

#include <algorithm>

namespace rung::infer {

Session::Session(const cpu::Context& context, DType compute, const model::Backbone& backbone,
                 const model::Adapter* adapter, int64_t slots, int64_t capacity)
    : context_(context),
      compute_(compute),
      backbone_(backbone),
      adapter_(adapter),
      capacity_(capacity),
      lengths_(static_cast<size_t>(slots), 0),
      backbone_cache_(backbone.config(), compute, slots * capacity) {
  RUNG_CHECK(slots > 0 && capacity > 0, "session: no room");
  RUNG_CHECK(capacity <= backbone.positions(), "session: capacity beyond the RoPE table");
  if (adapter && adapter->ladder()) {
    const ops::RopeTable& rope = adapter->ladder()->rope();
    RUNG_CHECK(rope.rotary == 0 || capacity <= rope.cos.rows(),
               "session: capacity beyond the ladder's RoPE table");
    ladder_cache_.emplace(adapter->ladder()->spec(), slots * capacity);
  }
}

uint64_t Session::CacheBytes(const model::Config& config, DType compute, const model::Adapter* adapter,
                             int64_t rows) {
  uint64_t bytes = model::BackboneCache::Bytes(config, compute, rows);
  if (adapter && adapter->ladder()) bytes += model::LadderCache::Bytes(adapter->ladder()->spec(), rows);
  return bytes;
}

void Session::Run(Exec& ex, const model::PassInput& input, const Tensor& logits) const {
  Frame frame(ex.arena());
  const Tensor z =
      ex.arena().Scratch(DType::kF32, input.picked.cols(), backbone_.config().C, Use::kHead, "head input");
  model::PassCaches caches{backbone_cache_.layers(), {}};
  if (ladder_cache_) caches.ladder = ladder_cache_->rungs();
  model::Pass pass(ex, backbone_, adapter_, input, false, caches);
  pass.Forward(Out{z});
  backbone_.Logits(ex, z, Out{logits});
}

void Session::Reserve(const model::PassInput& input) {
  model::PassInput full = input;
  for (cpu::AttentionSpan& span : full.rows.spans) span.kv_count = capacity_;
  Exec planning = Exec::Planning(context_, compute_);
  Run(planning, full, View(static_cast<float*>(nullptr), input.picked.cols(), backbone_.config().V));
  const size_t bytes = planning.arena().peak().bytes;
  if (slab_ && bytes <= slab_->bytes()) return;
  slab_.reset();  // before its successor is made
  slab_ = std::make_unique<Slab>(bytes);
}

uint64_t Session::MostBytes(int64_t rows) const {
  // Each slot once as a sequence of few rows and once as one of many, all caches full: attention's scratch is
  // a sum over sequences, the rest grows with rows. The planning Exec reads no row.
  constexpr int64_t kFew = 8;
  const int64_t N = std::min(std::max(rows, slots()), slots() * capacity_), V = backbone_.config().V;
  model::PassInput input;
  for (int64_t slot = 0; slot < slots(); ++slot) {
    for (const int64_t count : {std::min(kFew, capacity_), std::min(N, capacity_)}) {
      input.rows.spans.push_back({0, count, slot * capacity_, capacity_});
    }
  }
  input.ids = View(static_cast<int32_t*>(nullptr), 1, N);
  input.rows.position = input.ids;
  input.picked = View(static_cast<int32_t*>(nullptr), 1, slots());
  Exec planning = Exec::Planning(context_, compute_);
  Run(planning, input, View(static_cast<float*>(nullptr), slots(), V));
  return CacheBytes(backbone_.config(), compute_, adapter_, slots() * capacity_) +
         static_cast<uint64_t>(slots() * V) * sizeof(float) + planning.arena().peak().bytes;
}

Tensor Session::Step(std::span<const Advance> advances) {
  ids_.clear();
  positions_.clear();
  picked_.clear();
  model::PassInput input;
  for (const Advance& advance : advances) {
    const auto count = static_cast<int64_t>(advance.ids.size());
    int64_t& length = lengths_[static_cast<size_t>(advance.slot)];
    RUNG_CHECK(count > 0 && length + count <= capacity_, "session: a sequence outgrows its cache");
    input.rows.spans.push_back(
        {static_cast<int64_t>(ids_.size()), count, advance.slot * capacity_, length + count});
    for (int64_t i = 0; i < count; ++i) positions_.push_back(static_cast<int32_t>(length + i));
    ids_.insert(ids_.end(), advance.ids.begin(), advance.ids.end());
    picked_.push_back(static_cast<int32_t>(ids_.size()) - 1);
    length += count;
  }
  const auto N = static_cast<int64_t>(ids_.size()), M = static_cast<int64_t>(picked_.size());
  input.ids = View(ids_.data(), 1, N);
  input.rows.position = View(positions_.data(), 1, N);
  input.picked = View(picked_.data(), 1, M);
  Reserve(input);

  const int64_t V = backbone_.config().V;
  logits_.resize(static_cast<size_t>(M * V));
  const Tensor logits = View(logits_.data(), M, V);
  Exec ex(Arena(slab_->base(), slab_->bytes()), context_, compute_);
  ex.set_trace(trace_);
  Run(ex, input, logits);
  return logits;
}

}  // namespace rung::infer
