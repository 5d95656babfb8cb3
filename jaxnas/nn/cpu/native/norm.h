// Normalisation of one channel by its own statistics, and its gradient.

#ifndef JAXNAS_NORM_H_
#define JAXNAS_NORM_H_

#include <cmath>

#include "activations.h"
#include "vectors.h"

namespace jaxnas {

// x * scale + shift.
struct Norm {
  float mean = 0, variance = 0, rate = 1, scale = 1, shift = 0;
  int64_t count = 0;

  Norm() = default;

  template <typename T>
  Norm(const T* x, int64_t count, float gain, float bias, float epsilon)
      : count(count) {
    mean = Sum(x, count, [](auto value) { return value; }) / count;
    variance = Sum(x, count, [&](auto value) {
                 auto apart = value - mean;
                 return apart * apart;
               }) / count;
    Scale(gain, bias, epsilon);
  }

  // By statistics that are known.
  Norm(float mean, float variance, int64_t count, float gain, float bias,
       float epsilon)
      : mean(mean), variance(variance), count(count) {
    Scale(gain, bias, epsilon);
  }

  void Scale(float gain, float bias, float epsilon) {
    rate = 1 / std::sqrt(variance + epsilon);
    scale = rate * gain;
    shift = bias - mean * scale;
  }

  template <int Activation, typename V>
  V Activate(V x) const {
    return Activated<Activation>(x * scale + shift);
  }

  // Gradients of x, gain and bias, from that of the activated map. `pieces`
  // calls work(offset in x, in g, in each, in dx, count) for all of the map;
  // `each` is for what is between.
  template <int Activation, typename Pieces, typename X, typename G, typename D>
  void Pull(const Pieces& pieces, const X* x, const G* g, float* each, D* dx,
            float* dgain, float* dbias) const {
    Sums sum, product;
    pieces([&](int64_t at, int64_t g_at, int64_t each_at, int64_t,
               int64_t count) {
      ByVectors(count, [&](int64_t i, auto v) {
        using V = decltype(v);
        V value = Load<V>(x + at + i);
        V pulled = Load<V>(g + g_at + i) *
                   Slope<Activation>(value * scale + shift);
        sum.Add(pulled);
        product.Add(pulled * ((value - mean) * rate));
        Store(each + each_at + i, pulled);
      });
    });
    *dgain = product.Total();
    *dbias = sum.Total();
    float slope = *dgain / count, level = *dbias / count;
    pieces([&](int64_t at, int64_t, int64_t each_at, int64_t dx_at,
               int64_t count) {
      ByVectors(count, [&](int64_t i, auto v) {
        using V = decltype(v);
        V apart = (Load<V>(x + at + i) - mean) * rate;
        V pulled = Load<V>(each + each_at + i);
        Store(dx + dx_at + i, (pulled - level - apart * slope) * scale);
      });
    });
  }
};

}  // namespace jaxnas

#endif  // JAXNAS_NORM_H_
