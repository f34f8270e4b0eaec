/* Dropout, GELU, LayerNorm, the embedding, and means over sequences. */

#include "kernels.h"
#include "shared.h"

/* Dropout --------------------------------------------------------------------------------------------------------- */

/* out = x * mask; out may be x. */
API void dropout(const float *x, float *out, int64_t count, uint64_t seed, uint32_t dropout_offset,
                 double probability) {
  Dropout drop = dropout_at(seed, dropout_offset, probability);
#pragma omp simd
  for (int64_t i = 0; i < count; i++) out[i] = x[i] * keep_mask(drop, (uint32_t)i);
}

/* GELU ------------------------------------------------------------------------------------------------------------ */

/* GELU of x = product + bias: active = x Phi(x). The product is overwritten by the derivative, Phi(x) + x phi(x). The
   normal distribution is from Abramowitz & Stegun 7.1.26, to 1e-7: one exponential gives both Phi and phi. */
API void gelu(float *product_TF, const float *bias_F, int64_t tokens, int64_t width, float *active_TF) {
  for (int64_t t = 0; t < tokens; t++) {
    float *product = product_TF + t * width, *active = active_TF + t * width;
#pragma omp simd
    for (int64_t f = 0; f < width; f++) {
      float x = product[f] + bias_F[f];
      float k = 1.0f / (1.0f + 0.3275911f * 0.70710678f * fabsf(x));
      float bell = exp_negative(-0.5f * x * x);
      float tail = 1.061405429f;
      tail = tail * k - 1.453152027f;
      tail = tail * k + 1.421413741f;
      tail = tail * k - 0.284496736f;
      tail = tail * k + 0.254829592f;
      tail = 0.5f * tail * k * bell;
      float phi = x < 0.0f ? tail : 1.0f - tail;
      active[f] = x * phi;
      product[f] = phi + x * 0.39894228f * bell;
    }
  }
}

/* Turns dactive into the gradient of the product, in place, and adds that of the bias. */
API void gelu_backward(float *dactive_TF, const float *derivative_TF, int64_t tokens, int64_t width, float *dbias_F) {
  for (int64_t t = 0; t < tokens; t++) {
    float *dactive = dactive_TF + t * width;
    const float *derivative = derivative_TF + t * width;
#pragma omp simd
    for (int64_t f = 0; f < width; f++) {
      dactive[f] *= derivative[f];
      dbias_F[f] += dactive[f];
    }
  }
}

/* LayerNorm ------------------------------------------------------------------------------------------------------- */

INLINE float inverse_deviation(const float *x, int64_t width, float mean, float eps) {
  float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
  for (int64_t c = 0; c < width; c++) squares += (x[c] - mean) * (x[c] - mean);
  return 1.0f / sqrtf(squares / (float)width + eps);
}

INLINE void layer_norm_of(float *product_TD, const float *bias, const float *residual_TD, const float *gain,
                          const float *shift, int64_t tokens, int64_t width, float eps, int dropping, Dropout drop,
                          float *out_TD, float *inverse_T) {
  for (int64_t t = 0; t < tokens; t++) {
    float *x = product_TD + t * width, *out = out_TD + t * width;
    const float *residual = residual_TD + t * width;
    uint32_t first = (uint32_t)(t * width);
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < width; c++) {
      float product = x[c] + bias[c];
      x[c] = residual[c] + (dropping ? product * keep_mask(drop, first + (uint32_t)c) : product);
      sum += x[c];
    }
    float mean = sum / (float)width, inverse = inverse_T[t] = inverse_deviation(x, width, mean, eps);
#pragma omp simd
    for (int64_t c = 0; c < width; c++) {
      x[c] = (x[c] - mean) * inverse;
      out[c] = x[c] * gain[c] + shift[c];
    }
  }
}

/* out = LayerNorm(residual + dropout(product + bias)). The product is overwritten by the output before gain and shift;
   inverse: 1 / deviation. */
API void layer_norm(float *product_TD, const float *bias_D, const float *residual_TD, const float *gain_D,
                    const float *shift_D, int64_t tokens, int64_t width, float eps, uint64_t seed,
                    uint32_t dropout_offset, double probability, float *out_TD, float *inverse_T) {
  Dropout drop = dropout_at(seed, dropout_offset, probability);
  if (drop.threshold)
    layer_norm_of(product_TD, bias_D, residual_TD, gain_D, shift_D, tokens, width, eps, 1, drop, out_TD, inverse_T);
  else
    layer_norm_of(product_TD, bias_D, residual_TD, gain_D, shift_D, tokens, width, eps, 0, drop, out_TD, inverse_T);
}

INLINE void layer_norm_backward_of(const float *dout_TD, const float *normal_TD, const float *inverse_T,
                                   const float *gain, int64_t tokens, int64_t width, int dropping, Dropout drop,
                                   float *dsum_TD, float *dproduct_TD, float *dgain, float *dshift, float *dbias) {
  for (int64_t t = 0; t < tokens; t++) {
    const float *dout = dout_TD + t * width, *normal = normal_TD + t * width;
    float *dsum = dsum_TD + t * width, *dproduct = dproduct_TD + t * width;
    uint32_t first = (uint32_t)(t * width);
    float sum = 0.0f, projection = 0.0f;
#pragma omp simd reduction(+ : sum, projection)
    for (int64_t c = 0; c < width; c++) {
      float d = dout[c] * gain[c];
      sum += d;
      projection += d * normal[c];
    }
    sum /= (float)width;
    projection /= (float)width;
    float inverse = inverse_T[t];
#pragma omp simd
    for (int64_t c = 0; c < width; c++) {
      float d = dout[c], dresidual = inverse * (d * gain[c] - sum - normal[c] * projection);
      float dproduct_c = dropping ? dresidual * keep_mask(drop, first + (uint32_t)c) : dresidual;
      dgain[c] += d * normal[c];
      dshift[c] += d;
      dbias[c] += dproduct_c;
      dsum[c] = dresidual;
      dproduct[c] = dproduct_c;
    }
  }
}

/* dsum: gradient of the residual; it may be the same memory as dout. */
API void layer_norm_backward(const float *dout_TD, const float *normal_TD, const float *inverse_T, const float *gain_D,
                             int64_t tokens, int64_t width, uint64_t seed, uint32_t dropout_offset, double probability,
                             float *dsum_TD, float *dproduct_TD, float *dgain_D, float *dshift_D, float *dbias_D) {
  Dropout drop = dropout_at(seed, dropout_offset, probability);
  if (drop.threshold)
    layer_norm_backward_of(dout_TD, normal_TD, inverse_T, gain_D, tokens, width, 1, drop, dsum_TD, dproduct_TD, dgain_D,
                           dshift_D, dbias_D);
  else
    layer_norm_backward_of(dout_TD, normal_TD, inverse_T, gain_D, tokens, width, 0, drop, dsum_TD, dproduct_TD, dgain_D,
                           dshift_D, dbias_D);
}

/* Embedding ------------------------------------------------------------------------------------------------------- */

/* out = dropout(LayerNorm(table[id])); without ids, all rows in order. normal: output of LayerNorm before gain and
   shift; inverse: 1 / deviation. Returns the number of ids that have no row in the table; row 0 is read for them. */
int64_t embed(const float *table_VD, int64_t rows, const int64_t *id_T, const float *gain_D, const float *shift_D,
              int64_t tokens, int64_t width, float eps, uint64_t seed, uint32_t dropout_offset, double probability,
              float *normal_TD, float *out_TD, float *inverse_T) {
  Dropout drop = dropout_at(seed, dropout_offset, probability);
  int64_t unknown = 0;
  for (int64_t t = 0; t < tokens; t++) {
    int64_t id = id_T ? id_T[t] : t;
    int known = id >= 0 && id < rows;
    unknown += !known;
    const float *x = table_VD + (known ? id * width : 0);
    float *normal = normal_TD + t * width, *out = out_TD + t * width, sum = 0.0f;
    uint32_t first = (uint32_t)(t * width);
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < width; c++) sum += x[c];
    float mean = sum / (float)width, inverse = inverse_T[t] = inverse_deviation(x, width, mean, eps);
#pragma omp simd
    for (int64_t c = 0; c < width; c++) {
      normal[c] = (x[c] - mean) * inverse;
      out[c] = (normal[c] * gain_D[c] + shift_D[c]) * keep_mask(drop, first + (uint32_t)c);
    }
  }
  return unknown;
}

/* drow: gradient of the row that was read for each token; it may be the same memory as dout. */
void embed_backward(const float *dout_TD, const float *normal_TD, const float *inverse_T, const float *gain_D,
                    int64_t tokens, int64_t width, uint64_t seed, uint32_t dropout_offset, double probability,
                    float *drow_TD, float *dgain_D, float *dshift_D) {
  Dropout drop = dropout_at(seed, dropout_offset, probability);
  for (int64_t t = 0; t < tokens; t++) {
    const float *dout = dout_TD + t * width, *normal = normal_TD + t * width;
    float *drow = drow_TD + t * width, sum = 0.0f, projection = 0.0f;
    uint32_t first = (uint32_t)(t * width);
#pragma omp simd reduction(+ : sum, projection)
    for (int64_t c = 0; c < width; c++) {
      float d = drow[c] = dout[c] * keep_mask(drop, first + (uint32_t)c);
      dgain_D[c] += d * normal[c];
      dshift_D[c] += d;
      sum += d * gain_D[c];
      projection += d * gain_D[c] * normal[c];
    }
    sum /= (float)width;
    projection /= (float)width;
#pragma omp simd
    for (int64_t c = 0; c < width; c++) drow[c] = inverse_T[t] * (drow[c] * gain_D[c] - sum - normal[c] * projection);
  }
}

/* Means ----------------------------------------------------------------------------------------------------------- */

/* mean[perm_n[r]]: mean over the tokens of sequence r of n. cu_seqlens: where each begins, and the end of the last. */
void sequence_means(const float *x_TD, const int64_t *cu_seqlens, int64_t n, int64_t width, const int64_t *perm_n,
                    float *mean_ND) {
  for (int64_t r = 0; r < n; r++) {
    float share = 1.0f / (float)(cu_seqlens[r + 1] - cu_seqlens[r]), *mean = mean_ND + perm_n[r] * width;
    memset(mean, 0, (size_t)width * sizeof(float));
    for (int64_t t = cu_seqlens[r]; t < cu_seqlens[r + 1]; t++)
#pragma omp simd
      for (int64_t c = 0; c < width; c++) mean[c] += share * x_TD[t * width + c];
  }
}

void sequence_means_backward(const float *dmean_ND, const int64_t *cu_seqlens, int64_t n, int64_t width,
                             const int64_t *perm_n, float *dx_TD) {
  for (int64_t r = 0; r < n; r++) {
    float share = 1.0f / (float)(cu_seqlens[r + 1] - cu_seqlens[r]);
    const float *dmean = dmean_ND + perm_n[r] * width;
    for (int64_t t = cu_seqlens[r]; t < cu_seqlens[r + 1]; t++)
#pragma omp simd
      for (int64_t c = 0; c < width; c++) dx_TD[t * width + c] = share * dmean[c];
  }
}
