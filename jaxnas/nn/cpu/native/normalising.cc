// Normalisation of NHWC maps by statistics of the batch, and activation; and the
// gradient of both. All arithmetic is in float32. Vectors hold channels.

#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

#include "activations.h"
#include "vectors.h"

namespace ffi = xla::ffi;

namespace jaxnas {
namespace {

using Map = ffi::AnyBuffer;
// Rows of one number a channel.
using Rows = ffi::Buffer<ffi::F32, 2>;

struct Shape {
  int64_t images, pixels, channels;

  explicit Shape(const Map& x)
      : images(x.dimensions()[0]),
        pixels(x.dimensions()[1] * x.dimensions()[2]),
        channels(x.dimensions()[3]) {}
  int64_t image() const { return pixels * channels; }
  int64_t count() const { return images * pixels; }
};

// Adds two sums over the pixels of an image to rows of one a channel each;
// `terms` gives both of them at an offset of the image.
template <typename Terms>
void AddPairs(const Shape& s, float* into, const Terms& terms) {
  ByVectors(s.channels, [&](int64_t c, auto v) {
    using V = decltype(v);
    V one = Load<V>(into + c), other = Load<V>(into + s.channels + c);
    for (int64_t at = c; at < s.image(); at += s.channels) {
      auto [more, others] = terms(at, c, v);
      one += more;
      other += others;
    }
    Store(into + c, one);
    Store(into + s.channels + c, other);
  });
}

// Mean and biased variance, from sums of values and of squares.
ffi::Error Moments(ffi::ThreadPool pool, Map x, ffi::Result<Rows> statistics) {
  Shape s(x);
  float *mean = statistics->typed_data(), *variance = mean + s.channels;
  return ByType(x, [&](auto type) {
    using T = decltype(type);
    const T* from = From<T>(x);
    SumInParts(pool, s.images, 2 * s.channels, mean,
               [&](int64_t n, float* into) {
                 const T* image = from + n * s.image();
                 AddPairs(s, into, [&](int64_t at, int64_t, auto v) {
                   auto value = Load<decltype(v)>(image + at);
                   return std::pair(value, value * value);
                 });
               });
    for (int64_t c = 0; c < s.channels; ++c) {
      mean[c] /= s.count();
      variance[c] = variance[c] / s.count() - mean[c] * mean[c];
      // Not-a-number stays so.
      if (variance[c] < 0) variance[c] = 0;
    }
    return ffi::Error::Success();
  });
}

// What each channel is normalised by.
struct Norms {
  std::vector<float> rate, scale, shift;

  // `terms` are gain and bias, `statistics` mean and variance.
  Norms(const Shape& s, const float* terms, const float* statistics,
        float epsilon)
      : rate(s.channels), scale(s.channels), shift(s.channels) {
    for (int64_t c = 0; c < s.channels; ++c) {
      rate[c] = 1 / std::sqrt(statistics[s.channels + c] + epsilon);
      scale[c] = rate[c] * terms[c];
      shift[c] = terms[s.channels + c] - statistics[c] * scale[c];
    }
  }

  template <typename V>
  V Apply(V x, int64_t c) const {
    return x * Load<V>(scale.data() + c) + Load<V>(shift.data() + c);
  }
};

// Calls work(offset in an image, channel, V{}) for all of it.
template <typename Work>
void ForPixels(const Shape& s, const Work& work) {
  for (int64_t p = 0; p < s.pixels; ++p) {
    ByVectors(s.channels, [&](int64_t c, auto v) {
      work(p * s.channels + c, c, v);
    });
  }
}

// Calls work(the activation as a type), or says what there is not.
template <typename Work>
ffi::Error ByActivation(int64_t activation, const Work& work) {
  switch (activation) {
    case kNone: return work(std::integral_constant<int, kNone>());
    case kReLU: return work(std::integral_constant<int, kReLU>());
    default: return ffi::Error::InvalidArgument("no such activation");
  }
}

ffi::Error Normalise(ffi::ThreadPool pool, Map x, Rows terms, Rows statistics,
                     ffi::Result<Map> out, int64_t activation, float epsilon) {
  Shape s(x);
  Norms norms(s, terms.typed_data(), statistics.typed_data(), epsilon);
  return ByActivation(activation, [&](auto kind) {
    return ByType(x, [&](auto type) {
      using T = decltype(type);
      ForEach(pool, s.images, [&](int64_t n) {
        const T* image = From<T>(x) + n * s.image();
        T* to = To<T>(out) + n * s.image();
        ForPixels(s, [&](int64_t at, int64_t c, auto v) {
          auto value = Load<decltype(v)>(image + at);
          Store(to + at, Activated<kind()>(norms.Apply(value, c)));
        });
      });
      return ffi::Error::Success();
    });
  });
}

// Gradients of the map, its statistics being its own, and of both terms.
ffi::Error Pull(ffi::ThreadPool pool, Map x, Rows terms, Rows statistics, Map g,
                ffi::Result<Map> dx, ffi::Result<Rows> dterms,
                int64_t activation, float epsilon) {
  Shape s(x);
  const float* mean = statistics.typed_data();
  Norms norms(s, terms.typed_data(), mean, epsilon);
  float *dgain = dterms->typed_data(), *dbias = dgain + s.channels;
  return ByActivation(activation, [&](auto kind) {
    return ByType(x, [&](auto type) {
      using T = decltype(type);
      // What passes the activation, and the normalised value without its terms.
      auto at_pixel = [&](int64_t n) {
        const T* image = From<T>(x) + n * s.image();
        const T* gradient = From<T>(g) + n * s.image();
        return [=, &norms](int64_t at, int64_t c, auto v) {
          using V = decltype(v);
          V value = Load<V>(image + at);
          V pulled = Load<V>(gradient + at) *
                     Slope<kind()>(norms.Apply(value, c));
          V apart = (value - Load<V>(mean + c)) *
                    Load<V>(norms.rate.data() + c);
          return std::pair(pulled, apart);
        };
      };
      SumInParts(pool, s.images, 2 * s.channels, dgain,
                 [&](int64_t n, float* into) {
                   auto both = at_pixel(n);
                   AddPairs(s, into, [&](int64_t at, int64_t c, auto v) {
                     auto [pulled, apart] = both(at, c, v);
                     return std::pair(pulled * apart, pulled);
                   });
                 });
      std::vector<float> slope(s.channels), level(s.channels);
      for (int64_t c = 0; c < s.channels; ++c) {
        slope[c] = dgain[c] / s.count();
        level[c] = dbias[c] / s.count();
      }
      ForEach(pool, s.images, [&](int64_t n) {
        T* to = To<T>(dx) + n * s.image();
        auto both = at_pixel(n);
        ForPixels(s, [&](int64_t at, int64_t c, auto v) {
          using V = decltype(v);
          auto [pulled, apart] = both(at, c, v);
          Store(to + at, (pulled - Load<V>(level.data() + c) -
                          apart * Load<V>(slope.data() + c)) *
                             Load<V>(norms.scale.data() + c));
        });
      });
      return ffi::Error::Success();
    });
  });
}

}  // namespace
}  // namespace jaxnas

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_moments, jaxnas::Moments,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Map>()
                                  .Ret<jaxnas::Rows>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_normalise, jaxnas::Normalise,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Map>()
                                  .Arg<jaxnas::Rows>()
                                  .Arg<jaxnas::Rows>()
                                  .Ret<jaxnas::Map>()
                                  .Attr<int64_t>("activation")
                                  .Attr<float>("epsilon"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_normalise_gradient, jaxnas::Pull,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Map>()
                                  .Arg<jaxnas::Rows>()
                                  .Arg<jaxnas::Rows>()
                                  .Arg<jaxnas::Map>()
                                  .Ret<jaxnas::Map>()
                                  .Ret<jaxnas::Rows>()
                                  .Attr<int64_t>("activation")
                                  .Attr<float>("epsilon"));
