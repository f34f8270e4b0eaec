/* Reduction of gradients over threads, clipping, and AdamW. */

#include "kernels.h"

/* Elements read below which it does not pay to wake one more thread. */
#define MIN_WORK (1 << 20)

/* Number of threads for some elements. cost: of one element, in units of the time that reading it takes. */
static int64_t useful_threads(const ThreadPool *pool, int64_t elements, int64_t cost) {
  return min_of(elements * cost / MIN_WORK + 1, thread_pool_size(pool));
}

/* First element of a thread's share; the next thread's is its end. A multiple of PADDING, so that no two threads write
   to one cache line. */
static int64_t share(int64_t elements, int64_t item, int64_t items) {
  return item < items ? elements * item / items / PADDING * PADDING : elements;
}

/* Gradients ------------------------------------------------------------------------------------------------------- */

typedef struct {
  int64_t items;
  const EncoderContext *pass;
} Reduction;

static void reduce_share(void *argument, int64_t item) {
  const Reduction *reduction = argument;
  const EncoderContext *pass = reduction->pass;
  int64_t first = share(pass->elements, item, reduction->items);
  int64_t last = share(pass->elements, item + 1, reduction->items), before = 0;
  for (int64_t s = 0; s < pass->tensors; before += pass->count[s++]) {
    int64_t from = first > before ? first - before : 0, end = min_of(last - before, pass->count[s]);
    float *to = pass->to[s];
    for (int64_t p = 0; to && p < pass->shards; p++) {
      const float *part = pass->gradients[p * pass->tensors + s];
#pragma omp simd
      for (int64_t i = from; i < end; i++) to[i] += part[i];
    }
  }
}

/* Adds the gradients of all shards to `pass->to`. */
void reduce_gradients(ThreadPool *pool, const EncoderContext *pass) {
  Reduction reduction = {useful_threads(pool, pass->elements, 16), pass};
  parallel_for(pool, reduce_share, &reduction, reduction.items);
}

/* Adds the gradients of words, of all tokens, to those of the table. */
void scatter_add_rows(const EncoderContext *pass) {
  int64_t width = pass->hidden;
  for (const Shard *shard = pass->shard; shard < pass->shard + pass->shards; shard++)
    for (int64_t t = 0; t < shard->tokens; t++) {
      const float *drow = pass->drow_TD + (shard->before + t) * width;
      float *dword = pass->dword_VD + shard->id_T[t] * width;
      if (shard->id_T[t] == pass->padding_id) continue;
#pragma omp simd
      for (int64_t c = 0; c < width; c++) dword[c] += drow[c];
    }
}

/* Norm ------------------------------------------------------------------------------------------------------------ */

typedef struct {
  int64_t items;
  const float *x;
  int64_t count;
  double *sums;
} SquareSums;

/* Sums blocks in single precision and their sums in double: as exact as double throughout, as fast as single. */
static void sum_squares_of_share(void *argument, int64_t item) {
  const SquareSums *squares = argument;
  const float *x = squares->x;
  int64_t end = share(squares->count, item + 1, squares->items);
  double sum = 0.0;
  for (int64_t first = share(squares->count, item, squares->items); first < end; first += 1024) {
    int64_t last = min_of(first + 1024, end);
    float block = 0.0f;
#pragma omp simd reduction(+ : block)
    for (int64_t i = first; i < last; i++) block += x[i] * x[i];
    sum += block;
  }
  squares->sums[item] = sum;
}

static double l2_norm(ThreadPool *pool, const float *x, int64_t count) {
  int64_t items = useful_threads(pool, count, 1);
  double sums[items], sum = 0.0;
  SquareSums squares = {items, x, count, sums};
  parallel_for(pool, sum_squares_of_share, &squares, items);
  for (int64_t i = 0; i < items; i++) sum += sums[i];
  return sqrt(sum);
}

/* AdamW ----------------------------------------------------------------------------------------------------------- */

/* A parameter group: parameters end to end, up to `end`. */
typedef struct {
  int64_t end;
  double lr, beta1, beta2, eps, weight_decay;
} Group;

typedef struct {
  int64_t items;
  float *value, *gradient, *exp_avg, *exp_avg_sq;
  int64_t begin, count;
  float clip, beta1, beta2, decay, step_size, inverse_correction2, eps;
} Update;

static void update_share(void *argument, int64_t item) {
  Update u = *(const Update *)argument; /* a copy, so that the compiler knows that no store below changes it */
  int64_t end = u.begin + share(u.count, item + 1, u.items);
#pragma omp simd
  for (int64_t i = u.begin + share(u.count, item, u.items); i < end; i++) {
    float g = u.gradient[i] * u.clip;
    u.exp_avg[i] += (1.0f - u.beta1) * (g - u.exp_avg[i]);
    u.exp_avg_sq[i] = u.beta2 * u.exp_avg_sq[i] + (1.0f - u.beta2) * g * g;
    u.value[i] =
        u.decay * u.value[i] - u.step_size * u.exp_avg[i] / (sqrtf(u.exp_avg_sq[i]) * u.inverse_correction2 + u.eps);
    u.gradient[i] = 0.0f;
  }
}

/* One step of AdamW (Loshchilov & Hutter, 2019) by gradients clipped to `max_norm` as torch's clip_grad_norm_ does it;
   the gradients are 0 afterwards. Counts the step in `steps`, and gives the norm before clipping. */
API void adamw(ThreadPool *pool, float *value, float *gradient, float *exp_avg, float *exp_avg_sq, const Group *groups,
               int64_t n, double max_norm, float *steps, float *gradient_norm) {
  double norm = l2_norm(pool, gradient, groups[n - 1].end), clip = max_norm / (norm + 1e-6);
  *steps += 1.0f;
  *gradient_norm = (float)norm;
  Update update = {.value = value, .gradient = gradient, .exp_avg = exp_avg, .exp_avg_sq = exp_avg_sq};
  update.clip = (float)(clip < 1.0 ? clip : 1.0);
  for (const Group *g = groups; g < groups + n; g++) {
    update.begin += update.count;
    update.count = g->end - update.begin;
    update.items = useful_threads(pool, update.count, 32);
    update.beta1 = (float)g->beta1, update.beta2 = (float)g->beta2, update.eps = (float)g->eps;
    update.decay = (float)(1.0 - g->lr * g->weight_decay);
    update.step_size = (float)(g->lr / (1.0 - pow(g->beta1, *steps)));
    update.inverse_correction2 = (float)(1.0 / sqrt(1.0 - pow(g->beta2, *steps)));
    parallel_for(pool, update_share, &update, update.items);
  }
}
