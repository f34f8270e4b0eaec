/* What `encoder.c` is made of; said where it is written. */

#pragma once

#include <stdint.h>

#include "team.h"

void dropout(const float *x, float *out, int64_t count, uint64_t seed, uint32_t site, double probability);
void gelu(float *product_TF, const float *bias_F, int64_t tokens, int64_t width, float *wide_TF);
void gelu_back(float *dwide_TF, const float *slope_TF, int64_t tokens, int64_t width, float *dbias_F);
void norm(float *product_TD, const float *bias_D, const float *residual_TD, const float *gain_D, const float *shift_D,
          int64_t tokens, int64_t width, float eps, uint64_t seed, uint32_t site, double probability, float *out_TD,
          float *inverse_T);
void norm_back(const float *dout_TD, const float *normal_TD, const float *inverse_T, const float *gain_D,
               int64_t tokens, int64_t width, uint64_t seed, uint32_t site, double probability, float *dsum_TD,
               float *dproduct_TD, float *dgain_D, float *dshift_D, float *dbias_D);
int64_t embed(const float *table_VD, int64_t rows, const int64_t *id_T, const float *gain_D, const float *shift_D,
              int64_t tokens, int64_t width, float eps, uint64_t seed, uint32_t site, double probability,
              float *normal_TD, float *out_TD, float *inverse_T);
void embed_back(const float *dout_TD, const float *normal_TD, const float *inverse_T, const float *gain_D,
                int64_t tokens, int64_t width, uint64_t seed, uint32_t site, double probability, float *drow_TD,
                float *dgain_D, float *dshift_D);
void means(const float *x_TD, const int64_t *begin, int64_t n, int64_t width, const int64_t *place_n, float *mean_ND);
void means_back(const float *dmean_ND, const int64_t *begin, int64_t n, int64_t width, const int64_t *place_n,
                float *dx_TD);

int64_t attention_scratch(int64_t longest, int64_t size);
void attention(const float *qkv_T3E, const float *position_U2E, const int64_t *begin, int64_t n, int64_t longest,
               const int64_t *row_X, int64_t heads, int64_t size, float scale, uint64_t seed, uint32_t site,
               double probability, float *scratch, float *probability_X, float *context_TE);
void attention_back(const float *dcontext_TE, const float *qkv_T3E, const float *position_U2E,
                    const float *probability_X, const int64_t *begin, int64_t n, int64_t longest,
                    const int64_t *row_X, int64_t used, int64_t heads, int64_t size, float scale, uint64_t seed,
                    uint32_t site, double probability, float *scratch, float *dqkv_T3E, float *dinner_3E,
                    float *dposition_U2E, float *dposition_2E);

int64_t product_scratch(int64_t tokens, int64_t inputs, int64_t outputs);
void product(const float *x_TK, const float *w_NK, const float *bias_N, int64_t tokens, int64_t inputs,
             int64_t outputs, float *scratch, float *y_TN);
void product_back(const float *dy_TN, const float *w_NK, int64_t tokens, int64_t inputs, int64_t outputs, int32_t add,
                  float *scratch, float *dx_TK);
void product_weights(const float *dy_TN, const float *x_TK, int64_t tokens, int64_t inputs, int64_t outputs,
                     int32_t add, float *scratch, float *dw_NK);

/* Adds up what threads have: to[s][i] += sum over n parts of part[offset[s] + i], of each of some tensors s, unless it
   goes nowhere. */
void gather(Team *team, const float *const *parts, int64_t n, const int64_t *offset, const int64_t *count,
            float *const *to, int64_t tensors);

/* Adds the rows of all tokens to those of the table that they came from, but for one that is not learnt. */
void scatter(const float *drow_TD, const int64_t *id_T, int64_t tokens, int64_t width, int64_t never,
             float *dtable_VD);
