// Attention inside s x s windows of a BHWC map, read and written in place (Hi-Fi of HiLo). Shapes: B batch, H x W grid,
// N heads, D head channels, P = s * s pixels of a window. The map has [q | k | v][head][channel] at each pixel.
#include "tile.h"

// One window of 2 x 2 pixels of one head: 16 logits, one vector.
template <class T, int D>
static INLINE void attend_four(const typename T::Value* const* rows, int64_t to_k, int64_t to_v,
                               typename T::Value* const* goals, float scale) {
  constexpr int WORDS = 16 * T::PAIR, PARTS = D / WORDS;
  __m512i keys[4][PARTS], sums[16];
  for (int k = 0; k < 4; k++)
    for (int p = 0; p < PARTS; p++) keys[k][p] = _mm512_loadu_si512(rows[k] + to_k + p * WORDS);
#pragma GCC unroll 4
  for (int q = 0; q < 4; q++) {
    __m512i query[PARTS];
    for (int p = 0; p < PARTS; p++) query[p] = _mm512_loadu_si512(rows[q] + p * WORDS);
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
      __m512 sum = _mm512_setzero_ps();
      for (int p = 0; p < PARTS; p++) sum = T::dot(sum, query[p], keys[k][p]);
      sums[4 * q + k] = _mm512_castps_si512(sum);
    }
  }
  transpose(sums);
#pragma GCC unroll 4
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; i++)
      sums[i] = _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(sums[i]), _mm512_castsi512_ps(sums[i + half])));
  const __m512 x = _mm512_mul_ps(_mm512_castsi512_ps(sums[0]), _mm512_set1_ps(scale));  // lane 4 q + k
  __m512 top = _mm512_max_ps(x, _mm512_permute_ps(x, 0xb1));
  top = _mm512_max_ps(top, _mm512_permute_ps(top, 0x4e));
  const __m512 power = T::exp(_mm512_sub_ps(x, top));
  __m512 total = _mm512_add_ps(power, _mm512_permute_ps(power, 0xb1));
  total = _mm512_add_ps(total, _mm512_permute_ps(total, 0x4e));
  alignas(64) float weights[16];
  _mm512_store_ps(weights, _mm512_div_ps(power, total));
  for (int d = 0; d < D; d += 16) {
    __m512 values[4];
    for (int k = 0; k < 4; k++) values[k] = T::load(rows[k] + to_v + d);
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) {
      __m512 sum = _mm512_mul_ps(_mm512_set1_ps(weights[4 * q]), values[0]);
      for (int k = 1; k < 4; k++) sum = _mm512_fmadd_ps(_mm512_set1_ps(weights[4 * q + k]), values[k], sum);
      T::store(goals[q] + d, sum);
    }
  }
}

template <class T, int D>
static int attend(const typename T::Value* qkv, typename T::Value* out, const int64_t* sizes, float scale, int threads) {
  using Value = typename T::Value;
  const int64_t B = sizes[0], H = sizes[1], W = sizes[2], N = sizes[3], s = sizes[4];
  const int64_t *in_s = sizes + 5, *out_s = sizes + 8;  // strides: image, row, pixel
  const int64_t h = H / s, w = W / s, P = s * s, E = N * D;
  std::atomic<bool> short_of_memory(false);
#pragma omp parallel num_threads(threads)
  {
    Memory<T, D> memory(P);
    if (!memory.ok()) short_of_memory = true;
    Tile<T, D, 1> tile;
    const int64_t team = omp_get_num_threads(), me = omp_get_thread_num(), rows = B * h;
    for (int64_t row = rows * me / team; row < rows * (me + 1) / team && memory.ok(); row++)
      for (int64_t column = 0; column < w; column++) {
        const Value* from = qkv + row / h * in_s[0] + row % h * s * in_s[1] + column * s * in_s[2];
        Value* to = out + row / h * out_s[0] + row % h * s * out_s[1] + column * s * out_s[2];
        const auto at = [=](int64_t i) { return i / s * in_s[1] + i % s * in_s[2]; };
        const auto goal = [=](int64_t i) { return i / s * out_s[1] + i % s * out_s[2]; };
        if (s == 2) {
          const Value* pixels[4] = {from, from + in_s[2], from + in_s[1], from + in_s[1] + in_s[2]};
          Value* goals[4] = {to, to + out_s[2], to + out_s[1], to + out_s[1] + out_s[2]};
          for (int64_t n = 0; n < N; n++) {
            attend_four<T, D>(pixels, E, 2 * E, goals, scale);
            for (int i = 0; i < 4; i++) pixels[i] += D, goals[i] += D;
          }
          continue;
        }
        for (int64_t n = 0; n < N; n++, from += D, to += D) {
          memory.fill(from + E, at, from + 2 * E, at, P);
          for (int64_t first = 0; first < P; first += 16) {
            const int count = (int)std::min<int64_t>(16, P - first);
            const __mmask16 on = (__mmask16)((1u << count) - 1);
            tile.load_queries(from, [=](int64_t i) { return at(first + i); }, count);
            tile.attend(memory.keys.get(), memory.values.get(), P, scale, nullptr, 0, &on);
            tile.store(to, [=](int64_t i) { return goal(first + i); }, count);
          }
        }
      }
  }
  return short_of_memory ? OUT_OF_MEMORY : 0;
}

// out <- softmax(scale q k^T) v in every window and head. sizes: B, H, W (multiples of s), N, s, then the strides of qkv
// and out (image, row, pixel), in values. Returns NO_KERNEL for another D.
template <class T>
static int windows(const void* qkv, void* out, const int64_t* sizes, int64_t D, float scale, int threads) {
  using Value = typename T::Value;
  const auto run = D == 32 ? attend<T, 32> : D == 64 ? attend<T, 64> : nullptr;
  if (!run) return NO_KERNEL;
  return run((const Value*)qkv, (Value*)out, sizes, scale, threads);
}

extern "C" {
int windows_float(const void* qkv, void* out, const int64_t* sizes, int64_t D, float scale, int threads) {
  return windows<Float>(qkv, out, sizes, D, scale, threads);
}
int windows_bfloat16(const void* qkv, void* out, const int64_t* sizes, int64_t D, float scale, int threads) {
  return windows<BFloat16>(qkv, out, sizes, D, scale, threads);
}
}
