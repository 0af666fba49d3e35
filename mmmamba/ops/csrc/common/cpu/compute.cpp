#include "compute.hpp"

#include <numeric>
#include <vector>

#include "dispatch.hpp"
#include "scratch.hpp"

namespace mmmamba {
namespace {

// Fewer rows than this for each thread, and the threads share the columns.
// Measured on Zen 4 with two threads.
constexpr int64_t kRowsOfThread = 64;

template <typename Args>
void run(void (*kernel)(const Args&, int64_t, int64_t), const Args& args,
         int64_t tasks, const Runtime& runtime) {
  runtime.parallel_for(
      tasks, 1, [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
}

template <typename Args>
void run(const TaskKernels<Args>& kernels, const Args& args,
         const Runtime& runtime) {
  run(kernels.run, args, kernels.count_tasks(args), runtime);
}

const gemm::Kernels& gemm_kernels(const gemm::Weight& weight) {
#ifdef MMMAMBA_HAS_DOT_KERNELS
  using gemm::Precision;
  const DotProducts products = dot_products();
  if (weight.precision != Precision::kFloat &&
      products == DotProducts::kBFloat16) {
    static const auto kernels = avx512_dot::gemm::kernels();
    return kernels;
  }
  if (weight.precision == Precision::kInt8 && products == DotProducts::kInt8) {
    static const auto kernels = avx512_vnni::gemm::kernels();
    return kernels;
  }
#endif
  return MMMAMBA_KERNELS_FOR_THIS_CPU(gemm::kernels);
}

const stem_conv::Kernels& stem_kernels(bool bfloat16) {
#ifdef MMMAMBA_HAS_DOT_KERNELS
  if (bfloat16 && dot_products() == DotProducts::kBFloat16) {
    static const auto kernels = avx512_dot::stem_conv::kernels();
    return kernels;
  }
#endif
  return MMMAMBA_KERNELS_FOR_THIS_CPU(stem_conv::kernels);
}

// Threads share the rows: whole samples where all get the same number of them.
template <typename Work>
void share_rows(int64_t rows, int64_t sample, const Runtime& runtime,
                const Work& work) {
  const int64_t unit = rows / sample % runtime.threads() == 0 ? sample : 1;
  const int64_t grain = (kRowsOfThread + unit - 1) / unit;
  runtime.parallel_for(rows / unit, grain, [&](int64_t begin, int64_t end) {
    work(begin * unit, end * unit);
  });
}

}  // namespace

template <typename T>
void compute(const depthwise_conv::Args<T>& args, const Runtime& runtime) {
  run(MMMAMBA_KERNELS_FOR_THIS_CPU(depthwise_conv::kernels<T>), args, runtime);
}

template <typename T>
void compute(const mixer_conv::Args<T>& args, const Runtime& runtime) {
  run(MMMAMBA_KERNELS_FOR_THIS_CPU(mixer_conv::kernels<T>), args, runtime);
}

template <typename T>
void compute(scan_gate::Args<T> args, const Runtime& runtime) {
  // The kernels have the channels last: (2, d_state, channels).
  const int64_t channels = args.channels, d_state = args.d_state;
  Scratch scratch{d_state > 1 ? 2 * channels * d_state : 0};
  if (d_state > 1) {
    float* decay = scratch.take(2 * channels * d_state);
    for (int64_t row = 0; row < 2 * channels; ++row)
      for (int64_t n = 0; n < d_state; ++n)
        decay[(row / channels * d_state + n) * channels + row % channels] =
            args.A[row * d_state + n];
    args.A = decay;
  }
  const auto& k = MMMAMBA_KERNELS_FOR_THIS_CPU(scan_gate::kernels<T>);
  const int64_t vectors = channels / k.lanes;
  if (args.batch % runtime.threads() != 0) {
    run(k.scan, args, args.batch * vectors, runtime);
    run(k.gate, args, args.batch * args.length, runtime);
    return;
  }
  // A thread has whole samples, and finishes them while they are cached.
  runtime.parallel_for(args.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      k.scan(args, b * vectors, (b + 1) * vectors);
      k.gate(args, b * args.length, (b + 1) * args.length);
    }
  });
}

template <typename T>
void compute(const scan::Args<T>& args, const Runtime& runtime) {
  const auto& k = MMMAMBA_KERNELS_FOR_THIS_CPU(scan::kernels<T>);
  const scan::Sizes& sizes = args.sizes;
  const int64_t tasks =
      sizes.batch * ((sizes.channels + k.lanes - 1) / k.lanes);
  if (args.delta.data == nullptr)
    run(k.bidirectional_forward, args, tasks, runtime);
  else
    run(k.selective_forward, args, tasks * sizes.directions, runtime);
}

void compute(stem_conv::Args args, const Runtime& runtime) {
  const auto& k = stem_kernels(args.bfloat16);
  std::vector<stem_conv::Layer> layers(args.layers, args.layers + args.depth);
  int64_t floats = 0, height = args.height;
  for (const auto& layer : layers) {
    floats += k.count_panels(layer) * k.panel_size(layer);
    height = (height + 1) / 2;
  }
  Scratch scratch{floats};
  float* packed = scratch.take(floats);
  for (auto& layer : layers) {
    const int64_t panels = k.count_panels(layer), size = k.panel_size(layer);
    if (panels == 0) continue;
    runtime.parallel_for(panels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) k.pack(layer, i, packed + i * size);
    });
    layer.packed = packed;
    packed += panels * size;
  }
  args.layers = layers.data();
  // As few bands as give all threads the same to do: each computes the rows
  // around it once more.
  const int64_t threads = runtime.threads();
  args.bands = std::min(threads / std::gcd(threads, args.batch), height);
  run(k.run, args, args.batch * args.bands, runtime);
}

void compute(const gemm::Args& args, int64_t rows, const Runtime& runtime) {
  const auto& k = gemm_kernels(args.weight);
  const int64_t panels = k.count_panels(args.out);
  if (rows < kRowsOfThread * runtime.threads()) {
    const int64_t share = runtime.share(panels);
    const int64_t next_share = runtime.share(k.count_panels(args.next.out));
    runtime.parallel_for(panels, 1, [&](int64_t begin, int64_t end) {
      gemm::Args columns = args;
      columns.next.panel = begin / share * next_share;
      k.linear(columns, 0, rows, begin, end);
    });
  } else {
    share_rows(rows, args.sample, runtime, [&](int64_t begin, int64_t end) {
      k.linear(args, begin, end, 0, panels);
    });
  }
}

void compute(gemm::Args first, gemm::Args second, int64_t rows,
             const Runtime& runtime) {
  first.next = {second.in, second.out, second.weight};
  if (rows < kRowsOfThread * runtime.threads()) {
    Scratch scratch{rows * first.out};
    first.y = {scratch.take(rows * first.out), first.out};
    second.x = {first.y.data, first.out};
    compute(first, rows, runtime);
    compute(second, rows, runtime);
  } else {
    const auto& k = gemm_kernels(first.weight);
    share_rows(rows, first.sample, runtime, [&](int64_t begin, int64_t end) {
      k.feed_forward(first, second, begin, end);
    });
  }
}

template void compute(const depthwise_conv::Args<float>&, const Runtime&);
template void compute(const depthwise_conv::Args<BFloat16>&, const Runtime&);
template void compute(const mixer_conv::Args<float>&, const Runtime&);
template void compute(const mixer_conv::Args<BFloat16>&, const Runtime&);
template void compute(scan_gate::Args<float>, const Runtime&);
template void compute(scan_gate::Args<BFloat16>, const Runtime&);
template void compute(const scan::Args<float>&, const Runtime&);
template void compute(const scan::Args<double>&, const Runtime&);

}  // namespace mmmamba
