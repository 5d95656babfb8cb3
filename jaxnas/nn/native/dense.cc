// KxK convolution of NHWC maps with stride 1 and padding K / 2, in float32,
// and the gradient of its kernel. Vectors hold output channels.

#include <vector>

#include "vectors.h"

namespace ffi = xla::ffi;

namespace jaxnas {
namespace {

using Map = ffi::Buffer<ffi::F32, 4>;
using Result = ffi::ResultBuffer<ffi::F32, 4>;

// Neighbours whose sums fill the registers.
constexpr int kPixels = kLanes == 16 ? 16 : 8;

struct Shape {
  int64_t batch, height, width, inputs, outputs, k;
  int64_t pad() const { return k / 2; }
  int64_t padded_width() const { return width + 2 * pad(); }
  int64_t padded_row() const { return padded_width() * inputs; }
  int64_t padded_image() const { return (height + 2 * pad()) * padded_row(); }
};

// An image with zeros around it, this thread's until it asks for the next.
const float* Padded(const Shape& s, const float* x) {
  thread_local std::vector<float> padded;
  padded.assign(s.padded_image(), 0.0f);
  float* first = padded.data() + s.pad() * (s.padded_row() + s.inputs);
  for (int64_t h = 0; h < s.height; ++h) {
    std::copy_n(x + h * s.width * s.inputs, s.width * s.inputs,
                first + h * s.padded_row());
  }
  return padded.data();
}

// `Pixels` neighbours in a row, one vector of output channels each.
template <int Pixels>
inline void ConvolvePixels(const Shape& s, const float* x, const float* kernel,
                           float* out) {
  Vector sums[Pixels] = {};
  for (int64_t i = 0; i < s.k; ++i) {
    // Columns and inputs of a row lie one after the other in both.
    const float* row = x + i * s.padded_row();
    const float* taps = kernel + i * s.k * s.inputs * s.outputs;
    for (int64_t c = 0; c < s.k * s.inputs; ++c) {
      Vector tap = Load(taps + c * s.outputs);
#pragma GCC unroll 16
      for (int p = 0; p < Pixels; ++p) {
        sums[p] += row[p * s.inputs + c] * tap;
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < Pixels; ++p) Store(out + p * s.outputs, sums[p]);
}

void ConvolveImage(const Shape& s, const float* padded, const float* kernel,
                   float* out) {
  for (int64_t o = 0; o < s.outputs; o += kLanes) {
    for (int64_t h = 0; h < s.height; ++h) {
      const float* x = padded + h * s.padded_row();
      float* y = out + h * s.width * s.outputs + o;
      int64_t w = 0;
      for (; w + kPixels <= s.width; w += kPixels) {
        ConvolvePixels<kPixels>(s, x + w * s.inputs, kernel + o,
                                y + w * s.outputs);
      }
      for (; w + 4 <= s.width; w += 4) {
        ConvolvePixels<4>(s, x + w * s.inputs, kernel + o, y + w * s.outputs);
      }
      for (; w < s.width; ++w) {
        ConvolvePixels<1>(s, x + w * s.inputs, kernel + o, y + w * s.outputs);
      }
    }
  }
}

// Adds one image's part of the gradient: of `Inputs` channels of one tap.
template <int Inputs>
inline void AddTap(const Shape& s, const float* padded, const float* g,
                   float* out) {
  Vector sums[Inputs];
#pragma GCC unroll 16
  for (int c = 0; c < Inputs; ++c) sums[c] = Load(out + c * s.outputs);
  for (int64_t h = 0; h < s.height; ++h) {
    const float* x = padded + h * s.padded_row();
    const float* gradient = g + h * s.width * s.outputs;
    for (int64_t w = 0; w < s.width; ++w) {
      Vector value = Load(gradient + w * s.outputs);
#pragma GCC unroll 16
      for (int c = 0; c < Inputs; ++c) {
        sums[c] += x[w * s.inputs + c] * value;
      }
    }
  }
#pragma GCC unroll 16
  for (int c = 0; c < Inputs; ++c) Store(out + c * s.outputs, sums[c]);
}

void AddImage(const Shape& s, const float* padded, const float* g,
              float* out) {
  for (int64_t o = 0; o < s.outputs; o += kLanes) {
    for (int64_t i = 0; i < s.k; ++i) {
      for (int64_t j = 0; j < s.k; ++j) {
        const float* x = padded + i * s.padded_row() + j * s.inputs;
        float* to = out + (i * s.k + j) * s.inputs * s.outputs + o;
        int64_t c = 0;
        for (; c + kPixels <= s.inputs; c += kPixels) {
          AddTap<kPixels>(s, x + c, g + o, to + c * s.outputs);
        }
        for (; c < s.inputs; ++c) {
          AddTap<1>(s, x + c, g + o, to + c * s.outputs);
        }
      }
    }
  }
}

ffi::Error Check(const Shape& s) {
  if (s.outputs % kLanes) {
    return ffi::Error::InvalidArgument("outputs must fill vectors");
  }
  return ffi::Error::Success();
}

ffi::Error Convolve(ffi::ThreadPool pool, Map x, Map kernel, Result out) {
  auto in = x.dimensions(), taps = kernel.dimensions();
  Shape s{in[0], in[1], in[2], in[3], taps[3], taps[0]};
  if (ffi::Error error = Check(s); error.failure()) return error;
  const float* from = x.typed_data();
  const float* weights = kernel.typed_data();
  float* to = out->typed_data();
  ForEach(pool, s.batch, [&](int64_t n) {
    ConvolveImage(s, Padded(s, from + n * s.height * s.width * s.inputs),
                  weights, to + n * s.height * s.width * s.outputs);
  });
  return ffi::Error::Success();
}

ffi::Error KernelGradient(ffi::ThreadPool pool, Map x, Map g, Result out) {
  auto in = x.dimensions(), taps = out->dimensions();
  Shape s{in[0], in[1], in[2], in[3], taps[3], taps[0]};
  if (ffi::Error error = Check(s); error.failure()) return error;
  const float* from = x.typed_data();
  const float* gradient = g.typed_data();
  float* to = out->typed_data();
  int64_t size = s.k * s.k * s.inputs * s.outputs;
  SumInParts(pool, s.batch, size, to, [&](int64_t n, float* into) {
    AddImage(s, Padded(s, from + n * s.height * s.width * s.inputs),
             gradient + n * s.height * s.width * s.outputs, into);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace jaxnas

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_convolve, jaxnas::Convolve,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Map>()
                                  .Arg<jaxnas::Map>()
                                  .Ret<jaxnas::Map>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_kernel_gradient, jaxnas::KernelGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Map>()
                                  .Arg<jaxnas::Map>()
                                  .Ret<jaxnas::Map>());
