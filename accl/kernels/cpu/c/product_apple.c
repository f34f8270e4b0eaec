/* The products of `product.c` on Apple's processors, which have units for matrices that no compiler knows: its BLAS does. */

#include "kernels.h"
#include "shared.h"

#ifdef __APPLE__

enum { ROWS_IN_ORDER = 101, AS_IT_IS = 111, TURNED = 112 };
void cblas_sgemm(int order, int turn_a, int turn_b, int rows, int columns, int depth, float alpha, const float *a,
                 int a_row, const float *b, int b_row, float beta, float *c, int c_row);

INLINE void multiply(int turn_a, int turn_b, int64_t rows, int64_t columns, int64_t depth, const float *a,
                     const float *b, int add, float *c) {
  int a_row = (int)(turn_a == TURNED ? rows : depth), b_row = (int)(turn_b == TURNED ? depth : columns);
  cblas_sgemm(ROWS_IN_ORDER, turn_a, turn_b, (int)rows, (int)columns, (int)depth, 1.0f, a, a_row, b, b_row, (float)add,
              c, (int)columns);
}

API int64_t product_scratch(int64_t tokens, int64_t inputs, int64_t outputs) {
  (void)tokens, (void)inputs, (void)outputs;
  return 0;
}

API void product(const float *x_TK, const float *w_NK, const float *bias_N, int64_t tokens, int64_t inputs,
                 int64_t outputs, float *scratch, float *y_TN) {
  (void)scratch;
  if (bias_N)
    for (int64_t t = 0; t < tokens; t++) memcpy(y_TN + t * outputs, bias_N, (size_t)outputs * sizeof(float));
  multiply(AS_IT_IS, TURNED, tokens, outputs, inputs, x_TK, w_NK, bias_N != 0, y_TN);
}

API void product_back(const float *dy_TN, const float *w_NK, int64_t tokens, int64_t inputs, int64_t outputs,
                      int32_t add, float *scratch, float *dx_TK) {
  (void)scratch;
  multiply(AS_IT_IS, AS_IT_IS, tokens, inputs, outputs, dy_TN, w_NK, add, dx_TK);
}

API void product_weights(const float *dy_TN, const float *x_TK, int64_t tokens, int64_t inputs, int64_t outputs,
                         int32_t add, float *scratch, float *dw_NK) {
  (void)scratch;
  multiply(TURNED, AS_IT_IS, outputs, inputs, tokens, dy_TN, x_TK, add, dw_NK);
}

#endif
