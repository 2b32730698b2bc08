// Attention of a few thousand queries to as many keys, per image and head. Shapes: B batch, N heads, L queries, M keys,
// D head channels.
#include "tile.h"

template <class T, int D>
static int attend(const typename T::Value* q, const typename T::Value* k, const typename T::Value* v,
                   const typename T::Value* bias, typename T::Value* out, const int64_t* s, float scale, int threads) {
  const int64_t B = s[0], N = s[1], L = s[2], M = s[3];
  const int64_t *q_s = s + 4, *k_s = s + 7, *v_s = s + 10, *o_s = s + 13;  // strides: image, head, row
  constexpr int ROWS = 32;
  const int64_t tiles = (L + ROWS - 1) / ROWS, tasks = B * N * tiles;
  std::atomic<bool> short_of_memory(false);
#pragma omp parallel num_threads(threads)
  {
    Memory<T, D> memory(M);
    if (!memory.ok()) short_of_memory = true;
    Tile<T, D, 2> two;
    Tile<T, D, 1> one;
    int64_t known = -1;
    const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
    for (int64_t task = tasks * me / team; task < tasks * (me + 1) / team && memory.ok(); task++) {
      const int64_t pair = task / tiles, first = task % tiles * ROWS;
      const int64_t head = pair / B, image = pair % B;  // images inside: they share the bias of a head
      if (pair != known)
        memory.fill(k + image * k_s[0] + head * k_s[1], [=](int64_t m) { return m * k_s[2]; },
                    v + image * v_s[0] + head * v_s[1], [=](int64_t m) { return m * v_s[2]; }, M);
      known = pair;
      const int count = (int)std::min<int64_t>(ROWS, L - first);
      const auto* from = q + image * q_s[0] + head * q_s[1] + first * q_s[2];
      auto* to = out + image * o_s[0] + head * o_s[1] + first * o_s[2];
      const auto* added = bias ? bias + head * s[16] + first : nullptr;
      const auto at = [=](int64_t l) { return l * q_s[2]; };
      const auto goal = [=](int64_t l) { return l * o_s[2]; };
      const uint32_t lanes = (uint32_t)((1ull << count) - 1);
      const __mmask16 on[2] = {(__mmask16)lanes, (__mmask16)(lanes >> 16)};
      if (count > 16) {
        two.load_queries(from, at, count);
        two.attend(memory.keys.get(), memory.values.get(), M, scale, added, L, on);
        two.store(to, goal, count);
      } else {
        one.load_queries(from, at, count);
        one.attend(memory.keys.get(), memory.values.get(), M, scale, added, L, on);
        one.store(to, goal, count);
      }
    }
  }
  return short_of_memory ? OUT_OF_MEMORY : 0;
}

// out <- softmax(scale q k^T + bias) v. sizes: B, N, L, M, then the strides of q, k, v and out (image, head, row), in
// values, and that of bias (head); rows are dense. bias: (N, M, L), keys before queries, dense but for heads, or null. Returns NO_KERNEL for another D.
template <class T>
static int attention(const void* q, const void* k, const void* v, const void* bias, void* out, const int64_t* sizes,
                     int64_t D, float scale, int threads) {
  using Value = typename T::Value;
  const auto run = D == 32 ? attend<T, 32> : D == 64 ? attend<T, 64> : nullptr;
  if (!run) return NO_KERNEL;
  return run((const Value*)q, (const Value*)k, (const Value*)v, (const Value*)bias, (Value*)out, sizes, scale, threads);
}

extern "C" {
int attention_float(const void* q, const void* k, const void* v, const void* bias, void* out, const int64_t* sizes,
                    int64_t D, float scale, int threads) {
  return attention<Float>(q, k, v, bias, out, sizes, D, scale, threads);
}
int attention_bfloat16(const void* q, const void* k, const void* v, const void* bias, void* out, const int64_t* sizes,
                       int64_t D, float scale, int threads) {
  return attention<BFloat16>(q, k, v, bias, out, sizes, D, scale, threads);
}
int has_bfloat16() { return __builtin_cpu_supports("avx512bf16") ? 1 : 0; }
}
