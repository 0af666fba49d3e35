// The convolutions of the stem, for the instruction set that the including file
// names. They have few channels and large maps: a convolution makes rows of its
// map when the next one needs them, in a ring buffer that stays in the cache.
#pragma once

#include "stem_conv_winograd_impl.hpp"

namespace mmmamba::MMMAMBA_ISA::stem_conv {

// Outputs from which on reading the weight costs little. On Zen 4, one thread,
// S6, T2 and B4: 64 and 256 take 0.98 to 1.02 of the time.
constexpr int64_t kStemPixels = 128;

// ---------------------------------------------------------------------- maps

// Rows that are computed in one go: pairs, for tiles.
inline int64_t rows_at_once(int64_t height, int64_t width) {
  return std::min(height, ceil_div(kStemPixels, 2 * width) * 2);
}

// The image and what each convolution makes of it. Of the last, the result, all
// rows are kept, without a border.
inline std::vector<RingBuffer> layout(const Args& args) {
  std::vector<RingBuffer> maps;
  int64_t height = args.height, width = args.width;
  for (int64_t i = 0; i < args.depth; ++i) {
    const int64_t y_height = ceil_div(height, 2), y_width = ceil_div(width, 2);
    const int64_t channels = args.layers[i].in;
    // A tile's second output may be beyond the last.
    maps.push_back(
        {height, width, channels, (4 * ceil_div(y_width, 2) + 1) * channels,
         2 * rows_at_once(y_height, y_width) + 1, 0, nullptr, channels});
    height = y_height;
    width = y_width;
  }
  const int64_t channels = args.layers[args.depth - 1].out;
  maps.push_back(
      {height, width, channels, width * channels, height, 0, nullptr, 0});
  return maps;
}

// Elements of a map's memory, in vectors.
inline int64_t count_vectors(const RingBuffer& map) {
  return ceil_div((map.capacity + 1) * map.length, kLanes<float>);
}

// Gives a map its memory, and the zeros, which nothing else writes to.
inline void place(RingBuffer& map, Arena<float>& arena) {
  map.data = reinterpret_cast<float*>(arena.take(count_vectors(map)));
  for (int64_t i = 0; i < map.capacity; ++i) {
    float* row = map.at(i);
    std::fill_n(row, map.channels, 0.0f);
    std::fill(row + (map.width + 1) * map.channels, row + map.length, 0.0f);
  }
  std::fill_n(map.data + map.capacity * map.length, map.length, 0.0f);
}

inline void load_row(const Args& args, int64_t b, int64_t row,
                     const RingBuffer& map) {
  const float* x = args.x + b * args.x_batch + row * args.x_row;
  float* target = map.pixels(row);
  if (args.x_channel == 1 && args.x_column == map.channels) {
    std::copy_n(x, map.width * map.channels, target);
    return;
  }
  for (int64_t c = 0; c < map.channels; ++c, x += args.x_channel)
    for (int64_t j = 0; j < map.width; ++j)
      target[j * map.channels + c] = x[j * args.x_column];
}

// --------------------------------------------------------------- convolution

// Half a vector: channels that fill no more waste half as much.
typedef float HalfVec __attribute__((vector_size(MMMAMBA_SIMD_BYTES / 2)));

inline HalfVec load_half(const float* source) {
  HalfVec v;
  std::memcpy(&v, source, sizeof(v));
  return v;
}

// kWidth neighbouring outputs of kVectors vectors of channels, and half a
// vector if kHalf. In memory the three pixels that a row of the kernel covers
// are neighbours, so that each output is a sum over three runs of the input.
template <int kWidth, int kVectors, bool kHalf>
void stem_outputs(const Layer& layer, const float* const* rows, int64_t start,
                  const PanelChannels& channels, float* y) {
  const int64_t in = layer.in, out = layer.out;
  const int64_t* at = channels.at;
  FloatVec sums[kVectors + 1][kWidth];  // a half may be all there is
  HalfVec halves[kWidth];
  unroll<kWidth>([&](auto o) MMMAMBA_INLINE {
    unroll<kVectors>(
        [&](auto v) MMMAMBA_INLINE { sums[v][o] = load(layer.bias + at[v]); });
    if constexpr (kHalf) halves[o] = load_half(layer.bias + at[kVectors]);
  });
  const float* weight = layer.weight;
  for (int64_t k = 0; k < 3; ++k) {
    const float* x = rows[k] + 2 * start * in;
    for (int64_t i = 0; i < 3 * in; ++i, ++x, weight += out) {
      FloatVec w[kVectors + 1];
      HalfVec w_half;
      unroll<kVectors>([&](auto v)
                           MMMAMBA_INLINE { w[v] = load(weight + at[v]); });
      if constexpr (kHalf) w_half = load_half(weight + at[kVectors]);
      unroll<kWidth>([&](auto o) MMMAMBA_INLINE {
        const float input = x[2 * o * in];
        unroll<kVectors>([&](auto v)
                             MMMAMBA_INLINE { sums[v][o] += w[v] * input; });
        if constexpr (kHalf) halves[o] += w_half * input;
      });
    }
  }
  const auto put = [&](auto sum, float* target) MMMAMBA_INLINE {
    const decltype(sum) zero = {};
    if (layer.relu) sum = sum < zero ? zero : sum;  // a NaN stays
    std::memcpy(target, &sum, sizeof(sum));
  };
  unroll<kWidth>([&](auto o) MMMAMBA_INLINE {
    float* target = y + (start + o) * out;
    unroll<kVectors>([&](auto v)
                         MMMAMBA_INLINE { put(sums[v][o], target + at[v]); });
    if constexpr (kHalf) put(halves[o], target + at[kVectors]);
  });
}

// The rows [first, last) of the output. The last outputs and the last channels
// overlap those before where their number is no multiple.
template <int kWidth>
void output_rows(const Layer& layer, const RingBuffer& input, int64_t first,
                 int64_t last, const RingBuffer& output, float*) {
  constexpr decltype(&stem_outputs<kWidth, 1, false>) kFunctions[] = {
      stem_outputs<kWidth, 0, true>, stem_outputs<kWidth, 1, false>,
      stem_outputs<kWidth, 1, true>, stem_outputs<kWidth, 2, false>,
      // Of three vectors, where they are as many.
      stem_outputs<kWidth, kNRVectors - 1, true>,
      stem_outputs<kWidth, kNRVectors, false>};
  constexpr int64_t kHalf = kLanes<float> / 2;
  const int64_t width = ceil_div(input.width, 2);
  for (int64_t panel = 0; panel * kNR < layer.out; ++panel) {
    PanelChannels channels(panel, layer.out);
    const int64_t halves =
        std::min(ceil_div(layer.out - panel * kNR, kHalf), kNR / kHalf);
    if (halves % 2) channels.at[channels.count - 1] = layer.out - kHalf;
    const auto outputs = kFunctions[halves - 1];
    for (int64_t i = first; i < last; ++i) {
      const float* rows[] = {input.padded(2 * i - 1), input.padded(2 * i),
                             input.padded(2 * i + 1)};
      for (int64_t j = 0; j < width; j += kWidth)
        outputs(layer, rows, std::min(j, width - kWidth), channels,
                output.pixels(i));
    }
  }
}

// The rows [first, last) of the output, as many pixels at a time as divide
// a row most evenly.
template <int... kWidth>
void stem_rows(const Layer& layer, const RingBuffer& input, int64_t first,
               int64_t last, const RingBuffer& output, float* buffer,
               std::integer_sequence<int, kWidth...>) {
  using Function = void (*)(const Layer&, const RingBuffer&, int64_t, int64_t,
                            const RingBuffer&, float*);
  constexpr Function kOutputs[] = {output_rows<kWidth + 1>...};
  constexpr Function kTiles[] = {tile_rows<kWidth + 1>...};
  const int64_t outputs = ceil_div(input.width, 2);
  const int64_t width = layer.packed ? ceil_div(outputs, 2) : outputs;
  const int64_t pixels = ceil_div(width, ceil_div(width, kMR));
  const Function* functions = layer.packed ? kTiles : kOutputs;
  functions[pixels - 1](layer, input, first, last, output, buffer);
}

// Makes the rows of a map up to `end`, and first those that they depend on.
inline void make_rows(const Args& args, int64_t b,
                      std::vector<RingBuffer>& maps, int64_t level, int64_t end,
                      float* buffer) {
  const auto widths = std::make_integer_sequence<int, kMR>();
  RingBuffer& map = maps[level];
  if (level == 0) {
    for (; map.done < end; ++map.done) load_row(args, b, map.done, map);
    return;
  }
  const Layer& layer = args.layers[level - 1];
  const RingBuffer& input = maps[level - 1];
  while (map.done < end) {
    const int64_t first = map.done;
    const int64_t last =
        std::min(first + rows_at_once(map.height, map.width), end);
    make_rows(args, b, maps, level - 1, std::min(2 * last, input.height),
              buffer);
    stem_rows(layer, input, first, last, map, buffer, widths);
    map.done = last;
  }
}

void run(const Args& args, int64_t begin, int64_t end) {
  std::vector<RingBuffer> maps = layout(args);
  int64_t vectors = 0, room = 0;
  for (int64_t i = 0; i < args.depth; ++i) {
    vectors += count_vectors(maps[i]);
    const RingBuffer& y = maps[i + 1];
    if (args.layers[i].packed != nullptr)
      room = std::max(room, transformed_size(maps[i].channels, y.width,
                                             rows_at_once(y.height, y.width)));
  }
  room = ceil_div(room, kLanes<float>);
  Arena<float> arena(vectors + room);
  for (int64_t i = 0; i < args.depth; ++i) place(maps[i], arena);
  float* buffer = reinterpret_cast<float*>(arena.take(room));
  const int64_t height = maps.back().height, pairs = ceil_div(height, 2);
  for (int64_t task = begin; task < end; ++task) {
    // Pairs of rows, each with the rows that it depends on.
    const int64_t band = task % args.bands, b = task / args.bands;
    maps.back().data = args.y + b * maps.back().length * height;
    int64_t first = pairs * band / args.bands * 2;
    for (int64_t i = args.depth; i >= 0; --i) {
      maps[i].done = first / 2 * 2;
      first = std::max<int64_t>(0, 2 * maps[i].done - 1);
    }
    make_rows(args, b, maps, args.depth,
              std::min(pairs * (band + 1) / args.bands * 2, height), buffer);
  }
}

Kernels kernels() {
  return {count_tile_panels, tile_weight_size, pack_tile_weight, run};
}

}  // namespace mmmamba::MMMAMBA_ISA::stem_conv
