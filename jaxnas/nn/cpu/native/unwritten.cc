// Memory that nothing is written to but at its beginning, in float32.

#include "vectors.h"

namespace ffi = xla::ffi;

namespace jaxnas {
namespace {

using Flat = ffi::Buffer<ffi::F32, 1>;

ffi::Error Extend(ffi::ThreadPool pool, Flat x, ffi::Result<Flat> out,
                  int64_t) {
  int64_t count = x.element_count();
  if (count > int64_t(out->element_count())) {
    return ffi::Error::InvalidArgument("what is extended must fit");
  }
  constexpr int64_t kPiece = 1 << 16;
  const float* from = x.typed_data();
  float* to = out->typed_data();
  ForEach(pool, (count + kPiece - 1) / kPiece, [&](int64_t piece) {
    int64_t first = piece * kPiece;
    std::copy_n(from + first, std::min(kPiece, count - first), to + first);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace jaxnas

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_extend, jaxnas::Extend,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Flat>()
                                  .Ret<jaxnas::Flat>()
                                  .Attr<int64_t>("number"));
