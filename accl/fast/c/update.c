/* From the gradients of a step to the next weights. */

#include "shared.h"

/* Adds up what the threads have: to[s][i] += sum over parts of part[offset[s] + i], of each of some tensors s, unless
   it goes nowhere. */
API void gather(const float *const *parts, int64_t n, const int64_t *offset, const int64_t *count, float *const *to,
                int64_t tensors) {
  for (int64_t s = 0; s < tensors; s++)
    for (int64_t p = 0; to[s] && p < n; p++) {
      const float *part = parts[p] + offset[s];
      float *sum = to[s];
#pragma omp simd
      for (int64_t i = 0; i < count[s]; i++) sum[i] += part[i];
    }
}

/* Of a block in single precision, of all in double: as exact as a sum in double, and as fast as one in single. */
API double square_sum(const float *x, int64_t count) {
  double sum = 0.0;
  for (int64_t begin = 0; begin < count; begin += 1024) {
    int64_t end = begin + 1024 < count ? begin + 1024 : count;
    float of_block = 0.0f;
#pragma omp simd reduction(+ : of_block)
    for (int64_t i = begin; i < end; i++) of_block += x[i] * x[i];
    sum += of_block;
  }
  return sum;
}

/* AdamW (Loshchilov & Hutter, 2019) by gradients times `scale`, which are 0 afterwards. rate: the learning rate;
   keep1, keep2: beta 1 and 2; share1, share2: 1 - beta^t, of the t-th update. */
API void adamw(float *value, float *gradient, float *first, float *second, int64_t count, float scale, float rate,
               float keep1, float keep2, float share1, float share2, float eps, float decay) {
  float kept = 1.0f - rate * decay, step = rate / share1, root = 1.0f / sqrtf(share2);
#pragma omp simd
  for (int64_t i = 0; i < count; i++) {
    float g = gradient[i] * scale;
    first[i] += (1.0f - keep1) * (g - first[i]);
    second[i] = keep2 * second[i] + (1.0f - keep2) * g * g;
    value[i] = kept * value[i] - step * first[i] / (sqrtf(second[i]) * root + eps);
    gradient[i] = 0.0f;
  }
}
