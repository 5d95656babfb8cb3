// NHWC maps to CHWN and back: the first axis and the last change places.

#include "vectors.h"

namespace ffi = xla::ffi;

namespace jaxnas {
namespace {

using Map = ffi::AnyBuffer;

ffi::Error Relayout(ffi::ThreadPool pool, Map x, ffi::Result<Map> out) {
  auto in = x.dimensions();
  int64_t first = in[0], places = in[1] * in[2], last = in[3];
  return ByType(x, [&](auto type) {
    using T = decltype(type);
    const T* from = From<T>(x);
    T* to = To<T>(out);
    // Places of a task lie together, so that whole cache lines move.
    constexpr int64_t kPlaces = 8;
    ForEach(pool, (places + kPlaces - 1) / kPlaces, [&](int64_t task) {
      // A place of all maps is gathered first: they lie a power of two apart,
      // where few of their lines fit into a cache.
      thread_local std::vector<T> gathered;
      gathered.resize(first * last);
      int64_t end = std::min(places, (task + 1) * kPlaces);
      for (int64_t place = task * kPlaces; place < end; ++place) {
        for (int64_t f = 0; f < first; ++f) {
          std::copy_n(from + (f * places + place) * last, last,
                      gathered.data() + f * last);
        }
        for (int64_t l = 0; l < last; ++l) {
          T* row = to + (l * places + place) * first;
          for (int64_t f = 0; f < first; ++f) row[f] = gathered[f * last + l];
        }
      }
    });
    return ffi::Error::Success();
  });
}

}  // namespace
}  // namespace jaxnas

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_relayout, jaxnas::Relayout,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Map>()
                                  .Ret<jaxnas::Map>());
