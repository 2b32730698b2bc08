// Attention of up to 32 queries, one per vector lane: logits, softmax and mixing without a step across lanes.
//
// Logits are held for a block of keys at a time; with more keys the maximum, the sum and the output run along (online
// softmax, arXiv:2205.14135). Everything is summed in float32; weights are rounded to the dtype of the values before
// they meet them, as PyTorch's kernel does.
//
// Shapes: L queries, M keys, D head channels, D a multiple of 32.
#pragma once

#include "vectors.h"

constexpr int BLOCK = 128;  // keys

// Keys and values of one head, side by side.
template <class T, int D>
struct Memory {
  Buffer<int32_t> keys;    // words (M, D / PAIR)
  Buffer<int32_t> values;  // words (M / PAIR, D): a pair is two keys of one channel

  explicit Memory(int64_t M)
      : keys(buffer_of<int32_t>(M * D / T::PAIR)), values(buffer_of<int32_t>((M + 1) / T::PAIR * D)) {}

  bool ok() const { return keys && values; }

  // Row m of keys and values begins at k + at(m), v + at'(m).
  template <class At, class OtherAt>
  INLINE void fill(const typename T::Value* k, At at, const typename T::Value* v, OtherAt value_at, int64_t M) {
    for (int64_t m = 0; m < M; m++) std::memcpy(&keys[m * D / T::PAIR], k + at(m), D * sizeof(typename T::Value));
    if constexpr (T::PAIR == 1) {
      for (int64_t m = 0; m < M; m++) std::memcpy(&values[m * D], v + value_at(m), D * sizeof(float));
    } else {
      const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                           5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
      const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
      for (int64_t m = 0; m < M; m += 2)
        for (int d = 0; d < D; d += 32) {
          const __m512i a = _mm512_loadu_si512(v + value_at(m) + d);
          const __m512i b = m + 1 < M ? _mm512_loadu_si512(v + value_at(m + 1) + d) : _mm512_setzero_si512();
          _mm512_store_si512(&values[m / 2 * D + d], _mm512_permutex2var_epi16(a, low, b));
          _mm512_store_si512(&values[m / 2 * D + d + 16], _mm512_permutex2var_epi16(a, high, b));
        }
    }
  }
};

// 16 * QT queries and what is computed of them.
template <class T, int D, int QT>
struct Tile {
  using Value = typename T::Value;
  static constexpr int LANES = 16 * QT;

  alignas(64) int32_t queries[D / T::PAIR][LANES];
  alignas(64) float logits[BLOCK][LANES];
  alignas(64) int32_t weights[BLOCK / T::PAIR][LANES];
  alignas(64) float out[D][LANES];

  template <class At>
  INLINE void load_queries(const Value* q, At at, int count) {
    for (int i = 0; i < QT; i++)
      for (int word = 0; word < D / T::PAIR; word += 16) {
        __m512i rows[16];
        for (int l = 0; l < 16; l++)
          rows[l] = _mm512_loadu_si512(q + at(std::min(16 * i + l, count - 1)) + word * T::PAIR);
        transpose(rows);
        for (int l = 0; l < 16; l++) _mm512_store_si512(&queries[word + l][16 * i], rows[l]);
      }
  }

  template <int KT>
  INLINE void logits_of(const int32_t* keys, int m, float scale, const Value* bias, int64_t bias_m,
                        const __mmask16* on, __m512* top) {
    __m512 sum[KT][QT];
    for (int j = 0; j < KT; j++)
      for (int i = 0; i < QT; i++) sum[j][i] = _mm512_setzero_ps();
    keys += (int64_t)m * (D / T::PAIR);
#pragma GCC unroll 4
    for (int word = 0; word < D / T::PAIR; word++) {
      __m512i q[QT];
#pragma GCC unroll 2
      for (int i = 0; i < QT; i++) q[i] = _mm512_load_si512(&queries[word][16 * i]);
#pragma GCC unroll 8
      for (int j = 0; j < KT; j++) {
        const __m512i key = _mm512_set1_epi32(keys[j * (D / T::PAIR) + word]);
#pragma GCC unroll 2
        for (int i = 0; i < QT; i++) sum[j][i] = T::dot(sum[j][i], q[i], key);
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < KT; j++)
#pragma GCC unroll 2
      for (int i = 0; i < QT; i++) {
        __m512 x = _mm512_mul_ps(sum[j][i], _mm512_set1_ps(scale));
        if (bias) x = _mm512_add_ps(x, T::load(on[i], bias + (m + j) * bias_m + 16 * i));
        top[i] = _mm512_max_ps(top[i], x);
        _mm512_store_ps(&logits[(m + j) % BLOCK][16 * i], x);
      }
  }

  // out <- softmax(scale q k^T + bias) v, still with queries along the lanes. `bias` is (M, L) from the first of these
  // queries on, bias_m between keys, or null; `on` are the lanes that hold queries.
  INLINE void attend(const int32_t* keys, const int32_t* values, int64_t M, float scale, const Value* bias,
                     int64_t bias_m, const __mmask16* on) {
    const __m512 none = _mm512_set1_ps(-__FLT_MAX__);  // finite: a logit of -inf must leave weight 0, not -inf - -inf
    __m512 top[QT], total[QT];
    for (int i = 0; i < QT; i++) top[i] = none, total[i] = _mm512_setzero_ps();
    for (int64_t start = 0; start < M; start += BLOCK) {
      const int stop = (int)std::min<int64_t>(M, start + BLOCK), count = stop - (int)start;
      __m512 before[QT];
      for (int i = 0; i < QT; i++) before[i] = top[i];
      int m = (int)start;
      for (; m + 8 <= stop; m += 8) logits_of<8>(keys, m, scale, bias, bias_m, on, top);
      if (m + 4 <= stop) logits_of<4>(keys, m, scale, bias, bias_m, on, top), m += 4;
      if (m + 2 <= stop) logits_of<2>(keys, m, scale, bias, bias_m, on, top), m += 2;
      if (m < stop) logits_of<1>(keys, m, scale, bias, bias_m, on, top);
      if (start)
        for (int i = 0; i < QT; i++) {
          const __m512 shrink = T::exp(_mm512_sub_ps(before[i], top[i]));
          total[i] = _mm512_mul_ps(total[i], shrink);
          for (int d = 0; d < D; d++)
            _mm512_store_ps(&out[d][16 * i], _mm512_mul_ps(_mm512_load_ps(&out[d][16 * i]), shrink));
        }
      weigh(count, top, total);
      mix(values + start / T::PAIR * D, (count + T::PAIR - 1) / T::PAIR, start == 0);
    }
    for (int i = 0; i < QT; i++) {
      const __mmask16 some = _mm512_cmp_ps_mask(total[i], _mm512_setzero_ps(), _CMP_NEQ_UQ);  // where all was -inf: 0
      const __m512 inverse = _mm512_maskz_div_ps(some, _mm512_set1_ps(1.f), total[i]);
      for (int d = 0; d < D; d++)
        _mm512_store_ps(&out[d][16 * i], _mm512_mul_ps(_mm512_load_ps(&out[d][16 * i]), inverse));
    }
  }

  INLINE void weigh(int count, const __m512* top, __m512* total) {
    if (count % T::PAIR)
      for (int i = 0; i < QT; i++) _mm512_store_ps(&logits[count][16 * i], _mm512_set1_ps(-__builtin_inff()));
    for (int m = 0; m < count; m += T::PAIR)
#pragma GCC unroll 2
      for (int i = 0; i < QT; i++) {
        const __m512 a = T::exp(_mm512_sub_ps(_mm512_load_ps(&logits[m][16 * i]), top[i]));
        if constexpr (T::PAIR == 1) {
          total[i] = _mm512_add_ps(total[i], a);
          _mm512_store_si512(&weights[m][16 * i], _mm512_castps_si512(a));
        } else {
          const __m512 b = T::exp(_mm512_sub_ps(_mm512_load_ps(&logits[m + 1][16 * i]), top[i]));
          total[i] = _mm512_add_ps(total[i], _mm512_add_ps(a, b));
          const __m512i pair = _mm512_permutexvar_epi16(interleaving(), (__m512i)_mm512_cvtne2ps_pbh(b, a));
          _mm512_store_si512(&weights[m / 2][16 * i], pair);
        }
      }
  }

  INLINE void mix(const int32_t* values, int words, bool first) {
    for (int d = 0; d < D; d += 8) {
      __m512 sum[8][QT];
#pragma GCC unroll 8
      for (int j = 0; j < 8; j++)
#pragma GCC unroll 2
        for (int i = 0; i < QT; i++) sum[j][i] = first ? _mm512_setzero_ps() : _mm512_load_ps(&out[d + j][16 * i]);
      for (int word = 0; word < words; word++) {
        __m512i w[QT];
#pragma GCC unroll 2
        for (int i = 0; i < QT; i++) w[i] = _mm512_load_si512(&weights[word][16 * i]);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
          const __m512i value = _mm512_set1_epi32(values[word * D + d + j]);
#pragma GCC unroll 2
          for (int i = 0; i < QT; i++) sum[j][i] = T::dot(sum[j][i], w[i], value);
        }
      }
#pragma GCC unroll 8
      for (int j = 0; j < 8; j++)
#pragma GCC unroll 2
        for (int i = 0; i < QT; i++) _mm512_store_ps(&out[d + j][16 * i], sum[j][i]);
    }
  }

  template <class At>
  INLINE void store(Value* to, At at, int count) {
    for (int i = 0; i < QT; i++)
      for (int d = 0; d < D; d += 32) {
        __m512i low[16], high[16];
        for (int l = 0; l < 16; l++) low[l] = _mm512_load_si512(&out[d + l][16 * i]);
        transpose(low);
        for (int l = 0; l < 16; l++) high[l] = _mm512_load_si512(&out[d + 16 + l][16 * i]);
        transpose(high);
        for (int l = 0; l < 16 && 16 * i + l < count; l++) {
          Value* row = to + at(16 * i + l) + d;
          if constexpr (T::PAIR == 1) {
            _mm512_storeu_si512(row, low[l]);
            _mm512_storeu_si512(row + 16, high[l]);
          } else {
            const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)high[l], (__m512)low[l]);
            _mm512_storeu_si512(row, both);
          }
        }
      }
  }
};
