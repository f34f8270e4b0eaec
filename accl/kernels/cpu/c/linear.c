/* Matrix products of a linear layer, all row-major: forward, and backward to its input and its weights.

   One factor is packed into panels of COLUMNS columns, which stay in the core's cache, while the other is read once
   from where it is: in a training step, hardly ever in the cache. A tile of the result is summed in registers (Goto &
   van de Geijn, "Anatomy of high-performance matrix multiplication", 2008). What is needed next is prefetched
   meanwhile, since the processor's own prefetcher foresees little of it.

   Shapes: T tokens, K inputs, N outputs; w is N x K. */

#include "kernels.h"

/* A matrix: element (r, c) is at[r * stride + c], or at[c * stride + r] if transposed. */
typedef struct {
  const float *at;
  int64_t stride;
  int transposed;
} Factor;

/* Tokens that gradients of weights are summed over at a time: their panel stays in the innermost cache while the next
   is prefetched. */
#define BLOCK 128

#ifdef __APPLE__ /* whose matrix units only their BLAS can use */

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 };
void cblas_sgemm(int order, int transpose_a, int transpose_b, int rows, int columns, int depth, float alpha,
                 const float *a, int a_row, const float *b, int b_row, float beta, float *c, int c_row);

INLINE int64_t product_scratch(int64_t columns, int64_t depth) { return (void)columns, (void)depth, 0; }

static void product(Factor a, Factor b, int64_t rows, int64_t columns, int64_t depth, int add, float *scratch,
                    float *c) {
  (void)scratch;
  cblas_sgemm(ROW_MAJOR, a.transposed ? TRANSPOSE : NO_TRANSPOSE, b.transposed ? TRANSPOSE : NO_TRANSPOSE, (int)rows,
              (int)columns, (int)depth, 1.0f, a.at, (int)a.stride, b.at, (int)b.stride, (float)add, c, (int)columns);
}

#else

/* ROWS x WIDE registers hold a tile; two more hold a row of the panel. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define ROWS 12 /* of 32 registers */
#else
#define ROWS 6 /* of 16 */
#endif
#define WIDE 2
#define COLUMNS (WIDE * LANES)

/* Prefetched while a tile is computed: `bytes` for each k from `at` on, and the next tile of the result. */
typedef struct {
  const char *at;
  int64_t bytes;
  const float *result;
} Next;

/* sum += column k of a * row k of the panel. */
INLINE void add_outer(int rows, Factor a, int64_t k, const float *panel, int64_t depth, Lanes sum[ROWS][WIDE]) {
  Lanes b[WIDE];
#pragma GCC unroll 2
  for (int w = 0; w < WIDE; w++) b[w] = load(panel_at(panel, w * LANES, depth) + k * PADDING);
  /* The end of what the next strip reads of this column; it begins in the same cache line, or in one that is here. */
  if (a.transposed) __builtin_prefetch(a.at + k * a.stride + 2 * rows - 1);
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int w = 0; w < WIDE; w++) sum[r][w] += a.at[a.transposed ? k * a.stride + r : r * a.stride + k] * b[w];
}

INLINE void tile(int rows, Factor a, const float *panel, int64_t depth, int add, Next next, float *c, int64_t c_row) {
  Lanes sum[ROWS][WIDE];
  int64_t k = 0;
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int w = 0; w < WIDE; w++) sum[r][w] = add ? load(c + r * c_row + w * LANES) : (Lanes){0.0f};
  /* Spread over a few k: prefetches all at once would hold up the loads that are needed now. */
  for (; k < depth && k < rows; k++) {
#pragma GCC unroll 2
    for (int w = 0; w < WIDE; w++) __builtin_prefetch(next.result + k * c_row + w * LANES, 1);
    add_outer(rows, a, k, panel, depth, sum);
  }
  /* By twos, since prefetching one cache line again and again takes time too. */
  for (; k + 2 <= depth; k += 2) {
    __builtin_prefetch(next.at + k * next.bytes);
    add_outer(rows, a, k, panel, depth, sum);
    add_outer(rows, a, k + 1, panel, depth, sum);
  }
  if (k < depth) add_outer(rows, a, k, panel, depth, sum);
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int w = 0; w < WIDE; w++) store(c + r * c_row + w * LANES, sum[r][w]);
}

INLINE int64_t panels(int64_t columns) { return (columns + COLUMNS - 1) / COLUMNS; }

/* Computes `rows` rows of the result. */
INLINE void strip(int rows, Factor a, const float *packed, int64_t columns, int64_t depth, int add, Next next,
                  float *c) {
  if (!a.transposed) { /* the next rows of a */
    next.at = (const char *)(a.at + rows * a.stride);
    next.bytes = (rows * (int64_t)sizeof(float) + panels(columns) - 1) / panels(columns);
  }
  for (int64_t n = 0; n < columns; n += COLUMNS, next.at += depth * next.bytes) {
    const float *panel = panel_at(packed, n, depth);
    next.result = c + (n + COLUMNS < columns ? n + COLUMNS : rows * columns);
    if (n + COLUMNS <= columns) {
      tile(rows, a, panel, depth, add, next, c + n, columns);
      continue;
    }
    /* The last tile may be narrower: it is computed in memory of its own. */
    float aside[ROWS * COLUMNS] = {0.0f};
    size_t there = (size_t)(columns - n) * sizeof(float);
    for (int r = 0; r < rows && add; r++) memcpy(aside + r * COLUMNS, c + r * columns + n, there);
    tile(rows, a, panel, depth, add, next, aside, COLUMNS);
    for (int r = 0; r < rows; r++) memcpy(c + r * columns + n, aside + r * COLUMNS, there);
  }
}

/* c = a * packed, or c += a * packed if `add`; rows x columns. later: `size` floats, packed next, to be prefetched if a
   is transposed. */
INLINE void multiply(Factor a, const float *packed, int64_t rows, int64_t columns, int64_t depth, int add,
                     const float *later, int64_t size, float *c) {
  int64_t i = 0, strips = (rows + ROWS - 1) / ROWS, steps = strips * panels(columns) * depth;
  Next next = {(const char *)later, steps ? size * (int64_t)sizeof(float) / steps + 1 : 0, 0};
#define STRIPS(count)                                                                         \
  for (; i + count <= rows; i += count, next.at += panels(columns) * depth * next.bytes) {    \
    Factor from = {a.at + (a.transposed ? i : i * a.stride), a.stride, a.transposed};         \
    strip(count, from, packed, columns, depth, add, next, c + i * columns);                   \
  }
  STRIPS(ROWS)
#if ROWS > 8
  STRIPS(8)
#endif
  STRIPS(4)
  STRIPS(1)
#undef STRIPS
}

/* Packs a few rows of `depth` x columns at a time, so that reads and writes stay close together. */
INLINE void pack_rows(const float *b, int64_t columns, int64_t depth, float *packed) {
  for (int64_t k0 = 0; k0 < depth; k0 += 8)
    for (int64_t n = 0; n < columns; n += PADDING)
      for (int64_t k = k0; k < depth && k < k0 + 8; k++) {
        const float *from = b + k * columns + n;
        float *to = packed + n * depth + k * PADDING;
        if (n + PADDING <= columns)
          memcpy(to, from, PADDING * sizeof(float));
        else
          for (int64_t c = 0; c < PADDING; c++) to[c] = n + c < columns ? from[c] : 0.0f;
      }
}

INLINE int64_t product_scratch(int64_t columns, int64_t depth) {
  return panels(columns) * padded(COLUMNS) * depth + PADDING * depth;
}

/* c = a b, or c += a b if `add`: rows x columns, sums over `depth`. */
static void product(Factor a, Factor b, int64_t rows, int64_t columns, int64_t depth, int add, float *scratch,
                    float *c) {
  int64_t blocks = a.transposed ? depth / BLOCK + 1 : 1, most = (depth + blocks - 1) / blocks;
  for (int64_t k = 0, end; k < depth; k = end, add = 1) {
    end = min_of(k + most, depth);
    const float *later = b.at + end * b.stride;
    if (b.transposed)
      transpose(b.at, b.stride, columns, depth, scratch + panels(columns) * padded(COLUMNS) * depth, scratch);
    else
      pack_rows(b.at + k * b.stride, columns, end - k, scratch);
    int64_t next = a.transposed ? min_of(most, depth - end) * columns : 0;
    Factor part = {a.at + (a.transposed ? k * a.stride : 0), a.stride, a.transposed};
    multiply(part, scratch, rows, columns, end - k, add, later, next, c);
  }
}

#endif

/* Number of floats of scratch memory that the products of a layer need. */
int64_t linear_scratch(int64_t tokens, int64_t inputs, int64_t outputs) {
  int64_t backward = product_scratch(inputs, max_of(outputs, min_of(tokens, BLOCK)));
  return max_of(product_scratch(outputs, inputs), backward);
}

/* y = x w^T + bias; bias may be 0. */
void linear(const float *x_TK, const float *w_NK, const float *bias_N, int64_t tokens, int64_t inputs, int64_t outputs,
            float *scratch, float *y_TN) {
  for (int64_t t = 0; t < tokens && bias_N; t++) memcpy(y_TN + t * outputs, bias_N, (size_t)outputs * sizeof(float));
  product((Factor){x_TK, inputs, 0}, (Factor){w_NK, inputs, 1}, tokens, outputs, inputs, bias_N != 0, scratch, y_TN);
}

/* dx = dy w, or dx += dy w if `add`. */
void linear_backward_input(const float *dy_TN, const float *w_NK, int64_t tokens, int64_t inputs, int64_t outputs,
                           int add, float *scratch, float *dx_TK) {
  product((Factor){dy_TN, outputs, 0}, (Factor){w_NK, inputs, 0}, tokens, inputs, outputs, add, scratch, dx_TK);
}

/* dw += dy^T x. */
void linear_backward_weight(const float *dy_TN, const float *x_TK, int64_t tokens, int64_t inputs, int64_t outputs,
                            float *scratch, float *dw_NK) {
  product((Factor){dy_TN, outputs, 1}, (Factor){x_TK, inputs, 0}, outputs, inputs, tokens, 1, scratch, dw_NK);
}
