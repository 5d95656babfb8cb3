// Activations and their slopes, of vectors or single floats.

#ifndef JAXNAS_ACTIVATIONS_H_
#define JAXNAS_ACTIVATIONS_H_

namespace jaxnas {

constexpr int kNone = -1, kReLU = 0, kReLU6 = 1, kHardSwish = 2;

// Not-a-number stays so.
template <typename V>
inline V Clipped(V x, float top) {
  V zero = V{}, most = zero + top;
  x = x < zero ? zero : x;
  return x > most ? most : x;
}

// Halves where the value is a corner, as JAX has it.
template <typename V>
inline V ClippedSlope(V x, float top) {
  V zero = V{}, one = zero + 1, half = zero + 0.5f, most = zero + top;
  V low = x > zero ? one : (x == zero ? half : zero);
  V high = x < most ? one : (x == most ? half : zero);
  return low * high;
}

template <int Activation, typename V>
inline V Activated(V x) {
  V zero = V{};
  if constexpr (Activation == kNone) return x;
  if constexpr (Activation == kReLU) return x < zero ? zero : x;
  if constexpr (Activation == kReLU6) return Clipped(x, 6);
  return x * (Clipped(x + 3, 6) / 6);
}

template <int Activation, typename V>
inline V Slope(V x) {
  V zero = V{};
  if constexpr (Activation == kNone) return zero + 1;
  if constexpr (Activation == kReLU) return x > zero ? zero + 1 : zero;
  if constexpr (Activation == kReLU6) return ClippedSlope(x, 6);
  return Clipped(x + 3, 6) / 6 + x * (ClippedSlope(x + 3, 6) / 6);
}

}  // namespace jaxnas

#endif  // JAXNAS_ACTIVATIONS_H_
