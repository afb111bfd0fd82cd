// Data parallelism by OpenMP. Shares are static, or a kernel hands its tasks to whichever thread is free.
// Either way an output, or a part of a sum, is computed by one share or task in a fixed order: who runs it
// changes no bit.
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
