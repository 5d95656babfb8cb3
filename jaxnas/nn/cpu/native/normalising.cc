// Normalisation of maps by statistics of the batch, and activation; and the
// gradient of both. All arithmetic is in float32. Vectors hold channels of NHWC
// maps; of CHWN maps a channel is a task.

#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

#include "activations.h"
#include "norm.h"
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

// Channels of CHWN maps, with what each is normalised by.
struct Channels {
  int64_t count, size;
  const float *terms, *statistics;
  float epsilon;

  Channels(const Map& x, const Rows& terms, const Rows& statistics,
           float epsilon)
      : count(x.dimensions()[0]),
        size(x.element_count() / count),
        terms(terms.typed_data()),
        statistics(statistics.typed_data()),
        epsilon(epsilon) {}

  Norm Of(int64_t c) const {
    return {statistics[c], statistics[count + c], size,
            terms[c],      terms[count + c],      epsilon};
  }
};

ffi::Error ChannelMoments(ffi::ThreadPool pool, Map x,
                          ffi::Result<Rows> statistics) {
  int64_t channels = x.dimensions()[0], size = x.element_count() / channels;
  float *mean = statistics->typed_data(), *variance = mean + channels;
  return ByType(x, [&](auto type) {
    using T = decltype(type);
    ForEach(pool, channels, [&](int64_t c) {
      Norm norm(From<T>(x) + c * size, size, 1, 0, 0);
      mean[c] = norm.mean;
      variance[c] = norm.variance;
    });
    return ffi::Error::Success();
  });
}

ffi::Error NormaliseChannels(ffi::ThreadPool pool, Map x, Rows terms,
                             Rows statistics, ffi::Result<Map> out,
                             int64_t activation, float epsilon) {
  Channels channels(x, terms, statistics, epsilon);
  return ByActivation(activation, [&](auto kind) {
    return ByType(x, [&](auto type) {
      using T = decltype(type);
      ForEach(pool, channels.count, [&](int64_t c) {
        Norm norm = channels.Of(c);
        const T* from = From<T>(x) + c * channels.size;
        T* to = To<T>(out) + c * channels.size;
        ByVectors(channels.size, [&](int64_t i, auto v) {
          Store(to + i, norm.Activate<kind()>(Load<decltype(v)>(from + i)));
        });
      });
      return ffi::Error::Success();
    });
  });
}

ffi::Error PullChannels(ffi::ThreadPool pool, Map x, Rows terms,
                        Rows statistics, Map g, ffi::Result<Map> dx,
                        ffi::Result<Rows> dterms, int64_t activation,
                        float epsilon) {
  Channels channels(x, terms, statistics, epsilon);
  float *dgain = dterms->typed_data(), *dbias = dgain + channels.count;
  return ByActivation(activation, [&](auto kind) {
    return ByType(x, [&](auto type) {
      using T = decltype(type);
      ForEach(pool, channels.count, [&](int64_t c) {
        thread_local std::vector<float> pulled;
        pulled.resize(channels.size);
        int64_t first = c * channels.size;
        channels.Of(c).template Pull<kind()>(
            [&](const auto& work) { work(0, 0, 0, 0, channels.size); },
            From<T>(x) + first, From<T>(g) + first, pulled.data(),
            To<T>(dx) + first, dgain + c, dbias + c);
      });
      return ffi::Error::Success();
    });
  });
}

// What functions of NHWC maps and of CHWN maps take and give.
auto OfMoments() {
  return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Map>().Ret<Rows>();
}

auto OfNormalise() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Map>()
      .Arg<Rows>()
      .Arg<Rows>()
      .Ret<Map>()
      .Attr<int64_t>("activation")
      .Attr<float>("epsilon");
}

auto OfPull() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Map>()
      .Arg<Rows>()
      .Arg<Rows>()
      .Arg<Map>()
      .Ret<Map>()
      .Ret<Rows>()
      .Attr<int64_t>("activation")
      .Attr<float>("epsilon");
}

}  // namespace
}  // namespace jaxnas

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_moments, jaxnas::Moments,
                              jaxnas::OfMoments());
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_normalise, jaxnas::Normalise,
                              jaxnas::OfNormalise());
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_normalise_gradient, jaxnas::Pull,
                              jaxnas::OfPull());
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_channel_moments, jaxnas::ChannelMoments,
                              jaxnas::OfMoments());
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_normalise_channels,
                              jaxnas::NormaliseChannels,
                              jaxnas::OfNormalise());
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_normalise_channels_gradient,
                              jaxnas::PullChannels, jaxnas::OfPull());
