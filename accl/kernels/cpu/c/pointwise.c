/* Dropout, GELU, LayerNorm, the embedding, and means over sequences. */

#include "kernels.h"

/* Dropout --------------------------------------------------------------------------------------------------------- */

/* out = x * mask; out may be x. */
void dropout(const float *x, float *out, int64_t count, Dropout drop) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) out[i] = x[i] * keep_mask(drop, (uint32_t)i);
}

/* GELU ------------------------------------------------------------------------------------------------------------ */

/* GELU of x = product + bias: active = x Phi(x). The product is overwritten by the derivative, Phi(x) + x phi(x). The
   normal distribution is from Abramowitz & Stegun 7.1.26, to 1e-7: one exponential gives both Phi and phi. */
void gelu(float *product_TF, const float *bias_F, int64_t tokens, int64_t width, float *active_TF) {
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
void gelu_backward(float *dactive_TF, const float *derivative_TF, int64_t tokens, int64_t width, float *dbias_F) {
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

/* Normalises a row in place, and returns 1 / deviation; out = x * gain + shift. */
INLINE float normalise(float *x, const float *gain, const float *shift, int64_t width, float eps, float *out) {
  float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < width; c++) sum += x[c];
  float mean = sum / (float)width;
#pragma omp simd reduction(+ : squares)
  for (int64_t c = 0; c < width; c++) squares += (x[c] - mean) * (x[c] - mean);
  float inverse = 1.0f / sqrtf(squares / (float)width + eps);
#pragma omp simd
  for (int64_t c = 0; c < width; c++) {
    x[c] = (x[c] - mean) * inverse;
    out[c] = x[c] * gain[c] + shift[c];
  }
  return inverse;
}

/* Turns the gradient of a row of `out` into that of the row before `normalise`, in place, and adds those of gain and
   shift. */
INLINE void normalise_backward(float *d, const float *normal, float inverse, const float *gain, int64_t width,
                               float *dgain, float *dshift) {
  float sum = 0.0f, projection = 0.0f;
#pragma omp simd reduction(+ : sum, projection)
  for (int64_t c = 0; c < width; c++) {
    dgain[c] += d[c] * normal[c];
    dshift[c] += d[c];
    d[c] *= gain[c];
    sum += d[c];
    projection += d[c] * normal[c];
  }
  sum /= (float)width;
  projection /= (float)width;
#pragma omp simd
  for (int64_t c = 0; c < width; c++) d[c] = inverse * (d[c] - sum - normal[c] * projection);
}

/* out = LayerNorm(residual + dropout(product + bias)). The product is overwritten by the output before gain and shift;
   inverse: 1 / deviation. */
void layer_norm(float *product_TD, const float *bias_D, const float *residual_TD, const float *gain_D,
                const float *shift_D, int64_t tokens, int64_t width, double eps, Dropout drop, float *out_TD,
                float *inverse_T) {
  for (int64_t t = 0; t < tokens; t++) {
    float *x = product_TD + t * width;
    const float *residual = residual_TD + t * width;
#pragma omp simd
    for (int64_t c = 0; c < width; c++)
      x[c] = residual[c] + (x[c] + bias_D[c]) * keep_mask(drop, (uint32_t)(t * width + c));
    inverse_T[t] = normalise(x, gain_D, shift_D, width, (float)eps, out_TD + t * width);
  }
}

/* Turns dout into the gradient of the residual, in place. */
void layer_norm_backward(float *dout_TD, const float *normal_TD, const float *inverse_T, const float *gain_D,
                         int64_t tokens, int64_t width, Dropout drop, float *dproduct_TD, float *dgain_D,
                         float *dshift_D, float *dbias_D) {
  for (int64_t t = 0; t < tokens; t++) {
    float *d = dout_TD + t * width, *dproduct = dproduct_TD + t * width;
    normalise_backward(d, normal_TD + t * width, inverse_T[t], gain_D, width, dgain_D, dshift_D);
#pragma omp simd
    for (int64_t c = 0; c < width; c++) {
      dproduct[c] = d[c] * keep_mask(drop, (uint32_t)(t * width + c));
      dbias_D[c] += dproduct[c];
    }
  }
}

/* Embedding ------------------------------------------------------------------------------------------------------- */

/* out = dropout(LayerNorm(table[id])); without ids, all rows in order. normal: output of LayerNorm before gain and
   shift; inverse: 1 / deviation. Returns the number of ids that have no row in the table; row 0 is read for them. */
int64_t embed(const float *table_VD, int64_t rows, const int64_t *id_T, const float *gain_D, const float *shift_D,
              int64_t tokens, int64_t width, double eps, Dropout drop, float *normal_TD, float *out_TD,
              float *inverse_T) {
  int64_t unknown = 0;
  for (int64_t t = 0; t < tokens; t++) {
    int64_t id = id_T ? id_T[t] : t;
    int known = id >= 0 && id < rows;
    unknown += !known;
    memcpy(normal_TD + t * width, table_VD + (known ? id * width : 0), (size_t)width * sizeof(float));
    inverse_T[t] = normalise(normal_TD + t * width, gain_D, shift_D, width, (float)eps, out_TD + t * width);
  }
  dropout(out_TD, out_TD, tokens * width, drop);
  return unknown;
}

/* drow: gradient of the row that was read for each token; it may be the same memory as dout. */
void embed_backward(const float *dout_TD, const float *normal_TD, const float *inverse_T, const float *gain_D,
                    int64_t tokens, int64_t width, Dropout drop, float *drow_TD, float *dgain_D, float *dshift_D) {
  dropout(dout_TD, drow_TD, tokens * width, drop);
  for (int64_t t = 0, at = 0; t < tokens; t++, at += width)
    normalise_backward(drow_TD + at, normal_TD + at, inverse_T[t], gain_D, width, dgain_D, dshift_D);
}

/* Means ----------------------------------------------------------------------------------------------------------- */

/* mean[perm_n[r]]: mean over the tokens of sequence r. */
void sequence_means(const float *x_TD, const Shard *shard, int64_t width, float *mean_ND) {
  const int64_t *begin = shard->cu_seqlens;
  for (int64_t r = 0; r < shard->n; r++) {
    float share = 1.0f / (float)(begin[r + 1] - begin[r]), *mean = mean_ND + shard->perm_n[r] * width;
    memset(mean, 0, (size_t)width * sizeof(float));
    for (int64_t t = begin[r]; t < begin[r + 1]; t++)
#pragma omp simd
      for (int64_t c = 0; c < width; c++) mean[c] += share * x_TD[t * width + c];
  }
}

void sequence_means_backward(const float *dmean_ND, const Shard *shard, int64_t width, float *dx_TD) {
  const int64_t *begin = shard->cu_seqlens;
  for (int64_t r = 0; r < shard->n; r++) {
    float share = 1.0f / (float)(begin[r + 1] - begin[r]);
    const float *dmean = dmean_ND + shard->perm_n[r] * width;
    for (int64_t t = begin[r]; t < begin[r + 1]; t++)
#pragma omp simd
      for (int64_t c = 0; c < width; c++) dx_TD[t * width + c] = share * dmean[c];
  }
}
