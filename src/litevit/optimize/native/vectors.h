// What the kernels share: AVX-512 vectors of float32, and values of either dtype read two ways.
//
// As words of 32 bits: one float32, or two neighbouring bfloat16 that vdpbf16ps multiplies and adds at once (PAIR).
// As float32 vectors: 16 values widened.
#pragma once

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#define INLINE inline __attribute__((always_inline))

constexpr float LOG2_E = 1.44269504f;
constexpr int NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

// e ** x for x <= 0; 0 far below -100, NaN stays. To about one unit of float32 (the polynomial of Cephes).
static INLINE __m512 exp_of(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-110.f), x);  // the second operand where one is NaN
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(LOG2_E)), NEAREST);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);  // x - n log(2), whose first digits are exact
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665796e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001e-1f));
  p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, _mm512_add_ps(r, _mm512_set1_ps(1.f)));
  return _mm512_scalef_ps(p, n);
}

// The same to 1e-5, for what is rounded to bfloat16 (4e-3) next; x up to 100.
static INLINE __m512 rough_exp_of(__m512 x) {
  x = _mm512_mul_ps(_mm512_max_ps(_mm512_set1_ps(-110.f), x), _mm512_set1_ps(LOG2_E));
  const __m512 n = _mm512_roundscale_ps(x, NEAREST);
  const __m512 r = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(9.58285e-3f);  // a fit of 2 ** r, |r| <= 1/2, to 3e-6
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.590642e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.4024099e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9312419e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f));
  return _mm512_scalef_ps(p, n);
}

struct Float {
  using Value = float;
  static constexpr int PAIR = 1;

  // sum + a * b, word by word
  static INLINE __m512 dot(__m512 sum, __m512i a, __m512i b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  }
  static INLINE __m512 exp(__m512 x) { return exp_of(x); }
  static INLINE __m512 load(const Value* p) { return _mm512_loadu_ps(p); }
  static INLINE __m512 load(__mmask16 on, const Value* p) { return _mm512_maskz_loadu_ps(on, p); }
  static INLINE void store(Value* p, __m512 x) { _mm512_storeu_ps(p, x); }
};

struct BFloat16 {
  using Value = uint16_t;
  static constexpr int PAIR = 2;

  static INLINE __m512 dot(__m512 sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
  }
  static INLINE __m512 exp(__m512 x) { return rough_exp_of(x); }
  static INLINE __m512 widen(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
  }
  static INLINE __m512 load(const Value* p) { return widen(_mm256_loadu_si256((const __m256i*)p)); }
  static INLINE __m512 load(__mmask16 on, const Value* p) { return widen(_mm256_maskz_loadu_epi16(on, p)); }
  static INLINE void store(Value* p, __m512 x) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(x)); }
};

// Halves of two vectors in turns: the order in which (low, high) words become neighbouring 16-bit values.
static INLINE __m512i interleaving() {
  return _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3,
                          18, 2, 17, 1, 16, 0);
}

// Rows become columns: 16 x 16 words.
static INLINE void transpose(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
  }
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
    r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
    r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
    r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
  }
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};
template <typename T>
using Buffer = std::unique_ptr<T[], Free>;

// Null where memory is short: nothing may be thrown, for an exception that leaves a parallel region, or C, ends the
// process. Kernels then return OUT_OF_MEMORY.
constexpr int NO_KERNEL = 1, OUT_OF_MEMORY = 2;

template <typename T>
static Buffer<T> buffer_of(int64_t count) {
  const int64_t bytes = (count * (int64_t)sizeof(T) + 63) / 64 * 64;
  return Buffer<T>((T*)std::aligned_alloc(64, bytes));
}
