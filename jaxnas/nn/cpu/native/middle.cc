// The middle of an inverted residual block on CHWN maps: normalise, activate,
// convolve each channel alone, normalise, activate; and its gradient. A channel
// is a task: what lies between its input and result stays in the cache of one
// core, as floats.

#include <vector>

#include "activations.h"
#include "depthwise.h"
#include "norm.h"
#include "vectors.h"

namespace ffi = xla::ffi;

namespace jaxnas {
namespace {

using Map = ffi::AnyBuffer;
using Kernel = ffi::Buffer<ffi::F32, 3>;
using Terms = ffi::Buffer<ffi::F32, 2>;

// What is the same for all channels.
template <typename T>
struct Middle {
  using Type = T;
  Shape s;
  Depthwise depthwise;
  bool normed;
  float epsilon;
  const T* x;
  const float* kernel;
  // Rows of one number a channel: gain and bias before, gain and bias after.
  const float* terms;

  float term(int row, int64_t c) const { return terms[row * s.channels + c]; }
};

// One channel, in buffers that a core keeps.
template <typename T>
struct Channel {
  const Middle<T>& m;
  const Shape& s;
  const int64_t c;
  const T* x;
  float taps[kLargest * kLargest];
  Norm before, after;
  std::vector<float>&padded, &result;

  Channel(const Middle<T>& m, int64_t c)
      : m(m),
        s(m.s),
        c(c),
        x(m.x + c * m.s.size()),
        padded(Buffer<0>()),
        result(Buffer<1>()) {
    for (int64_t tap = 0; tap < s.k * s.k; ++tap) {
      taps[tap] = m.kernel[tap * s.channels + c];
    }
    if (m.normed) {
      before = Norm(x, s.size(), m.term(0, c), m.term(1, c), m.epsilon);
    }
  }

  template <int Number>
  static std::vector<float>& Buffer() {
    thread_local std::vector<float> buffer;
    return buffer;
  }

  // Calls work(offset in a map, in a padded map, count) for all of it.
  template <typename Work>
  void ForPieces(const Work& work) const {
    for (int64_t h = 0; h < s.height; ++h) s.ForPieces(h, work);
  }

  // All but the last normalisation, which stands in `result` before it.
  template <int Activation>
  void Run() {
    padded.assign(s.padded(), 0.0f);
    result.resize(s.out_size());
    ForPieces([&](int64_t from, int64_t to, int64_t count) {
      ByVectors(count, [&](int64_t i, auto v) {
        auto value = Load<decltype(v)>(x + from + i);
        if (m.normed) value = before.Activate<Activation>(value);
        Store(padded.data() + to + i, value);
      });
    });
    m.depthwise.convolve(s, padded.data(), taps, result.data());
    after = Norm(result.data(), s.out_size(), m.term(2, c), m.term(3, c),
                 m.epsilon);
  }

  // The result, after `Run`.
  template <int Activation>
  void Write(T* out) const {
    ByVectors(s.out_size(), [&](int64_t i, auto v) {
      auto value = Load<decltype(v)>(result.data() + i);
      Store(out + i, after.Activate<Activation>(value));
    });
  }

  // Gradients of the input, the taps and the four terms, after `Run`.
  template <int Activation>
  void Pull(const T* g, T* dx, float* dtaps, float* dterms) const {
    std::vector<float>&gradient = Buffer<2>(), &pulled = Buffer<3>();
    gradient.assign(s.out_height() * s.result_row() + s.reach(), 0.0f);
    pulled.resize(s.padded());
    after.Pull<Activation>(
        [&](const auto& work) {
          for (int64_t h = 0; h < s.out_height(); ++h) {
            int64_t from = h * s.out_row();
            int64_t to = h * s.result_row() + s.reach();
            work(from, from, to, to, s.out_row());
          }
        },
        result.data(), g, gradient.data(), gradient.data(), dterms + 2,
        dterms + 3);
    m.depthwise.kernel_gradient(s, padded.data(), gradient.data(), dtaps);
    m.depthwise.pull(s, gradient.data(), taps, pulled.data());
    if (!m.normed) {
      dterms[0] = dterms[1] = 0;
      ForPieces([&](int64_t at, int64_t from, int64_t count) {
        Copy(pulled.data() + from, count, dx + at);
      });
      return;
    }
    before.Pull<Activation>(
        [&](const auto& work) {
          ForPieces([&](int64_t at, int64_t from, int64_t count) {
            work(at, from, from, at, count);
          });
        },
        x, pulled.data(), pulled.data(), dx, dterms, dterms + 1);
  }
};

// Calls work(m, the activation as a type), or says what there is not.
template <typename Work>
ffi::Error With(Map x, Kernel kernel, Terms terms, int64_t stride,
                int64_t activation, bool normed, float epsilon,
                const Work& work) {
  int64_t k = kernel.dimensions()[0];
  if (k != 3 && k != 5 && k != 7) {
    return ffi::Error::InvalidArgument("kernels are 3, 5 or 7 wide");
  }
  return ByType(x, [&](auto type) {
    using T = decltype(type);
    Middle<T> m{Shape(x.dimensions(), k, stride),
                k == 3   ? Depthwise::Of<3>()
                : k == 5 ? Depthwise::Of<5>()
                         : Depthwise::Of<7>(),
                normed,
                epsilon,
                From<T>(x),
                kernel.typed_data(),
                terms.typed_data()};
    switch (activation) {
      case kReLU: work(m, std::integral_constant<int, kReLU>()); break;
      case kReLU6: work(m, std::integral_constant<int, kReLU6>()); break;
      case kHardSwish:
        work(m, std::integral_constant<int, kHardSwish>());
        break;
      default: return ffi::Error::InvalidArgument("no such activation");
    }
    return ffi::Error::Success();
  });
}

// Statistics are rows, too: mean and variance before, and after.
ffi::Error Forward(ffi::ThreadPool pool, Map x, Kernel kernel, Terms terms,
                   ffi::Result<Map> out, ffi::Result<Terms> statistics,
                   int64_t stride, int64_t activation, bool normed,
                   float epsilon) {
  float* rows = statistics->typed_data();
  auto run = [&](const auto& m, auto kind) {
    using T = typename std::decay_t<decltype(m)>::Type;
    int64_t channels = m.s.channels;
    T* to = To<T>(out);
    ForEach(pool, channels, [&](int64_t c) {
      Channel<T> channel(m, c);
      channel.template Run<kind()>();
      channel.template Write<kind()>(to + c * m.s.out_size());
      rows[c] = channel.before.mean;
      rows[channels + c] = channel.before.variance;
      rows[2 * channels + c] = channel.after.mean;
      rows[3 * channels + c] = channel.after.variance;
    });
  };
  return With(x, kernel, terms, stride, activation, normed, epsilon, run);
}

// Gives the map that `Forward` does, too, where `g` was.
ffi::Error Backward(ffi::ThreadPool pool, Map x, Kernel kernel, Terms terms,
                    Map g, ffi::Result<Map> dx, ffi::Result<Kernel> dkernel,
                    ffi::Result<Terms> dterms, ffi::Result<Map> out,
                    int64_t stride, int64_t activation, bool normed,
                    float epsilon) {
  float* to_kernel = dkernel->typed_data();
  float* to_terms = dterms->typed_data();
  auto run = [&](const auto& m, auto kind) {
    using T = typename std::decay_t<decltype(m)>::Type;
    int64_t channels = m.s.channels, size = m.s.out_size();
    const T* from = From<T>(g);
    T *to = To<T>(out), *to_x = To<T>(dx);
    ForEach(pool, channels, [&](int64_t c) {
      float of_taps[kLargest * kLargest], of_terms[4];
      Channel<T> channel(m, c);
      channel.template Run<kind()>();
      channel.template Pull<kind()>(from + c * size, to_x + c * m.s.size(),
                                    of_taps, of_terms);
      channel.template Write<kind()>(to + c * size);
      for (int64_t tap = 0; tap < m.s.k * m.s.k; ++tap) {
        to_kernel[tap * channels + c] = of_taps[tap];
      }
      for (int row = 0; row < 4; ++row) {
        to_terms[row * channels + c] = of_terms[row];
      }
    });
  };
  return With(x, kernel, terms, stride, activation, normed, epsilon, run);
}

}  // namespace
}  // namespace jaxnas

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_middle, jaxnas::Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Map>()
                                  .Arg<jaxnas::Kernel>()
                                  .Arg<jaxnas::Terms>()
                                  .Ret<jaxnas::Map>()
                                  .Ret<jaxnas::Terms>()
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("activation")
                                  .Attr<bool>("normed")
                                  .Attr<float>("epsilon"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_middle_gradient, jaxnas::Backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Map>()
                                  .Arg<jaxnas::Kernel>()
                                  .Arg<jaxnas::Terms>()
                                  .Arg<jaxnas::Map>()
                                  .Ret<jaxnas::Map>()
                                  .Ret<jaxnas::Kernel>()
                                  .Ret<jaxnas::Terms>()
                                  .Ret<jaxnas::Map>()
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("activation")
                                  .Attr<bool>("normed")
                                  .Attr<float>("epsilon"));
