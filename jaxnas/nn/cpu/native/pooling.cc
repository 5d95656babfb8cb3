// Maxima and averages over parts of NHWC maps, and their gradients. All
// arithmetic is in float32. Vectors hold channels.

#include <vector>

#include "vectors.h"

namespace ffi = xla::ffi;

namespace jaxnas {
namespace {

using Map = ffi::AnyBuffer;

struct Shape {
  int64_t images, height, width, channels;

  explicit Shape(ffi::Span<const int64_t> x)
      : images(x[0]), height(x[1]), width(x[2]), channels(x[3]) {}
  int64_t row() const { return width * channels; }
  int64_t image() const { return height * row(); }
};

// The larger of both; not-a-number stays so.
template <typename V>
V Larger(V a, V b) {
  V larger = a > b ? a : b;
  return a == a ? larger : a;
}

// The part of a gradient that the first of two gets, as JAX has it: half of it
// where they are equal.
template <typename V>
V Share(V a, V b) {
  V zero = V{}, one = zero + 1, half = zero + 0.5f;
  return a > b ? one : (a == b ? half : zero);
}

// Calls work(offset in the result's image, in the map's image, V{}) for all
// windows of 2x2, of which the map's offset is the first value.
template <typename Work>
void ForWindows(const Shape& in, const Shape& out, const Work& work) {
  for (int64_t h = 0; h < out.height; ++h) {
    for (int64_t w = 0; w < out.width; ++w) {
      int64_t to = h * out.row() + w * out.channels;
      int64_t from = 2 * (h * in.row() + w * in.channels);
      ByVectors(in.channels, [&](int64_t c, auto v) {
        work(to + c, from + c, v);
      });
    }
  }
}

// The largest of 2x2 values, or their average.
ffi::Error Shrink(ffi::ThreadPool pool, Map x, ffi::Result<Map> out,
                  bool largest) {
  Shape in(x.dimensions()), small(out->dimensions());
  return ByType(x, [&](auto type) {
    using T = decltype(type);
    ForEach(pool, in.images, [&](int64_t n) {
      const T* from = From<T>(x) + n * in.image();
      T* to = To<T>(out) + n * small.image();
      ForWindows(in, small, [&](int64_t at, int64_t first, auto v) {
        using V = decltype(v);
        const T *above = from + first, *below = above + in.row();
        V a = Load<V>(above), b = Load<V>(above + in.channels);
        V c = Load<V>(below), d = Load<V>(below + in.channels);
        Store(to + at, largest ? Larger(Larger(Larger(a, b), c), d)
                               : (a + b + c + d) * 0.25f);
      });
    });
    return ffi::Error::Success();
  });
}

// A last row or column of an odd side gets none.
ffi::Error PullShrunk(ffi::ThreadPool pool, Map x, Map g, ffi::Result<Map> dx,
                      bool largest) {
  Shape in(x.dimensions()), small(g.dimensions());
  return ByType(x, [&](auto type) {
    using T = decltype(type);
    ForEach(pool, in.images, [&](int64_t n) {
      const T* from = From<T>(x) + n * in.image();
      const T* gradient = From<T>(g) + n * small.image();
      T* to = To<T>(dx) + n * in.image();
      if (in.height % 2 || in.width % 2) std::fill_n(to, in.image(), T{});
      ForWindows(in, small, [&](int64_t at, int64_t first, auto v) {
        using V = decltype(v);
        int64_t below = first + in.row();
        int64_t places[4] = {first, first + in.channels, below,
                             below + in.channels};
        V left = Load<V>(gradient + at);
        if (!largest) {
          for (int64_t place : places) Store(to + place, left * 0.25f);
          return;
        }
        V values[4], most[4];
        for (int i = 0; i < 4; ++i) {
          values[i] = Load<V>(from + places[i]);
          most[i] = i ? Larger(most[i - 1], values[i]) : values[i];
        }
        for (int i = 3; i > 0; --i) {
          Store(to + places[i], left * Share(values[i], most[i - 1]));
          left *= Share(most[i - 1], values[i]);
        }
        Store(to + places[0], left);
      });
    });
    return ffi::Error::Success();
  });
}

// The 3x3 average of stride 1 that leaves the padding out; or its gradient,
// which is the same sum of values that are divided before it.
ffi::Error Average(ffi::ThreadPool pool, Map x, ffi::Result<Map> out,
                   bool gradient) {
  Shape s(x.dimensions());
  // One over the number of rows and columns of a window that lie on the map.
  auto rate = [&](int64_t h, int64_t w) {
    auto reach = [](int64_t at, int64_t side) {
      return 1 + (at > 0) + (at + 1 < side);
    };
    return 1.0f / (reach(h, s.height) * reach(w, s.width));
  };
  return ByType(x, [&](auto type) {
    using T = decltype(type);
    ForEach(pool, s.images, [&](int64_t n) {
      const T* from = From<T>(x) + n * s.image();
      T* to = To<T>(out) + n * s.image();
      // Sums of three rows, between two columns of zeros.
      thread_local std::vector<float> sums;
      sums.assign(s.row() + 2 * s.channels, 0.0f);
      for (int64_t h = 0; h < s.height; ++h) {
        int64_t first = std::max<int64_t>(h - 1, 0);
        int64_t end = std::min(h + 2, s.height);
        for (int64_t w = 0; w < s.width; ++w) {
          int64_t column = w * s.channels;
          ByVectors(s.channels, [&](int64_t c, auto v) {
            using V = decltype(v);
            V sum{};
            for (int64_t row = first; row < end; ++row) {
              V value = Load<V>(from + row * s.row() + column + c);
              sum += gradient ? value * rate(row, w) : value;
            }
            Store(sums.data() + column + s.channels + c, sum);
          });
        }
        for (int64_t w = 0; w < s.width; ++w) {
          int64_t column = w * s.channels;
          float scale = gradient ? 1.0f : rate(h, w);
          ByVectors(s.channels, [&](int64_t c, auto v) {
            using V = decltype(v);
            const float* sum = sums.data() + column + c;
            V total = Load<V>(sum) + Load<V>(sum + s.channels) +
                      Load<V>(sum + 2 * s.channels);
            Store(to + h * s.row() + column + c, total * scale);
          });
        }
      }
    });
    return ffi::Error::Success();
  });
}

}  // namespace
}  // namespace jaxnas

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_shrink, jaxnas::Shrink,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Map>()
                                  .Ret<jaxnas::Map>()
                                  .Attr<bool>("largest"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_shrink_gradient, jaxnas::PullShrunk,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Map>()
                                  .Arg<jaxnas::Map>()
                                  .Ret<jaxnas::Map>()
                                  .Attr<bool>("largest"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_average, jaxnas::Average,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Map>()
                                  .Ret<jaxnas::Map>()
                                  .Attr<bool>("gradient"));
