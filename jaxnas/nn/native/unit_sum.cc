// The sum of rows, each by its length.

#include <cmath>
#include <vector>

#include "vectors.h"

namespace ffi = xla::ffi;

namespace jaxnas {
namespace {

using Matrix = ffi::Buffer<ffi::F32, 2>;
using Row = ffi::Buffer<ffi::F32, 1>;

// Squared lengths between these have lost nothing to float's range.
constexpr float kLow = 1e-30f, kHigh = 1e30f;
// Parts of the rows are summed apart, as many whatever the threads: sums do not
// depend on them.
constexpr int64_t kParts = 16;

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
  int64_t parts = std::min(kParts, count);
  std::vector<float> sums(parts * columns, 0.0f);
  ForEach(pool, parts, [&](int64_t part) {
    float* into = sums.data() + part * columns;
    int64_t end = count * (part + 1) / parts;
    for (int64_t row = count * part / parts; row < end; ++row) {
      // From the core's cache the second time.
      const float* x = from + row * columns;
      float scale = inverse[row] = InverseLength(x, columns);
      ByVectors(columns, [&](int64_t i, auto v) {
        using V = decltype(v);
        Store(into + i, Load<V>(into + i) + Load<V>(x + i) * scale);
      });
    }
  });
  std::fill_n(to, columns, 0.0f);
  for (int64_t part = 0; part < parts; ++part) {
    const float* each = sums.data() + part * columns;
    for (int64_t i = 0; i < columns; ++i) to[i] += each[i];
  }
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
