// What the machine can do, measured: the yardstick of every claim of speed.
#pragma once

#include "base/half.h"
#include "kernels/cpu/isa.h"

namespace rung::cpu {

// FLOP/s of all threads together in products of T, on registers alone; 0 where PanelFor<T> is nullptr.
// Takes about 0.2 s.
template <class T>
double MeasurePeakFlops(const Context& context);

// Bytes/s of all threads together reading memory in order. Takes about 0.3 s and 256 MiB.
double MeasureStreamBandwidth(const Context& context);

}  // namespace rung::cpu
