/* Products of small matrices, all in rows: of a linear layer forward, and back to its inputs and its weights.

   Of the two factors one is packed into panels of COLUMNS columns, which stay in the core's cache while the other is
   read once, from wherever it lies: in a training step, hardly ever in the cache. A tile of the result is summed up in
   registers; after Goto & van de Geijn, "Anatomy of high-performance matrix multiplication", 2008.

   Shapes: T tokens, K inputs, N outputs; w is N x K. */

#include "shared.h"

/* Of a tile; two registers more hold a row of the panel. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define ROWS 12 /* of 32 registers */
#else
#define ROWS 6 /* of 16 */
#endif
#define WIDE 2
#define COLUMNS (WIDE * LANES)

/* The other factor: element (r, k) of it is at[r * row + k * step]. */
typedef struct {
  const float *at;
  int64_t row, step;
} Factor;

/* What the result is added to: element (r, n) at[r * row + n]. Row 0: a vector for all. Nowhere: 0. */
typedef struct {
  const float *at;
  int64_t row;
} Start;

INLINE void tile(int rows, Factor a, const float *panel, int64_t depth, Start start, float *c, int64_t c_row) {
  Lanes sum[ROWS][WIDE];
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int w = 0; w < WIDE; w++) {
      sum[r][w] = start.at ? load(start.at + r * start.row + w * LANES) : (Lanes){0.0f};
      __builtin_prefetch(c + r * c_row + w * LANES, 1);
    }
  for (int64_t k = 0; k < depth; k++) {
    Lanes b[WIDE];
#pragma GCC unroll 2
    for (int w = 0; w < WIDE; w++) b[w] = load(panel + k * COLUMNS + w * LANES);
    /* What is read across its rows the processor does not foresee: the next tile's share of this one. */
    if (a.row == 1) __builtin_prefetch(a.at + k * a.step + 16);
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
      for (int w = 0; w < WIDE; w++) sum[r][w] += a.at[r * a.row + k * a.step] * b[w];
  }
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int w = 0; w < WIDE; w++) store(c + r * c_row + w * LANES, sum[r][w]);
}

/* Some rows of the result, in all its columns. */
INLINE void strip(int rows, Factor a, const float *packed, int64_t columns, int64_t depth, Start start, float *c) {
  for (int64_t n = 0; n < columns; n += COLUMNS) {
    const float *panel = packed + n * depth;
    Start here = {start.at ? start.at + n : 0, start.row};
    if (n + COLUMNS <= columns) {
      tile(rows, a, panel, depth, here, c + n, columns);
      continue;
    }
    /* The last panel is filled up with zeros, and its tile computed aside. */
    float aside[ROWS * COLUMNS] = {0.0f};
    size_t bytes = (size_t)(columns - n) * sizeof(float);
    if (start.at)
      for (int r = 0; r < rows; r++) memcpy(aside + r * COLUMNS, here.at + r * here.row, bytes);
    Start same = {aside, COLUMNS};
    tile(rows, a, panel, depth, same, aside, COLUMNS);
    for (int r = 0; r < rows; r++) memcpy(c + r * columns + n, aside + r * COLUMNS, bytes);
  }
}

/* c = start + a * packed, of `rows` x `columns`. */
INLINE void multiply(Factor a, const float *packed, int64_t rows, int64_t columns, int64_t depth, Start start,
                     float *c) {
  int64_t i = 0;
#define STRIPS(count)                                                                                                 \
  for (; i + count <= rows; i += count) {                                                                             \
    Factor of_strip = {a.at + i * a.row, a.row, a.step};                                                              \
    Start from = {start.at ? start.at + i * start.row : 0, start.row};                                                \
    strip(count, of_strip, packed, columns, depth, from, c + i * columns);                                            \
  }
  STRIPS(ROWS)
#if ROWS > 8
  STRIPS(8)
#endif
  STRIPS(4)
  STRIPS(1)
#undef STRIPS
}

INLINE int64_t panels(int64_t columns) { return (columns + COLUMNS - 1) / COLUMNS * COLUMNS; }

/* b: depth x columns. */
INLINE void pack_rows(const float *b, int64_t columns, int64_t depth, float *packed) {
  for (int64_t n = 0; n < columns; n += COLUMNS) {
    int64_t there = columns - n < COLUMNS ? columns - n : COLUMNS;
    for (int64_t k = 0; k < depth; k++) {
      float *to = packed + n * depth + k * COLUMNS;
      if (there == COLUMNS)
        memcpy(to, b + k * columns + n, COLUMNS * sizeof(float));
      else
        for (int64_t c = 0; c < COLUMNS; c++) to[c] = c < there ? b[k * columns + n + c] : 0.0f;
    }
  }
}

/* b: columns x depth. */
INLINE void pack_turned(const float *b, int64_t columns, int64_t depth, float *packed) {
  for (int64_t n = 0; n < columns; n += COLUMNS)
    for (int64_t k0 = 0; k0 < depth; k0 += LANES) /* so much of a panel's rows stays at hand for all its columns */
      for (int64_t c = 0; c < COLUMNS; c++)
        for (int64_t k = k0; k < depth && k < k0 + LANES; k++)
          packed[n * depth + k * COLUMNS + c] = n + c < columns ? b[(n + c) * depth + k] : 0.0f;
}

/* Floats that the products of such a layer need to work in. */
API int64_t product_scratch(int64_t tokens, int64_t inputs, int64_t outputs) {
  int64_t forward = panels(outputs) * inputs, back = panels(inputs) * (outputs > tokens ? outputs : tokens);
  return forward > back ? forward : back;
}

/* y = x w^T + bias, which may be nowhere. */
API void product(const float *x_TK, const float *w_NK, const float *bias_N, int64_t tokens, int64_t inputs,
                 int64_t outputs, float *scratch, float *y_TN) {
  Factor x = {x_TK, inputs, 1};
  Start bias = {bias_N, 0};
  pack_turned(w_NK, outputs, inputs, scratch);
  multiply(x, scratch, tokens, outputs, inputs, bias, y_TN);
}

/* dx = dy w, added to what is there or written over it. */
API void product_back(const float *dy_TN, const float *w_NK, int64_t tokens, int64_t inputs, int64_t outputs,
                      int32_t add, float *scratch, float *dx_TK) {
  Factor dy = {dy_TN, outputs, 1};
  Start start = {add ? dx_TK : 0, inputs};
  pack_rows(w_NK, inputs, outputs, scratch);
  multiply(dy, scratch, tokens, inputs, outputs, start, dx_TK);
}

/* dw = dy^T x, likewise. */
API void product_weights(const float *dy_TN, const float *x_TK, int64_t tokens, int64_t inputs, int64_t outputs,
                         int32_t add, float *scratch, float *dw_NK) {
  Factor dy = {dy_TN, 1, outputs};
  Start start = {add ? dw_NK : 0, inputs};
  pack_rows(x_TK, inputs, tokens, scratch);
  multiply(dy, scratch, outputs, inputs, tokens, start, dw_NK);
}
