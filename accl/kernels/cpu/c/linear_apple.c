/* `linear.c` for Apple's processors, whose matrix units only their BLAS can use. */

#include "kernels.h"
#include "shared.h"

#ifdef __APPLE__

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 };
void cblas_sgemm(int order, int transpose_a, int transpose_b, int rows, int columns, int depth, float alpha,
                 const float *a, int a_row, const float *b, int b_row, float beta, float *c, int c_row);

INLINE void multiply(int transpose_a, int transpose_b, int64_t rows, int64_t columns, int64_t depth, const float *a,
                     const float *b, int add, float *c) {
  int a_row = (int)(transpose_a == TRANSPOSE ? rows : depth), b_row = (int)(transpose_b == TRANSPOSE ? depth : columns);
  cblas_sgemm(ROW_MAJOR, transpose_a, transpose_b, (int)rows, (int)columns, (int)depth, 1.0f, a, a_row, b, b_row,
              (float)add, c, (int)columns);
}

API int64_t linear_scratch(int64_t tokens, int64_t inputs, int64_t outputs) {
  (void)tokens, (void)inputs, (void)outputs;
  return 0;
}

API void linear(const float *x_TK, const float *w_NK, const float *bias_N, int64_t tokens, int64_t inputs,
                int64_t outputs, float *scratch, float *y_TN) {
  (void)scratch;
  if (bias_N)
    for (int64_t t = 0; t < tokens; t++) memcpy(y_TN + t * outputs, bias_N, (size_t)outputs * sizeof(float));
  multiply(NO_TRANSPOSE, TRANSPOSE, tokens, outputs, inputs, x_TK, w_NK, bias_N != 0, y_TN);
}

API void linear_backward_input(const float *dy_TN, const float *w_NK, int64_t tokens, int64_t inputs, int64_t outputs,
                               int32_t add, float *scratch, float *dx_TK) {
  (void)scratch;
  multiply(NO_TRANSPOSE, NO_TRANSPOSE, tokens, inputs, outputs, dy_TN, w_NK, add, dx_TK);
}

API void linear_backward_weight(const float *dy_TN, const float *x_TK, int64_t tokens, int64_t inputs, int64_t outputs,
                                int32_t add, float *scratch, float *dw_NK) {
  (void)scratch;
  multiply(TRANSPOSE, NO_TRANSPOSE, outputs, inputs, tokens, dy_TN, x_TK, add, dw_NK);
}

#endif
