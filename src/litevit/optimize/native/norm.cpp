// LayerNorm of rows, with the addition before it. Sums in float32, variance about the mean. Shapes: R rows, C channels, a
// multiple of 16, at most MAX_CHANNELS.
#include "vectors.h"

constexpr int MAX_CHANNELS = 4096;

template <class T>
static int layer_norm(const typename T::Value* x, const typename T::Value* added, typename T::Value* sum,
                      const typename T::Value* weight, const typename T::Value* bias, typename T::Value* out,
                      const int64_t* sizes, float eps, int threads) {
  const int64_t R = sizes[0], C = sizes[1];
  if (C % 16 || C > MAX_CHANNELS) return NO_KERNEL;
#pragma omp parallel num_threads(threads)
  {
    alignas(64) float scale[MAX_CHANNELS], shift[MAX_CHANNELS], row[MAX_CHANNELS];
    for (int64_t c = 0; c < C; c += 16) {
      _mm512_store_ps(scale + c, T::load(weight + c));
      _mm512_store_ps(shift + c, T::load(bias + c));
    }
#pragma omp for schedule(static)
    for (int64_t r = 0; r < R; r++) {
      __m512 total = _mm512_setzero_ps();
      for (int64_t c = 0; c < C; c += 16) {
        __m512 value = T::load(x + r * C + c);
        if (added) {
          value = _mm512_add_ps(value, T::load(added + r * C + c));
          T::store(sum + r * C + c, value);
        }
        total = _mm512_add_ps(total, value);
        _mm512_store_ps(row + c, value);
      }
      const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(total) / C);
      total = _mm512_setzero_ps();
      for (int64_t c = 0; c < C; c += 16) {
        const __m512 value = _mm512_sub_ps(_mm512_load_ps(row + c), mean);
        total = _mm512_fmadd_ps(value, value, total);
        _mm512_store_ps(row + c, value);
      }
      const __m512 inverse = _mm512_set1_ps(1.f / __builtin_sqrtf(_mm512_reduce_add_ps(total) / C + eps));
      for (int64_t c = 0; c < C; c += 16) {
        const __m512 value = _mm512_mul_ps(_mm512_load_ps(row + c), inverse);
        T::store(out + r * C + c, _mm512_fmadd_ps(value, _mm512_load_ps(scale + c), _mm512_load_ps(shift + c)));
      }
    }
  }
  return 0;
}

extern "C" {

// out <- LayerNorm(x + added) * weight + bias, and sum <- x + added unless that is null. sizes: R, C.
int layer_norm_float(const void* x, const void* added, void* sum, const void* weight, const void* bias, void* out,
                     const int64_t* sizes, float eps, int threads) {
  return layer_norm<Float>((const float*)x, (const float*)added, (float*)sum, (const float*)weight, (const float*)bias,
                           (float*)out, sizes, eps, threads);
}
int layer_norm_bfloat16(const void* x, const void* added, void* sum, const void* weight, const void* bias, void* out,
                        const int64_t* sizes, float eps, int threads) {
  return layer_norm<BFloat16>((const uint16_t*)x, (const uint16_t*)added, (uint16_t*)sum, (const uint16_t*)weight,
                              (const uint16_t*)bias, (uint16_t*)out, sizes, eps, threads);
}
}
