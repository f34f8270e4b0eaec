/* The parts of `encoder.c`, each described where it is defined. */

#pragma once

#include <stdint.h>

#include "thread_pool.h"

void dropout(const float *x, float *out, int64_t count, uint64_t seed, uint32_t dropout_offset, double probability);
void gelu(float *product_TF, const float *bias_F, int64_t tokens, int64_t width, float *active_TF);
void gelu_backward(float *dactive_TF, const float *derivative_TF, int64_t tokens, int64_t width, float *dbias_F);
void layer_norm(float *product_TD, const float *bias_D, const float *residual_TD, const float *gain_D,
                const float *shift_D, int64_t tokens, int64_t width, float eps, uint64_t seed, uint32_t dropout_offset,
                double probability, float *out_TD, float *inverse_T);
void layer_norm_backward(const float *dout_TD, const float *normal_TD, const float *inverse_T, const float *gain_D,
                         int64_t tokens, int64_t width, uint64_t seed, uint32_t dropout_offset, double probability,
                         float *dsum_TD, float *dproduct_TD, float *dgain_D, float *dshift_D, float *dbias_D);
int64_t embed(const float *table_VD, int64_t rows, const int64_t *id_T, const float *gain_D, const float *shift_D,
              int64_t tokens, int64_t width, float eps, uint64_t seed, uint32_t dropout_offset, double probability,
              float *normal_TD, float *out_TD, float *inverse_T);
void embed_backward(const float *dout_TD, const float *normal_TD, const float *inverse_T, const float *gain_D,
                    int64_t tokens, int64_t width, uint64_t seed, uint32_t dropout_offset, double probability,
                    float *drow_TD, float *dgain_D, float *dshift_D);
void sequence_means(const float *x_TD, const int64_t *cu_seqlens, int64_t n, int64_t width, const int64_t *perm_n,
                    float *mean_ND);
void sequence_means_backward(const float *dmean_ND, const int64_t *cu_seqlens, int64_t n, int64_t width,
                             const int64_t *perm_n, float *dx_TD);

int64_t attention_scratch(int64_t max_length, int64_t size);
void attention(const float *qkv_T3E, const float *position_U2E, const int64_t *cu_seqlens, int64_t n,
               int64_t max_length, const int64_t *bucket_X, int64_t heads, int64_t size, float scale, uint64_t seed,
               uint32_t dropout_offset, double probability, float *scratch, float *probability_S, float *context_TE);
void attention_backward(const float *dcontext_TE, const float *qkv_T3E, const float *position_U2E,
                        const float *probability_S, const int64_t *cu_seqlens, int64_t n, int64_t max_length,
                        const int64_t *bucket_X, int64_t used, int64_t heads, int64_t size, float scale, uint64_t seed,
                        uint32_t dropout_offset, double probability, float *scratch, float *dqkv_T3E, float *dqkv_3E,
                        float *dposition_U2E, float *dposition_2E);

int64_t linear_scratch(int64_t tokens, int64_t inputs, int64_t outputs);
void linear(const float *x_TK, const float *w_NK, const float *bias_N, int64_t tokens, int64_t inputs, int64_t outputs,
            float *scratch, float *y_TN);
void linear_backward_input(const float *dy_TN, const float *w_NK, int64_t tokens, int64_t inputs, int64_t outputs,
                           int32_t add, float *scratch, float *dx_TK);
void linear_backward_weight(const float *dy_TN, const float *x_TK, int64_t tokens, int64_t inputs, int64_t outputs,
                            int32_t add, float *scratch, float *dw_NK);

/* Sums over n threads' gradients: to[s][i] += sum over parts of part[offset[s] + i] for each of count[s] elements of
   each tensor s whose to[s] is not 0. */
void reduce_gradients(ThreadPool *pool, const float *const *parts, int64_t n, const int64_t *offset,
                      const int64_t *count, float *const *to, int64_t tensors);

/* Adds row t of drow to row id_T[t] of the table's gradient, but for tokens of padding_id. */
void scatter_add_rows(const float *drow_TD, const int64_t *id_T, int64_t tokens, int64_t width, int64_t padding_id,
                      float *dtable_VD);
