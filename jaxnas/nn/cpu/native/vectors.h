// What the functions share: vectors of floats, maps in memory as floats or
// bfloat16, and all threads of the host.

#ifndef JAXNAS_VECTORS_H_
#define JAXNAS_VECTORS_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace jaxnas {

#if defined(__AVX512F__)
constexpr int64_t kLanes = 16;
#elif defined(__AVX__)
constexpr int64_t kLanes = 8;
#else
constexpr int64_t kLanes = 4;
#endif

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
typedef float Quad __attribute__((vector_size(4 * sizeof(float))));

template <typename V = Vector>
inline V Load(const float* from) {
  V value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

template <typename V>
inline void Store(float* to, V value) {
  std::memcpy(to, &value, sizeof(value));
}

// The first half of a float. Maps may lie in memory as such; all arithmetic is
// that of floats.
struct Bfloat16 {
  uint16_t bits;
};

// Bits of floats, and of as many halves.
struct BitsOfVector {
  typedef uint32_t Whole __attribute__((vector_size(kLanes * 4)));
  typedef uint16_t Half __attribute__((vector_size(kLanes * 2)));
  static Whole Widen(Half x) { return __builtin_convertvector(x, Whole); }
  static Half Narrow(Whole x) { return __builtin_convertvector(x, Half); }
};

struct BitsOfQuad {
  typedef uint32_t Whole __attribute__((vector_size(16)));
  typedef uint16_t Half __attribute__((vector_size(8)));
  static Whole Widen(Half x) { return __builtin_convertvector(x, Whole); }
  static Half Narrow(Whole x) { return __builtin_convertvector(x, Half); }
};

struct BitsOfOne {
  using Whole = uint32_t;
  using Half = uint16_t;
  static Whole Widen(Half x) { return x; }
  static Half Narrow(Whole x) { return x; }
};

template <typename V>
using BitsOf = std::conditional_t<
    sizeof(V) == sizeof(Vector), BitsOfVector,
    std::conditional_t<sizeof(V) == sizeof(Quad), BitsOfQuad, BitsOfOne>>;

template <typename V = Vector>
inline V Load(const Bfloat16* from) {
  typename BitsOf<V>::Half half;
  std::memcpy(&half, from, sizeof(half));
  typename BitsOf<V>::Whole whole = BitsOf<V>::Widen(half) << 16;
  V value;
  std::memcpy(&value, &whole, sizeof(value));
  return value;
}

// Rounds to the nearest, ties to even; not-a-number stays so.
template <typename V>
inline void Store(Bfloat16* to, V value) {
  typename BitsOf<V>::Whole whole;
  std::memcpy(&whole, &value, sizeof(whole));
  auto rounded = whole + 0x7fff + ((whole >> 16) & 1);
  whole = value == value ? rounded : whole | 0x400000;
  auto half = BitsOf<V>::Narrow(whole >> 16);
  std::memcpy(to, &half, sizeof(half));
}

// Returns work(T{}) with what a map holds, or says what there is not.
template <typename Work>
inline xla::ffi::Error ByType(const xla::ffi::AnyBuffer& map,
                              const Work& work) {
  switch (map.element_type()) {
    case xla::ffi::F32: return work(float{});
    case xla::ffi::BF16: return work(Bfloat16{});
    default: return xla::ffi::Error::InvalidArgument("maps are F32 or BF16");
  }
}

template <typename T>
inline const T* From(const xla::ffi::AnyBuffer& map) {
  return static_cast<const T*>(map.untyped_data());
}

template <typename T>
inline T* To(xla::ffi::Result<xla::ffi::AnyBuffer>& map) {
  return static_cast<T*>(map->untyped_data());
}

// Calls work(index, V{}) until all of `count` floats are done: by vectors,
// then by fours, then one by one.
template <typename Work>
inline void ByVectors(int64_t count, const Work& work) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) work(i, Vector{});
  for (; i + 4 <= count; i += 4) work(i, Quad{});
  for (; i < count; ++i) work(i, 0.0f);
}

// A sum in as many parts as `ByVectors` has widths.
struct Sums {
  Vector vector{};
  Quad quad{};
  float one = 0;

  // Vectors may be no wider than four.
  template <typename V>
  void Add(V x) {
    if constexpr (sizeof(V) == sizeof(Vector)) {
      vector += x;
    } else if constexpr (sizeof(V) == sizeof(Quad)) {
      quad += x;
    } else {
      one += x;
    }
  }

  float Total() const {
    float total = one;
    for (int i = 0; i < 4; ++i) total += quad[i];
    for (int i = 0; i < kLanes; ++i) total += vector[i];
    return total;
  }
};

// to[i] = from[i].
template <typename From, typename To>
void Copy(const From* from, int64_t count, To* to) {
  ByVectors(count, [&](int64_t i, auto v) {
    Store(to + i, Load<decltype(v)>(from + i));
  });
}

// The sum of value(x[i]).
template <typename T, typename Value>
float Sum(const T* x, int64_t count, const Value& value) {
  // Four sums, as each addition waits for the one before it.
  Sums sums[4];
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) sums[j].Add(value(Load(x + i + j * kLanes)));
  }
  ByVectors(count - i, [&](int64_t j, auto v) {
    sums[0].Add(value(Load<decltype(v)>(x + i + j)));
  });
  return sums[0].Total() + sums[1].Total() + sums[2].Total() + sums[3].Total();
}

// Runs work(0) .. work(count - 1) on all threads. The caller takes part, and
// waits for no task that has not begun: with all threads in here none hangs.
template <typename Work>
void ForEach(xla::ffi::ThreadPool pool, int64_t count, const Work& work) {
  struct State {
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> done{0};
    std::mutex mutex;
    std::condition_variable finished;
  };
  auto state = std::make_shared<State>();
  const Work* job = &work;
  auto run = [state, job, count] {
    for (;;) {
      int64_t index = state->next.fetch_add(1);
      if (index >= count) return;
      (*job)(index);
      if (state->done.fetch_add(1) + 1 == count) {
        std::lock_guard<std::mutex> lock(state->mutex);
        state->finished.notify_all();
      }
    }
  };
  int64_t helpers = std::min(pool.num_threads(), count) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(decltype(run)(run));
  run();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->finished.wait(lock, [&] { return state->done.load() == count; });
}

// Parts that a sum is made of.
constexpr int64_t kParts = 8;

// Items that one of several parts has.
struct Range {
  int64_t first, end;
  int64_t count() const { return end - first; }
};

// to[0 .. size) = the sum of what add(range, into) adds for all items. Parts of
// them are summed apart, as many whatever the threads: sums do not depend on
// them.
template <typename Add>
void SumOfRanges(xla::ffi::ThreadPool pool, int64_t items, int64_t size,
                 float* to, const Add& add) {
  constexpr int64_t kPiece = 4096;
  int64_t parts = std::min(kParts, items);
  std::vector<float> sums(parts * size, 0.0f);
  ForEach(pool, parts, [&](int64_t part) {
    add(Range{items * part / parts, items * (part + 1) / parts},
        sums.data() + part * size);
  });
  ForEach(pool, (size + kPiece - 1) / kPiece, [&](int64_t piece) {
    int64_t first = piece * kPiece, last = std::min(size, first + kPiece);
    std::fill(to + first, to + last, 0.0f);
    for (int64_t part = 0; part < parts; ++part) {
      const float* each = sums.data() + part * size;
      for (int64_t i = first; i < last; ++i) to[i] += each[i];
    }
  });
}

// The same of what add(item, into) adds.
template <typename Add>
void SumInParts(xla::ffi::ThreadPool pool, int64_t items, int64_t size,
                float* to, const Add& add) {
  SumOfRanges(pool, items, size, to, [&](Range range, float* into) {
    for (int64_t item = range.first; item < range.end; ++item) add(item, into);
  });
}

}  // namespace jaxnas

#endif  // JAXNAS_VECTORS_H_
