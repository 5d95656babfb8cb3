// Convolutions of NHWC maps and products of matrices, of bfloat16 with sums in
// float32, by oneDNN: it takes the matrix units (AMX) or the dot products
// (AVX512-BF16) that a processor has. The work is divided here, and each part is
// of one thread: sums do not depend on how many there are.

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "vectors.h"

namespace ffi = xla::ffi;

// OpenMP's, which oneDNN brings along.
extern "C" void omp_set_num_threads(int);

namespace jaxnas {
namespace {

using Map = ffi::Buffer<ffi::BF16, 4>;
using Kernel = ffi::Buffer<ffi::BF16, 4>;
using Matrix = ffi::Buffer<ffi::BF16, 2>;
using OfKernel = ffi::Buffer<ffi::F32, 4>;
using OfMatrix = ffi::Buffer<ffi::F32, 2>;
using dnnl::memory;
using Tag = memory::format_tag;
constexpr auto kBfloat16 = memory::data_type::bf16;
constexpr auto kFloat = memory::data_type::f32;

const dnnl::engine& Cpu() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

// Memory for a layout, aligned as oneDNN allocates it.
memory Room(const memory::desc& layout) { return memory(layout, Cpu()); }

template <typename T>
memory At(const memory::desc& layout, T* data) {
  return memory(layout, Cpu(),
                const_cast<void*>(static_cast<const void*>(data)));
}

// Runs a primitive on one thread.
void Run(const dnnl::primitive& primitive,
         const std::unordered_map<int, memory>& arguments) {
  omp_set_num_threads(1);
  dnnl::stream stream(Cpu());
  primitive.execute(stream, arguments);
  stream.wait();
}

void Reorder(memory from, memory to) {
  Run(dnnl::reorder(from, to), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
}

// A primitive, which threads may run at once, and what it expects of memory.
struct Prepared {
  dnnl::primitive primitive;
  memory::desc source, weights, result, scratch;

  // Numbers are oneDNN's names of the three.
  void Run(int source, memory x, int weights, memory w, int result,
           memory y) const {
    thread_local std::vector<char> room;
    constexpr size_t kLine = 64;
    room.resize(std::max(room.size(), scratch.get_size() + kLine));
    size_t past = reinterpret_cast<uintptr_t>(room.data()) % kLine;
    jaxnas::Run(primitive,
                {{source, x},
                 {weights, w},
                 {result, y},
                 {DNNL_ARG_SCRATCHPAD,
                  At(scratch, room.data() + (kLine - past) % kLine)}});
  }
};

// What make() has made for this key, when it was asked for first.
template <typename Key, typename Make>
const Prepared& Kept(const Key& key, const Make& make) {
  static std::mutex mutex;
  static std::map<Key, Prepared> kept;
  std::lock_guard<std::mutex> lock(mutex);
  auto found = kept.find(key);
  if (found == kept.end()) {
    omp_set_num_threads(1);
    found = kept.emplace(key, make()).first;
  }
  return found->second;
}

dnnl::primitive_attr Options() {
  dnnl::primitive_attr options;
  options.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return options;
}

// Says what oneDNN does where it refuses.
template <typename Work>
ffi::Error Guarded(const Work& work) {
  try {
    work();
  } catch (const dnnl::error& error) {
    return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  }
  return ffi::Error::Success();
}

// Calls prepare(count) for what parts of `items`, of which none is larger than
// another by more than one, will ask for: threads let no exception out.
template <typename Prepare>
void PrepareParts(int64_t items, int64_t parts, const Prepare& prepare) {
  parts = std::min(parts, items);
  prepare(items / parts);
  prepare((items + parts - 1) / parts);
}

enum class Pass { kForward, kInput, kKernel };

// Padding is K / 2 on both sides.
struct Convolution {
  int64_t batch, height, width, inputs, outputs, k, stride;

  Convolution(ffi::Span<const int64_t> x, ffi::Span<const int64_t> kernel,
              int64_t stride)
      : batch(x[0]),
        height(x[1]),
        width(x[2]),
        inputs(x[3]),
        outputs(kernel[3]),
        k(kernel[0]),
        stride(stride) {}

  int64_t out(int64_t side) const { return (side - 1) / stride + 1; }
  int64_t image() const { return height * width * inputs; }
  int64_t result() const { return out(height) * out(width) * outputs; }
  int64_t kernel() const { return k * k * inputs * outputs; }

  Convolution Of(int64_t images) const {
    Convolution part = *this;
    part.batch = images;
    return part;
  }

  memory::desc Weights(memory::data_type type, Tag tag) const {
    return {{outputs, inputs, k, k}, type, tag};
  }

  Prepared Prepare(Pass pass) const {
    memory::desc x({batch, inputs, height, width}, kBfloat16, Tag::nhwc);
    memory::desc w = Weights(kBfloat16, Tag::any);
    memory::desc y({batch, outputs, out(height), out(width)}, kBfloat16,
                   Tag::nhwc);
    memory::dims strides{stride, stride}, pad{k / 2, k / 2};
    dnnl::primitive_attr options = Options();
    auto direct = dnnl::algorithm::convolution_direct;
    dnnl::convolution_forward::primitive_desc forward(
        Cpu(), dnnl::prop_kind::forward_training, direct, x, w, y, strides, pad,
        pad, options);
    if (pass == Pass::kForward) {
      return {dnnl::convolution_forward(forward), x, forward.weights_desc(), y,
              forward.scratchpad_desc()};
    }
    if (pass == Pass::kInput) {
      dnnl::convolution_backward_data::primitive_desc of(
          Cpu(), direct, x, w, y, strides, pad, pad, forward, options);
      return {dnnl::convolution_backward_data(of), x, of.weights_desc(), y,
              of.scratchpad_desc()};
    }
    dnnl::convolution_backward_weights::primitive_desc of(
        Cpu(), direct, x, Weights(kFloat, Tag::any), y, strides, pad, pad,
        forward, options);
    return {dnnl::convolution_backward_weights(of), x, of.diff_weights_desc(),
            y, of.scratchpad_desc()};
  }

  const Prepared& Kept(Pass pass) const {
    return jaxnas::Kept(
        std::tuple(pass, batch, height, width, inputs, outputs, k, stride),
        [&] { return Prepare(pass); });
  }
};

// A part of a convolution, and the kernel as oneDNN wants it.
struct Part {
  const Prepared& prepared;
  memory kernel;

  Part(const Convolution& c, const Bfloat16* weights, Pass pass)
      : prepared(c.Kept(pass)), kernel(Room(prepared.weights)) {
    Reorder(At(c.Weights(kBfloat16, Tag::hwio), weights), kernel);
  }
};

// From x to y, or back from the gradient of y to that of x.
ffi::Error Maps(ffi::ThreadPool pool, const Convolution& c, Pass pass,
                Bfloat16* x, const Bfloat16* kernel, Bfloat16* y) {
  constexpr int64_t kImages = 8;
  bool forward = pass == Pass::kForward;
  return Guarded([&] {
    Part whole(c.Of(std::min(kImages, c.batch)), kernel, pass);
    std::optional<Part> rest;
    if (int64_t left = c.batch % kImages) rest.emplace(c.Of(left), kernel, pass);
    ForEach(pool, (c.batch + kImages - 1) / kImages, [&](int64_t number) {
      int64_t first = number * kImages;
      const Part& part = first + kImages <= c.batch ? whole : *rest;
      const Prepared& with = part.prepared;
      with.Run(forward ? DNNL_ARG_SRC : DNNL_ARG_DIFF_SRC,
               At(with.source, x + first * c.image()), DNNL_ARG_WEIGHTS,
               part.kernel, forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST,
               At(with.result, y + first * c.result()));
    });
  });
}

template <typename Buffer>
Bfloat16* Data(Buffer& map) {
  return static_cast<Bfloat16*>(map.untyped_data());
}

ffi::Error Convolve(ffi::ThreadPool pool, Map x, Kernel kernel,
                    ffi::Result<Map> y, int64_t stride) {
  return Maps(pool, Convolution(x.dimensions(), kernel.dimensions(), stride),
              Pass::kForward, Data(x), Data(kernel), Data(*y));
}

ffi::Error InputGradient(ffi::ThreadPool pool, Map g, Kernel kernel,
                         ffi::Result<Map> dx, int64_t stride) {
  return Maps(pool, Convolution(dx->dimensions(), kernel.dimensions(), stride),
              Pass::kInput, Data(*dx), Data(kernel), Data(g));
}

ffi::Error KernelGradient(ffi::ThreadPool pool, Map x, Map g,
                          ffi::Result<OfKernel> out, int64_t stride) {
  Convolution c(x.dimensions(), out->dimensions(), stride);
  return Guarded([&] {
    PrepareParts(c.batch, kParts, [&](int64_t images) {
      c.Of(images).Kept(Pass::kKernel);
    });
    SumOfRanges(pool, c.batch, c.kernel(), out->typed_data(),
                [&](Range images, float* into) {
                  Convolution part = c.Of(images.count());
                  const Prepared& with = part.Kept(Pass::kKernel);
                  memory sum = Room(with.weights);
                  with.Run(
                      DNNL_ARG_SRC,
                      At(with.source, Data(x) + images.first * c.image()),
                      DNNL_ARG_DIFF_WEIGHTS, sum, DNNL_ARG_DIFF_DST,
                      At(with.result, Data(g) + images.first * c.result()));
                  Reorder(sum, At(c.Weights(kFloat, Tag::hwio), into));
                });
  });
}

// Columns of a part that is worth a task.
constexpr int64_t kColumns = 512;

// out = weights x (inner rows by columns), for parts of the columns.
ffi::Error Multiply(ffi::ThreadPool pool, Matrix weights, Matrix x,
                    ffi::Result<Matrix> out, bool transposed) {
  int64_t inner = x.dimensions()[0], columns = x.dimensions()[1];
  int64_t rows = out->dimensions()[0];
  memory::dims across{columns, 1};
  auto prepared = [&](int64_t count) -> const Prepared& {
    return Kept(std::tuple(transposed, rows, inner, columns, count), [&] {
      memory::desc left({rows, inner}, kBfloat16,
                        transposed ? Tag::ba : Tag::ab);
      memory::desc right({inner, count}, kBfloat16, across);
      memory::desc result({rows, count}, kBfloat16, across);
      dnnl::matmul::primitive_desc of(Cpu(), left, right, result, Options());
      return Prepared{dnnl::matmul(of), left, right, result,
                      of.scratchpad_desc()};
    });
  };
  // At most 16 parts, as many whatever the threads.
  int64_t parts = std::clamp<int64_t>(columns / kColumns, 1, 16);
  return Guarded([&] {
    PrepareParts(columns, parts, prepared);
    ForEach(pool, parts, [&](int64_t part) {
      int64_t first = columns * part / parts;
      const Prepared& with =
          prepared(columns * (part + 1) / parts - first);
      with.Run(DNNL_ARG_SRC, At(with.source, Data(weights)), DNNL_ARG_WEIGHTS,
               At(with.weights, Data(x) + first), DNNL_ARG_DST,
               At(with.result, Data(*out) + first));
    });
  });
}

// out = x (inner rows by columns) x g (rows by columns)', a sum over columns.
ffi::Error MultiplyGradient(ffi::ThreadPool pool, Matrix x, Matrix g,
                            ffi::Result<OfMatrix> out) {
  int64_t inner = x.dimensions()[0], columns = x.dimensions()[1];
  int64_t rows = g.dimensions()[0];
  auto prepared = [&](int64_t count) -> const Prepared& {
    return Kept(std::tuple(rows, inner, columns, count), [&] {
      memory::desc left({inner, count}, kBfloat16, memory::dims{columns, 1});
      memory::desc right({count, rows}, kBfloat16, memory::dims{1, columns});
      memory::desc result({inner, rows}, kFloat, Tag::ab);
      dnnl::matmul::primitive_desc of(Cpu(), left, right, result, Options());
      return Prepared{dnnl::matmul(of), left, right, result,
                      of.scratchpad_desc()};
    });
  };
  return Guarded([&] {
    PrepareParts(columns, kParts, prepared);
    SumOfRanges(pool, columns, inner * rows, out->typed_data(),
                [&](Range part, float* into) {
                  const Prepared& with = prepared(part.count());
                  with.Run(DNNL_ARG_SRC, At(with.source, Data(x) + part.first),
                           DNNL_ARG_WEIGHTS,
                           At(with.weights, Data(g) + part.first), DNNL_ARG_DST,
                           At(with.result, into));
                });
  });
}

// What takes a map and a kernel, and gives a map.
auto OfMaps() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Map>()
      .Arg<Kernel>()
      .Ret<Map>()
      .Attr<int64_t>("stride");
}

}  // namespace
}  // namespace jaxnas

// What oneDNN multiplies bfloat16 by: nothing of its own, AVX512-BF16, or AMX,
// which a processor may have and the system not permit.
extern "C" int jaxnas_onednn_instructions() {
  int has = static_cast<int>(dnnl::get_effective_cpu_isa());
  auto all = [&](int of) { return (has & of) == of; };
  if (all(dnnl_cpu_isa_avx512_core_amx)) return 2;
  return all(dnnl_cpu_isa_avx512_core_bf16) ? 1 : 0;
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_onednn_convolve, jaxnas::Convolve,
                              jaxnas::OfMaps());

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_onednn_input_gradient,
                              jaxnas::InputGradient, jaxnas::OfMaps());

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_onednn_kernel_gradient,
                              jaxnas::KernelGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Map>()
                                  .Arg<jaxnas::Map>()
                                  .Ret<jaxnas::OfKernel>()
                                  .Attr<int64_t>("stride"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_onednn_multiply, jaxnas::Multiply,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Matrix>()
                                  .Arg<jaxnas::Matrix>()
                                  .Ret<jaxnas::Matrix>()
                                  .Attr<bool>("transposed"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxnas_onednn_multiply_gradient,
                              jaxnas::MultiplyGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<jaxnas::Matrix>()
                                  .Arg<jaxnas::Matrix>()
                                  .Ret<jaxnas::OfMatrix>());
