// Data parallelism by OpenMP: static shares only, so that the same thread count gives the same bits.
#pragma once

#include <omp.h>

#include <cstdint>

namespace rung {

struct Share {
  int64_t begin, end;
};

// The part of [0,count) that belongs to `thread` of `threads`, in whole multiples of `grain`
// (the last share takes the remainder).
inline Share ShareOf(int64_t count, int thread, int threads, int64_t grain = 1) {
  const int64_t units = (count + grain - 1) / grain;
  const int64_t begin = units * thread / threads * grain;
  const int64_t end = units * (thread + 1) / threads * grain;
  return {begin < count ? begin : count, end < count ? end : count};
}

// Calls body(thread) once on each of `threads` threads and waits. The body must not throw.
template <class Body>
void OnEachThread(int threads, const Body& body) {
  if (threads == 1) {
    body(0);
    return;
  }
#pragma omp parallel num_threads(threads)
  body(omp_get_thread_num());
}

// Waits for the other threads inside OnEachThread.
inline void Barrier(int threads) {
  if (threads == 1) return;
#pragma omp barrier
}

}  // namespace rung
