// Convolutional self-attention of LVT: softmax and mixing in overlapping 3 x 3 windows, read and written in place.
//
// The pixels of a BHWC map are split by the parity of their row and column, so that a window's values come from products
// over four planes. Window (i, j) has its middle at pixel (2 i, 2 j); a cell is the 2 x 2 pixels from there on, about
// which up to four windows have something to say.
//
// Shapes: B batch, H x W grid, h x w = ceil(H/2) x ceil(W/2) windows, N heads, D head channels (a multiple of 16).
#include "vectors.h"

// What each of the nine positions of a window is: plane = 2 * odd row + odd column, and its place among the plane's.
static constexpr int PLANE[9] = {3, 2, 3, 1, 0, 1, 3, 2, 3};
static constexpr int SLOT[9] = {0, 0, 1, 0, 0, 1, 2, 1, 3};
static constexpr int SLOTS[4] = {1, 2, 2, 4};
static constexpr int LANES = 16;  // of which nine are used: destinations

template <class T>
struct Windows {
  using Value = typename T::Value;
  const Value* planes[4];  // (B, rows, columns, SLOTS, N, D)
  const Value* zeros;      // N * D of them
  int64_t h, w, N, D;
  int64_t rows[2], columns[2];  // of even and odd ones

  // Where the values of the nine positions of window (i, j) begin.
  INLINE void values(int64_t image, int64_t i, int64_t j, const Value** to) const {
    for (int s = 0; s < 9; s++) {
      const int odd_row = PLANE[s] / 2, odd_column = PLANE[s] % 2;
      const int64_t y = s / 3 == 0 ? i - 1 : i, x = s % 3 == 0 ? j - 1 : j;
      const bool inside = y >= 0 && y < rows[odd_row] && x >= 0 && x < columns[odd_column];
      const int64_t pixel = (image * rows[odd_row] + y) * columns[odd_column] + x;
      to[s] = inside ? planes[PLANE[s]] + (pixel * SLOTS[PLANE[s]] + SLOT[s]) * N * D : zeros;
    }
  }
};

// Weights of a row of windows, (w, N, 9 sources, LANES), from their logits, (w, N, 9 destinations, 9 sources), times a
// scale above 0.
template <class T>
static void softmax_row(const typename T::Value* logits, float scale, int64_t windows, float* weights) {
  const __mmask16 nine = 0x1ff;
  const __m512 factor = _mm512_set1_ps(scale);
  for (int64_t i = 0; i < windows; i++, logits += 81, weights += 9 * LANES) {
    alignas(64) float rows[9][LANES], columns[9][LANES] = {};  // turned around: destinations along the lanes
    for (int d = 0; d < 9; d++) _mm512_store_ps(rows[d], T::load(nine, logits + 9 * d));
    for (int d = 0; d < 9; d++)
      for (int s = 0; s < 9; s++) columns[s][d] = rows[d][s];
    __m512 x[9];
    for (int s = 0; s < 9; s++) x[s] = _mm512_load_ps(columns[s]);
    __m512 top = x[0];
    for (int s = 1; s < 9; s++) top = _mm512_max_ps(top, x[s]);
    __m512 total = _mm512_setzero_ps();
    for (int s = 0; s < 9; s++) {
      x[s] = T::exp(_mm512_mul_ps(_mm512_sub_ps(x[s], top), factor));
      total = _mm512_add_ps(total, x[s]);
    }
    const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1.f), total);
    for (int s = 0; s < 9; s++) _mm512_store_ps(weights + s * LANES, _mm512_mul_ps(x[s], inverse));
  }
}

template <class T>
static int mix(const typename T::Value* logits, const typename T::Value* const* planes, typename T::Value* out,
               const int64_t* sizes, float scale, int threads) {
  using Value = typename T::Value;
  const int64_t B = sizes[0], H = sizes[1], W = sizes[2], N = sizes[3], D = sizes[4], C = N * D;
  if (D % 16) return NO_KERNEL;
  const int64_t h = (H + 1) / 2, w = (W + 1) / 2, row_weights = w * N * 9 * LANES;
  const Buffer<Value> zeros = buffer_of<Value>(C);
  if (!zeros) return OUT_OF_MEMORY;
  std::memset(zeros.get(), 0, C * sizeof(Value));
  const Windows<T> windows = {{planes[0], planes[1], planes[2], planes[3]}, zeros.get(), h, w, N, D, {h, H / 2}, {w, W / 2}};
  std::atomic<bool> short_of_memory(false);
#pragma omp parallel num_threads(threads)
  {
    const Buffer<float> weights = buffer_of<float>(2 * row_weights);
    if (!weights) short_of_memory = true;
    const auto weights_of = [&](int64_t i) { return &weights[i % 2 * row_weights]; };
    const int64_t team = omp_get_num_threads(), me = omp_get_thread_num(), lines = B * h;
    const int64_t begin = lines * me / team, end = lines * (me + 1) / team;
    for (int64_t line = begin; line < end && weights; line++) {
      const int64_t image = line / h, i = line % h;
      const Value* row_logits = logits + line * w * N * 81;
      if (line == begin || i == 0) softmax_row<T>(row_logits, scale, w * N, weights_of(i));
      const bool below = i + 1 < h, odd_row = 2 * i + 1 < H;
      if (below) softmax_row<T>(row_logits + w * N * 81, scale, w * N, weights_of(i + 1));
      const Value *here[2][9], *under[2][9];  // windows (i, j) and (i, j + 1), (i + 1, j) and (i + 1, j + 1), in turns
      windows.values(image, i, 0, here[0]);
      windows.values(image, i + 1, 0, under[0]);
      for (int64_t j = 0; j < w; j++) {
        const bool right = j + 1 < w, odd_column = 2 * j + 1 < W;
        windows.values(image, i, j + 1, here[(j + 1) % 2]);
        windows.values(image, i + 1, j + 1, under[(j + 1) % 2]);
        Value* to = out + ((image * H + 2 * i) * W + 2 * j) * C;
        for (int64_t n = 0; n < N; n++) {
          const float* own = weights_of(i) + (j * N + n) * 9 * LANES;
          const float* other = weights_of(i + 1) + (j * N + n) * 9 * LANES;
          const float *next = own + N * 9 * LANES, *last = other + N * 9 * LANES;
          for (int64_t d = 0; d < D; d += 16) {
            const int64_t c = n * D + d;
            __m512 even_even = _mm512_setzero_ps(), even_odd = even_even, odd_even = even_even, odd_odd = even_even;
            const auto say = [&](const Value* const* from, const float* weight, int destination, __m512& sum, int s) {
              sum = _mm512_fmadd_ps(_mm512_set1_ps(weight[s * LANES + destination]), T::load(from[s] + c), sum);
            };
#pragma GCC unroll 9
            for (int s = 0; s < 9; s++) {
              say(here[j % 2], own, 4, even_even, s);
              say(here[j % 2], own, 5, even_odd, s);
              say(here[j % 2], own, 7, odd_even, s);
              say(here[j % 2], own, 8, odd_odd, s);
            }
            if (right)
#pragma GCC unroll 9
              for (int s = 0; s < 9; s++) {
                say(here[(j + 1) % 2], next, 3, even_odd, s);
                say(here[(j + 1) % 2], next, 6, odd_odd, s);
              }
            if (below)
#pragma GCC unroll 9
              for (int s = 0; s < 9; s++) {
                say(under[j % 2], other, 1, odd_even, s);
                say(under[j % 2], other, 2, odd_odd, s);
              }
            if (right && below)
#pragma GCC unroll 9
              for (int s = 0; s < 9; s++) say(under[(j + 1) % 2], last, 0, odd_odd, s);
            T::store(to + c, even_even);
            if (odd_column) T::store(to + C + c, even_odd);
            if (odd_row) T::store(to + W * C + c, odd_even);
            if (odd_row && odd_column) T::store(to + (W + 1) * C + c, odd_odd);
          }
        }
      }
    }
  }
  return short_of_memory ? OUT_OF_MEMORY : 0;
}

// The four planes of a map, one behind the other; value_bytes: of one pixel. sizes: B, H, W, the strides of x (image, row,
// pixel), in bytes.
static void split(const char* x, char* planes, const int64_t* sizes, int64_t value_bytes, int threads) {
  const int64_t B = sizes[0], H = sizes[1], W = sizes[2];
  const int64_t* s = sizes + 3;
  const int64_t rows[2] = {(H + 1) / 2, H / 2}, columns[2] = {(W + 1) / 2, W / 2};
  const int64_t starts[4] = {0, B * rows[0] * columns[0], B * rows[0] * W, B * rows[0] * W + B * rows[1] * columns[0]};
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t line = 0; line < B * H; line++) {
    const int64_t image = line / H, y = line % H, odd = y % 2;
    const char* from = x + image * s[0] + y * s[1];
    for (int64_t column = 0; column < W; column++) {
      const int64_t wide = columns[column % 2];
      const int64_t pixel = starts[2 * odd + column % 2] + (image * rows[odd] + y / 2) * wide + column / 2;
      std::memcpy(planes + pixel * value_bytes, from + column * s[2], value_bytes);
    }
  }
}

extern "C" {

// planes <- the pixels of x, those of even row and column first, then of even row and odd column, and so on. sizes: B, H,
// W, the strides of x (image, row, pixel), in bytes.
int csa_split(const void* x, void* planes, const int64_t* sizes, int64_t pixel_bytes, int threads) {
  split((const char*)x, (char*)planes, sizes, pixel_bytes, threads);
  return 0;
}

// out (B, H, W, N * D) <- what the windows say about every pixel. logits: (B, h, w, N, 9 destinations, 9 sources); v..:
// values of each plane, (B, rows, columns, positions, N, D). sizes: B, H, W, N, D.
// scale: factor on the logits.
int csa_mix_float(const void* logits, const void* v0, const void* v1, const void* v2, const void* v3, void* out,
                  const int64_t* sizes, float scale, int threads) {
  const float* planes[4] = {(const float*)v0, (const float*)v1, (const float*)v2, (const float*)v3};
  return mix<Float>((const float*)logits, planes, (float*)out, sizes, scale, threads);
}
int csa_mix_bfloat16(const void* logits, const void* v0, const void* v1, const void* v2, const void* v3, void* out,
                     const int64_t* sizes, float scale, int threads) {
  const uint16_t* planes[4] = {(const uint16_t*)v0, (const uint16_t*)v1, (const uint16_t*)v2, (const uint16_t*)v3};
  return mix<BFloat16>((const uint16_t*)logits, planes, (uint16_t*)out, sizes, scale, threads);
}
}
