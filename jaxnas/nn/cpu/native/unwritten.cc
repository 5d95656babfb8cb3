// Memory that nothing is written to but at its beginning.

#include "vectors.h"

namespace ffi = xla::ffi;

namespace jaxnas {
namespace {

using Flat = ffi::AnyBuffer;

ffi::Error Extend(ffi::ThreadPool pool, Flat x, ffi::Result<Flat> out,
                  int64_t) {
  int64_t count = x.size_bytes();
  if (count > int64_t(out->size_bytes())) {
    return ffi::Error::InvalidArgument("what is extended must fit");
  }
  constexpr int64_t kPiece = 1 << 18;
  const char* from = From<char>(x);
  char* to = To<char>(out);
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
