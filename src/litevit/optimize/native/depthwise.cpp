// Depthwise 3 x 3 convolution of a BHWC map in bfloat16, with what follows it: bias and GELU (the feed-forward network of
// LITv2 and LVT), or SiLU and the sum over several dilations of one kernel (the query of LVT's RASA).
//
// 32 channels of two neighbouring pixels at a time, as vectors of float32: the even and the odd channels, which lie in the
// halves of a word. Shapes: B batch, H x W grid, C channels, a multiple of 32.
#include "vectors.h"

using Value = uint16_t;

struct Pair {
  __m512 even, odd;
};

static INLINE Pair split(const Value* p) {
  const __m512i words = _mm512_loadu_si512(p);
  return {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)),
          _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32((int)0xffff0000)))};
}
static INLINE void join(Value* p, __m512 even, __m512 odd) {
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
  _mm512_storeu_si512(p, _mm512_permutexvar_epi16(interleaving(), halves));
}

// x Phi(x) to 5e-6 (8e-6 at x = 12): a fit of (Phi(u) - 1/2) / u in u^2 up to |u| = 5, where Phi is 0 or 1 to 3e-7.
static INLINE __m512 gelu(__m512 x) {
  const __m512 above = _mm512_max_ps(_mm512_set1_ps(-5.f), x);  // the second operand where one is NaN
  const __m512 u = _mm512_min_ps(_mm512_set1_ps(5.f), above);
  const __m512 s = _mm512_fmsub_ps(_mm512_mul_ps(u, u), _mm512_set1_ps(0.08f), _mm512_set1_ps(1.f));
  __m512 p = _mm512_set1_ps(-0.0011019177f);
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(0.00320149167f));
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-0.00387770473f));
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(0.00510018505f));
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-0.0101699512f));
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(0.0169183742f));
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-0.0236244649f));
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(0.0313546918f));
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-0.0403918959f));
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(0.051525563f));
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(-0.0702982396f));
  p = _mm512_fmadd_ps(p, s, _mm512_set1_ps(0.14136374f));
  return _mm512_mul_ps(above, _mm512_fmadd_ps(p, u, _mm512_set1_ps(0.5f)));
}

// x / (1 + e^-x), to 1e-5 of itself.
static INLINE __m512 silu(__m512 x) {
  const __m512 far = _mm512_max_ps(_mm512_set1_ps(-80.f), x);
  const __m512 over = _mm512_add_ps(rough_exp_of(_mm512_sub_ps(_mm512_setzero_ps(), far)), _mm512_set1_ps(1.f));
  const __m512 guess = _mm512_rcp14_ps(over);
  const __m512 inverse = _mm512_mul_ps(guess, _mm512_fnmadd_ps(over, guess, _mm512_set1_ps(2.f)));
  return _mm512_mul_ps(far, inverse);
}

// Weights (C, 3, 3) as float32 (C / 32, 9, even and odd, 16).
static Buffer<float> arrange(const Value* weight, int64_t C) {
  Buffer<float> taps = buffer_of<float>(9 * C);
  if (!taps) return taps;
  for (int64_t c = 0; c < C; c++)
    for (int t = 0; t < 9; t++) {
      const uint32_t word = (uint32_t)weight[9 * c + t] << 16;
      std::memcpy(&taps[c / 32 * 288 + t * 32 + c % 2 * 16 + c % 32 / 2], &word, 4);
    }
  return taps;
}

// sums[p] += the nine taps of place p, of PIXELS neighbouring places; at(i, column): row i of the three, column counted
// from one left of the first place.
template <int PIXELS, class At>
static INLINE void convolve(At at, const float* taps, Pair* sums) {
#pragma GCC unroll 3
  for (int i = 0; i < 3; i++)
#pragma GCC unroll 4
    for (int column = 0; column < PIXELS + 2; column++) {
      const Pair x = split(at(i, column));
#pragma GCC unroll 2
      for (int p = 0; p < PIXELS; p++) {
        const int j = column - p;
        if (j < 0 || j > 2) continue;
        const float* tap = taps + 32 * (3 * i + j);
        sums[p].even = _mm512_fmadd_ps(x.even, _mm512_load_ps(tap), sums[p].even);
        sums[p].odd = _mm512_fmadd_ps(x.odd, _mm512_load_ps(tap + 16), sums[p].odd);
      }
    }
}

template <int PIXELS>
static INLINE void gelu_of_pixels(const Value* const* at, const float* taps, const Value* bias, Value* to, int64_t C) {
  for (int64_t c = 0; c < C; c += 32) {
    Pair sums[PIXELS];
    for (int p = 0; p < PIXELS; p++) sums[p] = split(bias + c);
    convolve<PIXELS>([=](int i, int column) { return at[4 * i + column] + c; }, taps + 9 * c, sums);
#pragma GCC unroll 2
    for (int p = 0; p < PIXELS; p++) join(to + p * C + c, gelu(sums[p].even), gelu(sums[p].odd));
  }
}

extern "C" {

// out (B, rows, W, C) <- GELU(DWConv3x3(x) + bias), for the rows from `first` on. sizes: B, H, W, C, first, rows, then
// the strides of x (image, row, pixel), in values.
int depthwise_gelu(const Value* x, const Value* weight, const Value* bias, Value* out, const int64_t* sizes, int threads) {
  const int64_t B = sizes[0], H = sizes[1], W = sizes[2], C = sizes[3], first = sizes[4], rows = sizes[5];
  const int64_t* s = sizes + 6;
  if (C % 32) return NO_KERNEL;
  const Buffer<float> taps = arrange(weight, C);
  const Buffer<Value> zeros = buffer_of<Value>(C);
  if (!taps || !zeros) return OUT_OF_MEMORY;
  std::memset(zeros.get(), 0, C * sizeof(Value));
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t line = 0; line < B * rows; line++)
    for (int64_t column = 0; column < W; column += 2) {
      const Value* at[12];  // row i, column j at 4 i + j
      for (int i = 0; i < 3; i++)
        for (int j = 0; j < 4; j++) {
          const int64_t down = first + line % rows + i - 1, right = column + j - 1;
          const bool inside = down >= 0 && down < H && right >= 0 && right < W;
          at[4 * i + j] = inside ? x + line / rows * s[0] + down * s[1] + right * s[2] : zeros.get();
        }
      Value* to = out + (line * W + column) * C;
      if (column + 1 < W)
        gelu_of_pixels<2>(at, taps.get(), bias, to, C);
      else
        gelu_of_pixels<1>(at, taps.get(), bias, to, C);
    }
  return 0;
}

// out (B, H, W, C) <- sum over r of SiLU(DWConv3x3(x; dilation r)). sizes: B, H, W, C, the strides of x (image, row,
// pixel), in values, the number of rates (at most 8), the rates.
int dilated_silu_sum(const Value* x, const Value* weight, Value* out, const int64_t* sizes, int threads) {
  const int64_t B = sizes[0], H = sizes[1], W = sizes[2], C = sizes[3], count = sizes[7];
  const int64_t *s = sizes + 4, *rates = sizes + 8;
  if (C % 32 || count > 8) return NO_KERNEL;
  const int64_t ring = *std::max_element(rates, rates + count);
  const int64_t high = H + 2 * ring, wide = W + 2 * ring;
  const Buffer<float> taps = arrange(weight, C);
  const Buffer<Value> padded = buffer_of<Value>(B * high * wide * C);  // in a ring of zeros
  if (!taps || !padded) return OUT_OF_MEMORY;
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int64_t line = 0; line < B * high; line++) {
      Value* to = &padded[line * wide * C];
      const int64_t y = line % high - ring;
      if (y < 0 || y >= H) {
        std::memset(to, 0, wide * C * sizeof(Value));
        continue;
      }
      std::memset(to, 0, ring * C * sizeof(Value));
      for (int64_t column = 0; column < W; column++)
        std::memcpy(to + (ring + column) * C, x + line / high * s[0] + y * s[1] + column * s[2], C * sizeof(Value));
      std::memset(to + (ring + W) * C, 0, ring * C * sizeof(Value));
    }
#pragma omp for schedule(static)
    for (int64_t line = 0; line < B * H; line++)
      for (int64_t column = 0; column < W; column++) {
        const Value* middle = &padded[((line / H * high + line % H + ring) * wide + column + ring) * C];
        Value* to = out + (line * W + column) * C;
        for (int64_t c = 0; c < C; c += 32) {
          Pair total = {_mm512_setzero_ps(), _mm512_setzero_ps()};
          for (int64_t r = 0; r < count; r++) {
            const Value* corner = middle + c - rates[r] * (wide + 1) * C;
            const int64_t down = rates[r] * wide * C, right = rates[r] * C;
            Pair sum = {_mm512_setzero_ps(), _mm512_setzero_ps()};
            convolve<1>([=](int i, int j) { return corner + i * down + j * right; }, &taps[9 * c], &sum);
            total.even = _mm512_add_ps(total.even, silu(sum.even));
            total.odd = _mm512_add_ps(total.odd, silu(sum.odd));
          }
          join(to + c, total.even, total.odd);
        }
      }
  }
  return 0;
}
}
