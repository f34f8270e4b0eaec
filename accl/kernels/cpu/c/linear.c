/* Matrix products of a linear layer, all row-major: forward, and backward to its input and its weights.

   One factor is packed into panels of COLUMNS columns, which stay in the core's cache, while the other is read once
   from where it is: in a training step, hardly ever in the cache. A tile of the result is summed in registers (Goto &
   van de Geijn, "Anatomy of high-performance matrix multiplication", 2008). What is needed next is prefetched meanwhile,
   since the processor's own prefetcher foresees little of it.

   Shapes: T tokens, K inputs, N outputs; w is N x K. */

#include "kernels.h"
#include "shared.h"

#ifndef __APPLE__ /* linear_apple.c */

/* ROWS x WIDE registers hold a tile; two more hold a row of the panel. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define ROWS 12 /* of 32 registers */
#else
#define ROWS 6 /* of 16 */
#endif
#define WIDE 2
#define COLUMNS (WIDE * LANES)
/* Tokens that gradients of weights are summed over at a time: their panel stays in the innermost cache while the next
   is prefetched. */
#define BLOCK 128

/* The factor that is not packed: its element (r, k) is at[r * stride + k], or at[k * stride + r] if transposed. */
typedef struct {
  const float *at;
  int64_t stride;
  int transposed;
} Factor;

/* The summand of the result: its element (r, n) is at[r * stride + n]; a vector for all rows if the stride is 0; 0 if
   `at` is 0. */
typedef struct {
  const float *at;
  int64_t stride;
} Summand;

/* Prefetched while a tile is computed: `bytes` for each k from `at` on, and the next tile of the result. */
typedef struct {
  const char *at;
  int64_t bytes;
  const float *result;
} Next;

/* sum += column k of a * row k of the panel. */
INLINE void add_outer(int rows, Factor a, int64_t k, const float *panel, Lanes sum[ROWS][WIDE]) {
  Lanes b[WIDE];
#pragma GCC unroll 2
  for (int w = 0; w < WIDE; w++) b[w] = load(panel + k * COLUMNS + w * LANES);
  /* The end of what the next strip reads of this column; it begins in the same cache line, or in one that is here. */
  if (a.transposed) __builtin_prefetch(a.at + k * a.stride + 2 * rows - 1);
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int w = 0; w < WIDE; w++) sum[r][w] += a.at[a.transposed ? k * a.stride + r : r * a.stride + k] * b[w];
}

INLINE void tile(int rows, Factor a, const float *panel, int64_t depth, Summand start, Next next, float *c,
                 int64_t c_row) {
  Lanes sum[ROWS][WIDE];
  int64_t k = 0;
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int w = 0; w < WIDE; w++) sum[r][w] = start.at ? load(start.at + r * start.stride + w * LANES) : (Lanes){0.0f};
  /* Spread over a few k: prefetches all at once would hold up the loads that are needed now. */
  for (; k < depth && k < rows; k++) {
#pragma GCC unroll 2
    for (int w = 0; w < WIDE; w++) __builtin_prefetch(next.result + k * c_row + w * LANES, 1);
    add_outer(rows, a, k, panel, sum);
  }
  /* By twos, since prefetching one cache line again and again takes time too. */
  for (; k + 2 <= depth; k += 2) {
    __builtin_prefetch(next.at + k * next.bytes);
    add_outer(rows, a, k, panel, sum);
    add_outer(rows, a, k + 1, panel, sum);
  }
  if (k < depth) add_outer(rows, a, k, panel, sum);
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int w = 0; w < WIDE; w++) store(c + r * c_row + w * LANES, sum[r][w]);
}

INLINE int64_t panels(int64_t columns) { return (columns + COLUMNS - 1) / COLUMNS; }

/* Computes `rows` rows of the result. */
INLINE void strip(int rows, Factor a, const float *packed, int64_t columns, int64_t depth, Summand start, Next next,
                  float *c) {
  if (!a.transposed) { /* the next rows of a */
    next.at = (const char *)(a.at + rows * a.stride);
    next.bytes = (rows * (int64_t)sizeof(float) + panels(columns) - 1) / panels(columns);
  }
  for (int64_t n = 0; n < columns; n += COLUMNS, next.at += depth * next.bytes) {
    const float *panel = packed + n * depth;
    Summand from = {start.at ? start.at + n : 0, start.stride};
    next.result = c + (n + COLUMNS < columns ? n + COLUMNS : rows * columns);
    if (n + COLUMNS <= columns) {
      tile(rows, a, panel, depth, from, next, c + n, columns);
      continue;
    }
    /* The last panel is padded with zeros, and its tile is computed in memory of its own. */
    float aside[ROWS * COLUMNS] = {0.0f};
    size_t there = (size_t)(columns - n) * sizeof(float);
    if (from.at)
      for (int r = 0; r < rows; r++) memcpy(aside + r * COLUMNS, from.at + r * from.stride, there);
    tile(rows, a, panel, depth, (Summand){aside, COLUMNS}, next, aside, COLUMNS);
    for (int r = 0; r < rows; r++) memcpy(c + r * columns + n, aside + r * COLUMNS, there);
  }
}

/* c = start + a * packed, rows x columns. later: `size` floats, packed next, to be prefetched if a is transposed. */
INLINE void multiply(Factor a, const float *packed, int64_t rows, int64_t columns, int64_t depth, Summand start,
                     const float *later, int64_t size, float *c) {
  int64_t i = 0, strips = (rows + ROWS - 1) / ROWS, steps = strips * panels(columns) * depth;
  Next next = {(const char *)later, steps ? size * (int64_t)sizeof(float) / steps + 1 : 0, 0};
#define STRIPS(count)                                                                                                 \
  for (; i + count <= rows; i += count) {                                                                             \
    Factor of_strip = {a.at + (a.transposed ? i : i * a.stride), a.stride, a.transposed};                             \
    Summand from = {start.at ? start.at + i * start.stride : 0, start.stride};                                        \
    strip(count, of_strip, packed, columns, depth, from, next, c + i * columns);                                      \
    next.at += panels(columns) * depth * next.bytes;                                                                  \
  }
  STRIPS(ROWS)
#if ROWS > 8
  STRIPS(8)
#endif
  STRIPS(4)
  STRIPS(1)
#undef STRIPS
}

/* b: depth x columns. Packs a few rows at a time, so that reads and writes stay close together. */
INLINE void pack_rows(const float *b, int64_t columns, int64_t depth, float *packed) {
  for (int64_t k0 = 0; k0 < depth; k0 += 8)
    for (int64_t n = 0; n < columns; n += COLUMNS)
      for (int64_t k = k0; k < depth && k < k0 + 8; k++) {
        const float *from = b + k * columns + n;
        float *to = packed + n * depth + k * COLUMNS;
        if (n + COLUMNS <= columns)
          memcpy(to, from, COLUMNS * sizeof(float));
        else
          for (int64_t c = 0; c < COLUMNS; c++) to[c] = n + c < columns ? from[c] : 0.0f;
      }
}

/* Interleaves the first halves of two vectors, and their second halves. */
#if LANES == 16
#define FIRST 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define SECOND 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif LANES == 8
#define FIRST 0, 8, 1, 9, 2, 10, 3, 11
#define SECOND 4, 12, 5, 13, 6, 14, 7, 15
#else
#define FIRST 0, 4, 1, 5
#define SECOND 2, 6, 3, 7
#endif
#ifdef __clang__
#define INTERLEAVE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t Indices __attribute__((vector_size(LANES * sizeof(int32_t))));
#define INTERLEAVE(a, b, ...) __builtin_shuffle(a, b, (Indices){__VA_ARGS__})
#endif

/* Transposes LANES x LANES elements: each round doubles how many of a column lie side by side. */
INLINE void transpose_block(const float *from, int64_t stride, float *to) {
  Lanes x[LANES], y[LANES];
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i++) x[i] = load(from + i * stride);
#pragma GCC unroll 4
  for (int length = 1; length < LANES; length *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < LANES / 2; i++) {
      y[2 * i] = INTERLEAVE(x[i], x[i + LANES / 2], FIRST);
      y[2 * i + 1] = INTERLEAVE(x[i], x[i + LANES / 2], SECOND);
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) x[i] = y[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i++) store(to + i * COLUMNS, x[i]);
}

/* b: columns x depth. */
INLINE void pack_transposed(const float *b, int64_t columns, int64_t depth, float *packed) {
  for (int64_t n = 0; n < panels(columns) * COLUMNS; n += LANES) {
    float *to = packed + n / COLUMNS * COLUMNS * depth + n % COLUMNS;
    int64_t k = 0;
    if (n + LANES <= columns)
      for (; k + LANES <= depth; k += LANES) transpose_block(b + n * depth + k, depth, to + k * COLUMNS);
    for (; k < depth; k++)
      for (int64_t i = 0; i < LANES; i++) to[k * COLUMNS + i] = n + i < columns ? b[(n + i) * depth + k] : 0.0f;
  }
}

/* Number of floats of scratch memory that the products of a layer need. */
API int64_t linear_scratch(int64_t tokens, int64_t inputs, int64_t outputs) {
  int64_t block = tokens < BLOCK ? tokens : BLOCK, most = outputs > block ? outputs : block;
  int64_t forward = panels(outputs) * COLUMNS * inputs, back = panels(inputs) * COLUMNS * most;
  return forward > back ? forward : back;
}

/* y = x w^T + bias; bias may be 0. */
API void linear(const float *x_TK, const float *w_NK, const float *bias_N, int64_t tokens, int64_t inputs,
                int64_t outputs, float *scratch, float *y_TN) {
  Factor x = {x_TK, inputs, 0};
  Summand bias = {bias_N, 0};
  pack_transposed(w_NK, outputs, inputs, scratch);
  multiply(x, scratch, tokens, outputs, inputs, bias, 0, 0, y_TN);
}

/* dx = dy w, or dx += dy w if `add`. */
API void linear_backward_input(const float *dy_TN, const float *w_NK, int64_t tokens, int64_t inputs, int64_t outputs,
                               int32_t add, float *scratch, float *dx_TK) {
  Factor dy = {dy_TN, outputs, 0};
  Summand start = {add ? dx_TK : 0, inputs};
  pack_rows(w_NK, inputs, outputs, scratch);
  multiply(dy, scratch, tokens, inputs, outputs, start, 0, 0, dx_TK);
}

/* dw = dy^T x, or dw += dy^T x if `add`. */
API void linear_backward_weight(const float *dy_TN, const float *x_TK, int64_t tokens, int64_t inputs, int64_t outputs,
                                int32_t add, float *scratch, float *dw_NK) {
  Summand start = {add ? dw_NK : 0, inputs};
  int64_t blocks = tokens / BLOCK + 1, most = (tokens + blocks - 1) / blocks, t = 0;
  do {
    int64_t depth = tokens - t < most ? tokens - t : most, after = t + depth;
    Factor dy = {dy_TN + t * outputs, outputs, 1};
    const float *x = x_TK + t * inputs, *later = x_TK + after * inputs;
    pack_rows(x, inputs, depth, scratch);
    multiply(dy, scratch, outputs, inputs, depth, start, later, after < tokens ? depth * inputs : 0, dw_NK);
    start.at = dw_NK;
    t = after;
  } while (t < tokens);
}

#endif
