// The sum of rows, each by its length.

#include <cmath>

#include "vectors.h"

namespace ffi = xla::ffi;

namespace jaxnas {
namespace {

using Matrix = ffi::Buffer<ffi::F32, 2>;
using Row = ffi::Buffer<ffi::F32, 1>;

// Squared lengths between these have lost nothing to float's range.
constexpr float kLow = 1e-30f, kHigh = 1e30f;

// Zero of a row of zeros, and no number of one that is not finite.
float InverseLength(const float* x, int64_t count) {
  float square = Sum(x, count, [](auto value) { return value * value; });
  if (square > kLow && square < kHigh) return 1 / std::sqrt(square);
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::abs(x[i]));
  }
  if (largest == 0 && square == 0) return 0;
  return 1 / (largest * std::sqrt(Sum(x, count, [&](auto value) {
                auto scaled = value / largest;
                return scaled * scaled;
              })));
}

ffi::Error UnitSum(ffi::ThreadPool pool, Matrix rows, ffi::Result<Row> sum,
                   ffi::Result<Row> inverse_lengths) {
  int64_t count = rows.dimensions()[0], columns = rows.dimensions()[1];
  const float* from = rows.typed_data();
  float* to = sum->typed_data();
  float* inverse = inverse_lengths->typed_data();
  SumInParts(pool, count, columns, to, [&](int64_t row, float* into) {
    // From the core's cache the second time.
    const float* x = from + row * columns;
    float scale = inverse[row] = InverseLength(x, columns);
    ByVectors(columns, [&](int64_t i, auto v) {
      using V = decltype(v);
      Store(into + i, Load<V>(into + i) + Load<V>(x + i) * scale);
    });
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace jaxnas

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_unit_sum, jaxnas::UnitSum,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Matrix>()
                                  .Ret<jaxnas::Row>()
                                  .Ret<jaxnas::Row>());
