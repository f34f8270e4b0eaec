/* The contrastive loss of each anchor over batch and memory bank, with every negative, and its gradient; defined by
   accl.method.contrastive.anchor_losses. All that the way back needs is made on the way there, while the similarities
   are at hand: the bank may be written to in between.

   B anchors of E; a bank of K tasks with S slots each, M = K * S. */

#include "kernels.h"
#include "shared.h"

enum { NEITHER, NEGATIVE, POSITIVE };

/* log of an empty sum: finite, as an anchor that does not count is to be. */
#define EMPTY -1e9f

typedef struct {
  const float *z_KSE;
  const int64_t *text_KS, *written_K;
  int64_t tasks, slots;
} Bank;

/* What each candidate is to an anchor of a task and a text. */
static void kinds(int64_t task, int64_t text, const int64_t *task_B, const int64_t *text_B, int64_t anchors,
                  const Bank *bank, int32_t *kind) {
  for (int64_t j = 0; j < anchors; j++)
    kind[j] = task_B[j] < 0 || text_B[j] == text ? NEITHER : task_B[j] == task ? POSITIVE : NEGATIVE;
  kind += anchors;
  for (int64_t k = 0; k < bank->tasks; k++, kind += bank->slots) {
    const int64_t *text_S = bank->text_KS + k * bank->slots;
    int64_t filled = bank->written_K[k] < bank->slots ? bank->written_K[k] : bank->slots;
    int32_t other = k == task ? POSITIVE : NEGATIVE;
#pragma omp simd
    for (int64_t s = 0; s < bank->slots; s++) kind[s] = s >= filled || text_S[s] == text ? NEITHER : other;
  }
}

/* Of an anchor: what goes over its candidates, batch and bank, of which `sim` are two pieces. */
typedef struct {
  int32_t positives, negatives, top;
  float sum, total;
} Found;

INLINE int within(int32_t kind, int all) { return kind == NEGATIVE || (all && kind == POSITIVE); }

/* Similarities from products; how many, their sum over positives, and the largest one in the denominator. */
INLINE void survey(float *sim, const int32_t *kind, int64_t count, float scale, int all, Found *found) {
  int32_t positives = 0, negatives = 0, top = found->top;
  float sum = 0.0f;
#pragma omp simd reduction(+ : positives, negatives, sum) reduction(max : top)
  for (int64_t j = 0; j < count; j++) {
    float s = sim[j] *= scale;
    int32_t bits;
    memcpy(&bits, &s, sizeof bits);
    bits = within(kind[j], all) ? ordered(bits) : INT32_MIN;
    top = bits > top ? bits : top;
    positives += kind[j] == POSITIVE;
    negatives += kind[j] == NEGATIVE;
    sum += kind[j] == POSITIVE ? s : 0.0f;
  }
  found->positives += positives, found->negatives += negatives, found->sum += sum, found->top = top;
}

INLINE void exponentials(float *sim, const int32_t *kind, int64_t count, float most, int all, Found *found) {
  float total = 0.0f;
#pragma omp simd reduction(+ : total)
  for (int64_t j = 0; j < count; j++) {
    sim[j] = within(kind[j], all) ? exp_negative(sim[j] - most) : 0.0f;
    total += sim[j];
  }
  found->total += total;
}

/* From exponentials to the slope of the loss by each product. */
INLINE void slopes(float *sim, const int32_t *kind, int64_t count, float share, float scale, Found found) {
  float each = scale / (float)(found.positives > 1 ? found.positives : 1);
#pragma omp simd
  for (int64_t j = 0; j < count; j++) sim[j] = sim[j] * share * scale - (kind[j] == POSITIVE ? each : 0.0f);
}

/* Floats that it needs to work in. */
API int64_t contrast_scratch(int64_t anchors, int64_t width, int64_t candidates) {
  int64_t own = product_scratch(anchors, width, anchors), other = product_scratch(anchors, width, candidates);
  return anchors * candidates + padded(anchors + candidates) + (own > other ? own : other);
}

/* loss: of each anchor; counted: 1 if it has a positive and a negative. own: the slope of an anchor's loss by itself;
   slope: by the product with each other one, row by row. A bank that is not there has no tasks. */
API void contrast(const float *z_BE, const int64_t *task_B, const int64_t *text_B, int64_t anchors, int64_t width,
                  const float *z_KSE, const int64_t *text_KS, const int64_t *written_K, int64_t tasks, int64_t slots,
                  float temperature, int32_t all, float *scratch, float *loss_B, float *counted_B, float *own_BE,
                  float *slope_BB) {
  Bank bank = {z_KSE, text_KS, written_K, tasks, slots};
  int64_t M = tasks * slots;
  float *sim_BM = scratch, scale = 1.0f / temperature;
  int32_t *kind = (int32_t *)(sim_BM + anchors * M);
  scratch = sim_BM + anchors * M + padded(anchors + M);
  product(z_BE, z_BE, 0, anchors, width, anchors, scratch, slope_BB);
  if (M) product(z_BE, z_KSE, 0, anchors, width, M, scratch, sim_BM);
  for (int64_t i = 0; i < anchors; i++) {
    float *own = slope_BB + i * anchors, *other = sim_BM + i * M, most = 0.0f;
    Found found = {.top = INT32_MIN};
    kinds(task_B[i], text_B[i], task_B, text_B, anchors, &bank, kind);
    survey(own, kind, anchors, scale, all, &found);
    survey(other, kind + anchors, M, scale, all, &found);
    int any = found.top != INT32_MIN;
    found.top = ordered(found.top);
    if (any) memcpy(&most, &found.top, sizeof most);
    exponentials(own, kind, anchors, most, all, &found);
    exponentials(other, kind + anchors, M, most, all, &found);
    float share = any ? 1.0f / found.total : 0.0f;
    slopes(own, kind, anchors, share, scale, found);
    slopes(other, kind + anchors, M, share, scale, found);
    float log_sum = any ? logf(found.total) + most : EMPTY;
    loss_B[i] = log_sum - found.sum / (float)(found.positives > 1 ? found.positives : 1);
    counted_B[i] = found.positives && found.negatives;
  }
  product_back(slope_BB, z_BE, anchors, width, anchors, 0, scratch, own_BE);
  if (M) product_back(sim_BM, z_KSE, anchors, width, M, 1, scratch, own_BE);
}

/* An embedding takes part in its own loss, and in those of the other anchors. */
API void contrast_back(const float *dloss_B, const float *z_BE, const float *own_BE, const float *slope_BB,
                       int64_t anchors, int64_t width, float *dz_BE) {
  for (int64_t i = 0; i < anchors; i++) {
    float *dz = dz_BE + i * width;
#pragma omp simd
    for (int64_t c = 0; c < width; c++) dz[c] = dloss_B[i] * own_BE[i * width + c];
    for (int64_t k = 0; k < anchors; k++) {
      float weight = dloss_B[k] * slope_BB[k * anchors + i];
#pragma omp simd
      for (int64_t c = 0; c < width; c++) dz[c] += weight * z_BE[k * width + c];
    }
  }
}
