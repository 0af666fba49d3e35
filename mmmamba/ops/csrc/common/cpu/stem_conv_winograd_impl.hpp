// 3x3 convolutions of stride 2 with 25 multiplications instead of 36, for the
// instruction set that the including file names. Two neighbouring outputs of
// one dimension are sums over five inputs, of which the middle one is shared
// (Winograd's F(2, 2) on every other input):
//
//   y0 = x0 w0 + x1 w1 + x2 w2 = (x0 - x2) w0 + x1 w1 + x2 (w0 + w2)
//   y1 = x2 w0 + x3 w1 + x4 w2 = x2 (w0 + w2) + x3 w1 + (x4 - x2) w2
//
// In both dimensions that makes a tile of 2x2 outputs of 5x5 inputs. For each
// of the inputs' five rows, the differences among them, a tile is five runs of
// the channels: x0 - x2, x1, x2, x3, x4 - x2. So the first two and the last
// two are one sum over twice the channels, with w0, w1 or with w1, w2. Where
// there are instructions for it, inputs and weights are rounded to bfloat16.
#pragma once

#include "activation.hpp"
#include "gemm_tile.hpp"
#include "memory.hpp"
#include "stem_conv.hpp"
#include "stem_conv_ring_impl.hpp"

namespace mmmamba::MMMAMBA_ISA::stem_conv {

// The first channels of the vectors of a panel: the last vector overlaps the
// one before it where there are no channels left.
struct PanelChannels {
  int64_t count = 0;
  int64_t at[kNRVectors];

  PanelChannels(int64_t panel, int64_t channels) {
    constexpr int64_t W = kLanes<float>;
    for (int64_t c = panel * kNR; count < kNRVectors && c < channels; c += W)
      at[count++] = std::min(c, channels - W);
  }
};

// ------------------------------------------------------------ weight and input

constexpr Precision kTilePrecision =
    MMMAMBA_DOT_BFLOAT16 ? Precision::kBFloat16 : Precision::kFloat;
using TileInput = std::conditional_t<MMMAMBA_DOT_BFLOAT16, BFloat16, float>;

// Words of a run of the channels; a zero fills the last one.
inline int64_t run_words(int64_t in) {
  return ceil_div(in, kNumbers<kTilePrecision>);
}

// Panels of the weight; none where channels of the input fill no vector.
inline int64_t count_tile_panels(const Layer& layer) {
  return layer.in < kLanes<float> ? 0 : ceil_div(layer.out, kNR);
}

// The weight of a panel is (4, 4, in, kNR) in words: of both dimensions w0, w1,
// w2 and w0 + w2.
inline int64_t tile_weight_size(const Layer& layer) {
  return 16 * run_words(layer.in) * kNR;
}

inline void pack_tile_weight(const Layer& layer, int64_t panel, float* target) {
  const PanelChannels channels(panel, layer.out);
  const int64_t size = layer.in * layer.out;
  for (int64_t k = 0; k < 16; ++k) {
    const int64_t row = k / 4, column = k % 4;
    const auto tile_weight = [&](int64_t i, int64_t v) MMMAMBA_INLINE {
      const float* w = layer.weight + i * layer.out + channels.at[v];
      const auto along = [&](int64_t r) MMMAMBA_INLINE {
        const float* line = w + 3 * r * size;
        return column < 3 ? load(line + column * size)
                          : load(line) + load(line + 2 * size);
      };
      return row < 3 ? along(row) : along(0) + along(2);
    };
    for (int64_t i = 0; i < layer.in; i += kNumbers<kTilePrecision>) {
      for (int64_t v = 0; v < channels.count; ++v) {
        FloatVec word = tile_weight(i, v);
        if constexpr (kTilePrecision == Precision::kBFloat16)
          word = bfloat16_words(
              word, i + 1 < layer.in ? tile_weight(i + 1, v) : FloatVec{});
        store(target + v * kLanes<float>, word);
      }
      target += kNR;
    }
  }
}

// The tiles' inputs for a pair of the output's rows, (5, tiles, 5, in) in
// words.
inline void transform_rows(const RingBuffer& input, int64_t pair, int64_t tiles,
                           float* words) {
  const int64_t in = input.channels;
  const int64_t run = run_words(in) * kNumbers<kTilePrecision>;
  auto* target = reinterpret_cast<TileInput*>(words);
  const float* x[5];
  for (int64_t k = 0; k < 5; ++k) x[k] = input.padded(4 * pair - 1 + k);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    for (int64_t c = 0; c < in; c += kLanes<float>) {
      c = std::min<int64_t>(c, in - kLanes<float>);  // the last may overlap
      FloatVec rows[5][5];
      unroll<5>([&](auto j) MMMAMBA_INLINE {
        const int64_t from = (4 * tile + j) * in + c;
        const FloatVec middle = load(x[2] + from);
        rows[0][j] = load(x[0] + from) - middle;
        rows[1][j] = load(x[1] + from);
        rows[2][j] = middle;
        rows[3][j] = load(x[3] + from);
        rows[4][j] = load(x[4] + from) - middle;
      });
      unroll<5>([&](auto k) MMMAMBA_INLINE {
        TileInput* y = target + (k * tiles + tile) * 5 * run + c;
        const FloatVec middle = rows[k][2];
        store_float(y, rows[k][0] - middle);
        store_float(y + run, rows[k][1]);
        store_float(y + 2 * run, middle);
        store_float(y + 3 * run, rows[k][3]);
        store_float(y + 4 * run, rows[k][4] - middle);
      });
    }
    if (run == in) continue;
    for (int64_t i = 0; i < 25; ++i)
      target[(i / 5 * tiles + tile) * 5 * run + i % 5 * run + in] = {};
  }
}

// -------------------------------------------------------------------- product

// Tile of kTiles neighbouring tiles in a row.
template <int kTiles, int kVectors>
struct WinogradTile {
  using Sums = Tile<kTiles, kVectors, kTilePrecision>;
  int64_t in, length;  // in words
  const float *x, *weight;

  // Adds what a row of the inputs gives to the left, to the right or to both
  // of the outputs.
  MMMAMBA_INLINE void left(Sums& sums, int row) const {
    add(sums, row, 0, 0, 2 * in);
  }
  MMMAMBA_INLINE void right(Sums& sums, int row) const {
    add(sums, row, 3 * in, in, 2 * in);
  }
  MMMAMBA_INLINE void both(Sums& sums, int row) const {
    add(sums, row, 2 * in, 3 * in, in);
  }

 private:
  MMMAMBA_INLINE void add(Sums& sums, int row, int64_t x_offset,
                          int64_t w_offset, int64_t count) const {
    constexpr int kWeightRow[] = {0, 1, 3, 1, 2};
    const float* w = weight + (kWeightRow[row] * 4 * in + w_offset) * kNR;
    accumulate(sums, x + row * length + x_offset, 5 * in, {w, kNR}, count);
  }
};

template <int kTiles, int kVectors>
MMMAMBA_INLINE inline void store_tiles(
    const Layer& layer, const PanelChannels& channels,
    const Tile<kTiles, kVectors, kTilePrecision>& sums, int64_t column,
    int64_t width, float* y) {
#pragma GCC unroll 8
  for (int t = 0; t < kTiles; ++t) {
    if (column + 2 * t >= width) continue;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const int64_t c = channels.at[v];
      const FloatVec sum = sums.at[t][v] + load(layer.bias + c);
      store(y + (column + 2 * t) * layer.out + c, layer.relu ? relu(sum) : sum);
    }
  }
}

// The outputs of kTiles tiles, from `tile` on, in rows of which the second may
// be null.
template <int kTiles, int kVectors>
void tile_outputs(const Layer& layer, const PanelChannels& channels,
                  const float* weight, const float* x, int64_t length,
                  int64_t tile, int64_t width, float* const* rows) {
  using Sums = Tile<kTiles, kVectors, kTilePrecision>;
  const int64_t in = run_words(layer.in);
  const WinogradTile<kTiles, kVectors> tiles = {in, length, x + tile * 5 * in,
                                                weight};
  Sums shared = {};
  tiles.both(shared, 2);
  Sums left = shared, right = shared;
  tiles.left(left, 2);
  tiles.right(right, 2);
  for (int k = 0; k < 2; ++k) {
    if (rows[k] == nullptr) continue;
    const int first = 3 * k, second = first + 1;
    Sums both = {};
    tiles.both(both, first);
    tiles.both(both, second);
    Sums sums = left;
    sums += both;
    tiles.left(sums, first);
    tiles.left(sums, second);
    store_tiles(layer, channels, sums, 2 * tile, width, rows[k]);
    sums = right;
    sums += both;
    tiles.right(sums, first);
    tiles.right(sums, second);
    store_tiles(layer, channels, sums, 2 * tile + 1, width, rows[k]);
  }
}

// Elements of the tiles' inputs for so many rows of an output.
inline int64_t transformed_size(int64_t in, int64_t width, int64_t rows) {
  return ceil_div(rows, 2) * 5 * ceil_div(width, 2) * 5 * run_words(in);
}

// The rows [first, last) of the output, from an even one on.
template <int kTiles>
void tile_rows(const Layer& layer, const RingBuffer& input, int64_t first,
               int64_t last, const RingBuffer& output, float* buffer) {
  constexpr decltype(&tile_outputs<kTiles, 1>) kFunctions[] = {
      tile_outputs<kTiles, 1>, tile_outputs<kTiles, 2>,
      tile_outputs<kTiles, kNRVectors>};
  const int64_t width = ceil_div(input.width, 2), tiles = ceil_div(width, 2);
  const int64_t length = tiles * 5 * run_words(layer.in);
  for (int64_t i = first; i < last; i += 2)
    transform_rows(input, i / 2, tiles, buffer + (i - first) / 2 * 5 * length);
  for (int64_t panel = 0; panel * kNR < layer.out; ++panel) {
    const PanelChannels channels(panel, layer.out);
    const float* weight = layer.packed + panel * tile_weight_size(layer);
    for (int64_t i = first; i < last; i += 2) {
      const float* x = buffer + (i - first) / 2 * 5 * length;
      float* rows[] = {output.pixels(i),
                       i + 1 < last ? output.pixels(i + 1) : nullptr};
      for (int64_t t = 0; t < tiles; t += kTiles)
        kFunctions[channels.count - 1](layer, channels, weight, x, length,
                                       std::min(t, tiles - kTiles), width,
                                       rows);
    }
  }
}

}  // namespace mmmamba::MMMAMBA_ISA::stem_conv
