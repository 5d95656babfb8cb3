// KxK convolution of NHWC maps with stride 1 and padding K / 2, and the gradient
// of its kernel, which is float32 as all arithmetic is. Vectors hold output
// channels.

#include <type_traits>
#include <vector>

#include "vectors.h"

namespace ffi = xla::ffi;

namespace jaxnas {
namespace {

using Map = ffi::AnyBuffer;
using Kernel = ffi::Buffer<ffi::F32, 4>;

// Sums that fill the registers and hide how long an addition takes.
constexpr int kSums = kLanes == 16 ? 16 : 8;

struct Shape {
  int64_t batch, height, width, inputs, outputs, k;
  int64_t pad() const { return k / 2; }
  int64_t image() const { return height * width * inputs; }
  int64_t result() const { return height * width * outputs; }
  int64_t padded_width() const { return width + 2 * pad(); }
  int64_t padded_row() const { return padded_width() * inputs; }
  int64_t padded_image() const { return (height + 2 * pad()) * padded_row(); }
};

// Floats of this thread, until it asks for the next.
float* Scratch(int64_t count) {
  thread_local std::vector<float> scratch;
  scratch.resize(count);
  return scratch.data();
}

// Calls work(the map as floats).
template <typename Work>
void Widened(const float* x, int64_t, const Work& work) {
  work(x);
}

template <typename Work>
void Widened(const Bfloat16* x, int64_t count, const Work& work) {
  float* widened = Scratch(count);
  Copy(x, count, widened);
  work(widened);
}

// Has work(floats) write a map.
template <typename Work>
void Narrowed(float* x, int64_t, const Work& work) {
  work(x);
}

template <typename Work>
void Narrowed(Bfloat16* x, int64_t count, const Work& work) {
  float* whole = Scratch(count);
  work(whole);
  Copy(whole, count, x);
}

// An image with zeros around it, this thread's until it asks for the next.
template <typename T>
const float* Padded(const Shape& s, const T* x) {
  if (s.pad() == 0 && std::is_same_v<T, float>) {
    return reinterpret_cast<const float*>(x);
  }
  thread_local std::vector<float> padded;
  padded.assign(s.padded_image(), 0.0f);
  float* first = padded.data() + s.pad() * (s.padded_row() + s.inputs);
  for (int64_t h = 0; h < s.height; ++h) {
    Copy(x + h * s.width * s.inputs, s.width * s.inputs,
         first + h * s.padded_row());
  }
  return padded.data();
}

// `Pixels` neighbours in a row, `Vectors` of output channels each. `Inputs` is
// how many there are, so that addresses are known when this is compiled, or 0.
template <int Inputs, int Vectors, int Pixels>
inline void ConvolvePixels(const Shape& s, const float* x, const float* kernel,
                           float* out) {
  const int64_t inputs = Inputs ? Inputs : s.inputs;
  Vector sums[Pixels][Vectors] = {};
  for (int64_t i = 0; i < s.k; ++i) {
    // Columns and inputs of a row lie one after the other in both.
    const float* row = x + i * s.padded_width() * inputs;
    const float* taps = kernel + i * s.k * inputs * s.outputs;
    for (int64_t c = 0; c < s.k * inputs; ++c) {
      Vector tap[Vectors];
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) {
        tap[v] = Load(taps + c * s.outputs + v * kLanes);
      }
#pragma GCC unroll 16
      for (int p = 0; p < Pixels; ++p) {
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) {
          sums[p][v] += row[p * inputs + c] * tap[v];
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < Pixels; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
      Store(out + p * s.outputs + v * kLanes, sums[p][v]);
    }
  }
}

template <int Inputs, int Vectors>
void ConvolveImage(const Shape& s, const float* padded, const float* kernel,
                   float* out) {
  constexpr int kPixels = kSums / Vectors;
  for (int64_t o = 0; o < s.outputs; o += Vectors * kLanes) {
    for (int64_t h = 0; h < s.height; ++h) {
      const float* x = padded + h * s.padded_row();
      float* y = out + h * s.width * s.outputs + o;
      int64_t w = 0;
      for (; w + kPixels <= s.width; w += kPixels) {
        ConvolvePixels<Inputs, Vectors, kPixels>(s, x + w * s.inputs,
                                                 kernel + o, y + w * s.outputs);
      }
      for (; w + 4 <= s.width; w += 4) {
        ConvolvePixels<Inputs, Vectors, 4>(s, x + w * s.inputs, kernel + o,
                                           y + w * s.outputs);
      }
      for (; w < s.width; ++w) {
        ConvolvePixels<Inputs, Vectors, 1>(s, x + w * s.inputs, kernel + o,
                                           y + w * s.outputs);
      }
    }
  }
}

// Adds one image's part of the gradient: of `Inputs` channels of one tap, and
// `Vectors` of output channels.
template <int Inputs, int Vectors>
inline void AddTap(const Shape& s, const float* padded, const float* g,
                   float* out) {
  Vector sums[Inputs][Vectors];
#pragma GCC unroll 16
  for (int c = 0; c < Inputs; ++c) {
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
      sums[c][v] = Load(out + c * s.outputs + v * kLanes);
    }
  }
  for (int64_t h = 0; h < s.height; ++h) {
    const float* x = padded + h * s.padded_row();
    const float* gradient = g + h * s.width * s.outputs;
    for (int64_t w = 0; w < s.width; ++w) {
      Vector value[Vectors];
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) {
        value[v] = Load(gradient + w * s.outputs + v * kLanes);
      }
#pragma GCC unroll 16
      for (int c = 0; c < Inputs; ++c) {
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) {
          sums[c][v] += x[w * s.inputs + c] * value[v];
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int c = 0; c < Inputs; ++c) {
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
      Store(out + c * s.outputs + v * kLanes, sums[c][v]);
    }
  }
}

template <int Vectors>
void AddImage(const Shape& s, const float* padded, const float* g,
              float* out) {
  constexpr int kInputs = kSums / Vectors;
  for (int64_t o = 0; o < s.outputs; o += Vectors * kLanes) {
    for (int64_t i = 0; i < s.k; ++i) {
      for (int64_t j = 0; j < s.k; ++j) {
        const float* x = padded + i * s.padded_row() + j * s.inputs;
        float* to = out + (i * s.k + j) * s.inputs * s.outputs + o;
        int64_t c = 0;
        for (; c + kInputs <= s.inputs; c += kInputs) {
          AddTap<kInputs, Vectors>(s, x + c, g + o, to + c * s.outputs);
        }
        for (; c < s.inputs; ++c) {
          AddTap<1, Vectors>(s, x + c, g + o, to + c * s.outputs);
        }
      }
    }
  }
}

using ImageWork = void (*)(const Shape&, const float*, const float*, float*);

template <int Vectors>
ImageWork Convolver(int64_t inputs) {
  switch (inputs) {
    case 3: return ConvolveImage<3, Vectors>;
    case 16: return ConvolveImage<16, Vectors>;
    case 32: return ConvolveImage<32, Vectors>;
    case 64: return ConvolveImage<64, Vectors>;
    default: return ConvolveImage<0, Vectors>;
  }
}

bool FillsPairs(const Shape& s) { return s.outputs % (2 * kLanes) == 0; }

ffi::Error Check(const Shape& s) {
  if (s.outputs % kLanes) {
    return ffi::Error::InvalidArgument("outputs must fill vectors");
  }
  return ffi::Error::Success();
}

ffi::Error Convolve(ffi::ThreadPool pool, Map x, Kernel kernel,
                    ffi::Result<Map> out) {
  auto in = x.dimensions(), taps = kernel.dimensions();
  Shape s{in[0], in[1], in[2], in[3], taps[3], taps[0]};
  if (ffi::Error error = Check(s); error.failure()) return error;
  const float* weights = kernel.typed_data();
  ImageWork convolve =
      FillsPairs(s) ? Convolver<2>(s.inputs) : Convolver<1>(s.inputs);
  return ByType(x, [&](auto type) {
    using T = decltype(type);
    const T* from = From<T>(x);
    T* to = To<T>(out);
    ForEach(pool, s.batch, [&](int64_t n) {
      const float* image = Padded(s, from + n * s.image());
      Narrowed(to + n * s.result(), s.result(), [&](float* result) {
        convolve(s, image, weights, result);
      });
    });
    return ffi::Error::Success();
  });
}

ffi::Error KernelGradient(ffi::ThreadPool pool, Map x, Map g,
                          ffi::Result<Kernel> out) {
  auto in = x.dimensions(), taps = out->dimensions();
  Shape s{in[0], in[1], in[2], in[3], taps[3], taps[0]};
  if (ffi::Error error = Check(s); error.failure()) return error;
  float* to = out->typed_data();
  int64_t size = s.k * s.k * s.inputs * s.outputs;
  ImageWork add = FillsPairs(s) ? AddImage<2> : AddImage<1>;
  return ByType(x, [&](auto type) {
    using T = decltype(type);
    const T *from = From<T>(x), *gradient = From<T>(g);
    SumInParts(pool, s.batch, size, to, [&](int64_t n, float* into) {
      const float* image = Padded(s, from + n * s.image());
      Widened(gradient + n * s.result(), s.result(), [&](const float* g) {
        add(s, image, g, into);
      });
    });
    return ffi::Error::Success();
  });
}

}  // namespace
}  // namespace jaxnas

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_convolve, jaxnas::Convolve,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Map>()
                                  .Arg<jaxnas::Kernel>()
                                  .Ret<jaxnas::Map>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_kernel_gradient, jaxnas::KernelGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Map>()
                                  .Arg<jaxnas::Map>()
                                  .Ret<jaxnas::Kernel>());
