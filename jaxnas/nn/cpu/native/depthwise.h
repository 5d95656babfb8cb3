// Convolution of one channel of a CHWN map, padded by K / 2, and its gradients.

#ifndef JAXNAS_DEPTHWISE_H_
#define JAXNAS_DEPTHWISE_H_

#include "vectors.h"

namespace jaxnas {

constexpr int kLargest = 7;

// Padded maps have columns 0, stride, 2 * stride ... of a row first, then
// columns 1, stride + 1 ...: what a tap meets along a row lies together.
struct Shape {
  int64_t channels, height, width, batch, k, stride;
  // Where tap j of a row begins.
  int64_t column[kLargest];

  Shape(xla::ffi::Span<const int64_t> x, int64_t k, int64_t stride)
      : channels(x[0]),
        height(x[1]),
        width(x[2]),
        batch(x[3]),
        k(k),
        stride(stride) {
    for (int64_t j = 0; j < kLargest; ++j) {
      column[j] = j % stride * plane() + j / stride * batch;
    }
  }

  int64_t pad() const { return k / 2; }
  int64_t size() const { return height * width * batch; }
  int64_t out_height() const { return (height - 1) / stride + 1; }
  int64_t out_row() const { return ((width - 1) / stride + 1) * batch; }
  int64_t out_size() const { return out_height() * out_row(); }
  int64_t plane() const {
    return (width + 2 * pad() + stride - 1) / stride * batch;
  }
  int64_t row() const { return stride * plane(); }
  int64_t padded() const { return (height + 2 * pad()) * row(); }
  // Results with as many zeros before and behind a row as taps reach.
  int64_t reach() const { return (k - 1) / stride * batch; }
  int64_t result_row() const { return plane() + reach(); }

  // Calls work(offset in a map, in a padded map, count) for each piece of row
  // `h` that lies together in both.
  template <typename Work>
  void ForPieces(int64_t h, const Work& work) const {
    int64_t from = h * width * batch, to = (h + pad()) * row();
    if (stride == 1) return work(from, to + pad() * batch, width * batch);
    for (int64_t w = 0; w < width; ++w) {
      int64_t column = w + pad();
      work(from + w * batch,
           to + column % stride * plane() + column / stride * batch, batch);
    }
  }
};

// `Vectors` neighbours in a row of the result.
template <int K, int Vectors, typename V>
inline void Convolve(const Shape& s, const float* x, const float* taps,
                     float* out) {
  V sums[Vectors] = {};
  for (int i = 0; i < K; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < K; ++j) {
      const float* from = x + i * s.row() + s.column[j];
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) {
        sums[v] += taps[i * K + j] *
                   Load<V>(from + v * int64_t(sizeof(V) / sizeof(float)));
      }
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < Vectors; ++v) {
    Store(out + v * int64_t(sizeof(V) / sizeof(float)), sums[v]);
  }
}

template <int K>
void ConvolveChannel(const Shape& s, const float* padded, const float* taps,
                     float* out) {
  for (int64_t h = 0; h < s.out_height(); ++h) {
    const float* x = padded + h * s.stride * s.row();
    float* y = out + h * s.out_row();
    int64_t i = 0;
    for (; i + 4 * kLanes <= s.out_row(); i += 4 * kLanes) {
      Convolve<K, 4, Vector>(s, x + i, taps, y + i);
    }
    ByVectors(s.out_row() - i, [&](int64_t j, auto v) {
      Convolve<K, 1, decltype(v)>(s, x + i + j, taps, y + i + j);
    });
  }
}

// Sums over the map of the products of the result's gradient and what each tap
// met.
template <int K>
void KernelGradient(const Shape& s, const float* padded, const float* gradient,
                    float* out) {
  for (int i = 0; i < K; ++i) {
    Sums sums[K];
    for (int64_t h = 0; h < s.out_height(); ++h) {
      const float* x = padded + (h * s.stride + i) * s.row();
      const float* g = gradient + h * s.result_row() + s.reach();
      ByVectors(s.out_row(), [&](int64_t o, auto v) {
        auto value = Load<decltype(v)>(g + o);
#pragma GCC unroll 8
        for (int j = 0; j < K; ++j) {
          sums[j].Add(value * Load<decltype(v)>(x + s.column[j] + o));
        }
      });
    }
    for (int j = 0; j < K; ++j) out[i * K + j] = sums[j].Total();
  }
}

// `Vectors` neighbours in a plane of a row of the input's gradient; `g` is the
// row of the result's that tap row `first` meets.
template <int K, int Vectors, typename V>
inline void Pull(const Shape& s, const float* g, int64_t first, int64_t last,
                 int64_t plane, const float* taps, float* out) {
  V sums[Vectors] = {};
  int64_t rows = 0;
  for (int64_t i = first; i <= last; i += s.stride, rows += s.result_row()) {
    int64_t columns = 0;
    for (int64_t j = plane; j < K; j += s.stride, columns += s.batch) {
      const float* from = g - rows - columns;
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) {
        sums[v] += taps[i * K + j] *
                   Load<V>(from + v * int64_t(sizeof(V) / sizeof(float)));
      }
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < Vectors; ++v) {
    Store(out + v * int64_t(sizeof(V) / sizeof(float)), sums[v]);
  }
}

template <int K>
void PullChannel(const Shape& s, const float* gradient, const float* taps,
                 float* out) {
  for (int64_t r = s.pad(); r < s.pad() + s.height; ++r) {
    // Tap rows i of this row's residue whose result row (r - i) / stride is.
    int64_t first = r % s.stride, last = std::min<int64_t>(K - 1, r);
    while ((r - first) / s.stride >= s.out_height()) first += s.stride;
    const float* g =
        gradient + (r - first) / s.stride * s.result_row() + s.reach();
    for (int64_t plane = 0; plane < s.stride; ++plane) {
      auto column = [&](int64_t at) {
        return std::max<int64_t>(at - plane + s.stride - 1, 0) / s.stride *
               s.batch;
      };
      int64_t i = column(s.pad()), end = column(s.pad() + s.width);
      float* to = out + r * s.row() + plane * s.plane();
      for (; i + 4 * kLanes <= end; i += 4 * kLanes) {
        Pull<K, 4, Vector>(s, g + i, first, last, plane, taps, to + i);
      }
      ByVectors(end - i, [&](int64_t j, auto v) {
        Pull<K, 1, decltype(v)>(s, g + i + j, first, last, plane, taps,
                                to + i + j);
      });
    }
  }
}

// What there is for a kernel of a size.
struct Depthwise {
  void (*convolve)(const Shape&, const float* padded, const float* taps,
                   float* out);
  void (*kernel_gradient)(const Shape&, const float* padded,
                          const float* gradient, float* taps);
  void (*pull)(const Shape&, const float* gradient, const float* taps,
               float* padded);

  template <int K>
  static Depthwise Of() {
    return {ConvolveChannel<K>, KernelGradient<K>, PullChannel<K>};
  }
};

}  // namespace jaxnas

#endif  // JAXNAS_DEPTHWISE_H_
