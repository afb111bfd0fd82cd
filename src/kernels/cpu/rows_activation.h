// Activation functions over vectors: the value, and the value with its slope. Include only from files of one
// ISA.
#pragma once

#include "kernels/cpu/vec.h"

namespace rung::cpu {
namespace {

template <class V>
struct ValueAndSlope {
  V value, slope;
};

// x * sigmoid(x). With t = e^-x: sigmoid = 1/(1+t), 1 - sigmoid = t/(1+t) without cancellation.
template <class V>
struct Silu {
  static V Value(V x) { return V::Div(x, V::Add(V::Set(1.0f), Exp(V::Sub(V::Set(0.0f), x)))); }
  static ValueAndSlope<V> Both(V x) {
    const V t = Exp(V::Sub(V::Set(0.0f), x));
    const V s = V::Div(V::Set(1.0f), V::Add(V::Set(1.0f), t));
    return {V::Mul(x, s), V::Mul(s, V::Fma(x, V::Mul(t, s), V::Set(1.0f)))};
  }
};

// x * Phi(x), Phi(x) = erfc(-x/sqrt 2) / 2: erfc, because 1 + erf cancels for x below 0. Element by element
// by libm: this form is rare in models of today.
template <class V>
struct Gelu {
  static V Phi(V x) {
    float part[V::kWidth];
    V::Mul(x, V::Set(-0.707106781f)).Store(part);
    for (float& p : part) p = 0.5f * __builtin_erfcf(p);
    return V::Load(part);
  }
  static V Value(V x) { return V::Mul(x, Phi(x)); }
  static ValueAndSlope<V> Both(V x) {
    const V phi = Phi(x);
    const V density = V::Mul(Exp(V::Mul(V::Mul(x, x), V::Set(-0.5f))), V::Set(0.398942280f));
    return {V::Mul(x, phi), V::Fma(x, density, phi)};
  }
};

// x/2 (1 + tanh u) = x * sigmoid(2u), 2u = x (k1 + k3 x^2), k1 = 2 sqrt(2/pi), k3 = 0.044715 k1.
template <class V>
struct GeluTanh {
  static constexpr float kLinear = 1.59576912f, kCubic = 0.0713548163f;
  static V Twice(V x) { return V::Mul(x, V::Fma(V::Mul(x, x), V::Set(kCubic), V::Set(kLinear))); }
  static V Value(V x) { return V::Div(x, V::Add(V::Set(1.0f), Exp(V::Sub(V::Set(0.0f), Twice(x))))); }
  static ValueAndSlope<V> Both(V x) {
    const V t = Exp(V::Sub(V::Set(0.0f), Twice(x)));
    const V s = V::Div(V::Set(1.0f), V::Add(V::Set(1.0f), t));
    const V twice_slope = V::Fma(V::Mul(x, x), V::Set(3.0f * kCubic), V::Set(kLinear));
    return {V::Mul(x, s), V::Mul(s, V::Fma(V::Mul(x, V::Mul(t, s)), twice_slope, V::Set(1.0f)))};
  }
};

template <class V>
struct Relu {
  static V Value(V x) { return V::Max(V::Set(0.0f), x); }
  static ValueAndSlope<V> Both(V x) { return {Value(x), V::Positive(x)}; }
};

}  // namespace
}  // namespace rung::cpu
