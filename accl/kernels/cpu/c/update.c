/* From the gradients of a step to the next weights. */

#include "kernels.h"
#include "shared.h"
#include "team.h"

/* Work for which it is worth to wake a thread. */
#define WORTH (1 << 20)

/* How many share out so many elements. work: of one, in the times that it takes to read it. */
static int64_t threads(const Team *team, int64_t elements, int64_t work) {
  int64_t most = elements * work / WORTH + 1;
  return most < team_size(team) ? most : team_size(team);
}

/* Where the share of a thread begins; that of the next one is its end. At a multiple, so that lines of the cache are
   not written by two. */
static int64_t begin(int64_t elements, int64_t item, int64_t items) {
  return item < items ? elements * item / items / PADDING * PADDING : elements;
}

/* Gradients ------------------------------------------------------------------------------------------------------- */

typedef struct {
  int64_t items;
  const float *const *parts;
  int64_t n;
  const int64_t *offset, *count;
  float *const *to;
  int64_t tensors, elements;
} Sum;

static void gather_some(void *what, int64_t item) {
  const Sum *sum = what;
  int64_t first = begin(sum->elements, item, sum->items), last = begin(sum->elements, item + 1, sum->items), before = 0;
  for (int64_t s = 0; s < sum->tensors; before += sum->count[s++]) {
    int64_t from = first > before ? first - before : 0;
    int64_t end = last - before < sum->count[s] ? last - before : sum->count[s];
    float *to = sum->to[s];
    for (int64_t p = 0; to && p < sum->n; p++) {
      const float *part = sum->parts[p] + sum->offset[s];
#pragma omp simd
      for (int64_t i = from; i < end; i++) to[i] += part[i];
    }
  }
}

void gather(Team *team, const float *const *parts, int64_t n, const int64_t *offset, const int64_t *count,
            float *const *to, int64_t tensors) {
  Sum sum = {0, parts, n, offset, count, to, tensors, 0};
  for (int64_t s = 0; s < tensors; s++) sum.elements += count[s];
  sum.items = threads(team, sum.elements, 16);
  share_out(team, gather_some, &sum, sum.items);
}

void scatter(const float *drow_TD, const int64_t *id_T, int64_t tokens, int64_t width, int64_t never,
             float *dtable_VD) {
  for (int64_t t = 0; t < tokens; t++)
    if (id_T[t] != never)
#pragma omp simd
      for (int64_t c = 0; c < width; c++) dtable_VD[id_T[t] * width + c] += drow_TD[t * width + c];
}

/* Their norm ------------------------------------------------------------------------------------------------------ */

typedef struct {
  int64_t items;
  const float *x;
  int64_t count;
  double *sums;
} Squares;

/* Of a block in single precision, of all in double: as exact as a sum in double, and as fast as one in single. */
static void square_some(void *what, int64_t item) {
  const Squares *squares = what;
  const float *x = squares->x;
  int64_t end = begin(squares->count, item + 1, squares->items);
  double sum = 0.0;
  for (int64_t first = begin(squares->count, item, squares->items); first < end; first += 1024) {
    int64_t last = first + 1024 < end ? first + 1024 : end;
    float of_block = 0.0f;
#pragma omp simd reduction(+ : of_block)
    for (int64_t i = first; i < last; i++) of_block += x[i] * x[i];
    sum += of_block;
  }
  squares->sums[item] = sum;
}

static double norm_of(Team *team, const float *x, int64_t count) {
  int64_t items = threads(team, count, 1);
  double sums[items], sum = 0.0;
  Squares squares = {items, x, count, sums};
  share_out(team, square_some, &squares, items);
  for (int64_t i = 0; i < items; i++) sum += sums[i];
  return sqrt(sum);
}

/* Weights --------------------------------------------------------------------------------------------------------- */

/* Parameters that lie end to end, up to `end`, and how they are updated. rate: the learning rate; keep1, keep2: beta 1
   and 2. */
typedef struct {
  int64_t end;
  double rate, keep1, keep2, eps, decay;
} Group;

typedef struct {
  int64_t items;
  float *value, *gradient, *first, *second;
  int64_t begin, count;
  float scale, keep1, keep2, kept, step, root, eps;
} Update;

static void update_some(void *what, int64_t item) {
  Update u = *(const Update *)what; /* a copy, that nothing which is written could change */
  int64_t end = u.begin + begin(u.count, item + 1, u.items);
#pragma omp simd
  for (int64_t i = u.begin + begin(u.count, item, u.items); i < end; i++) {
    float g = u.gradient[i] * u.scale;
    u.first[i] += (1.0f - u.keep1) * (g - u.first[i]);
    u.second[i] = u.keep2 * u.second[i] + (1.0f - u.keep2) * g * g;
    u.value[i] = u.kept * u.value[i] - u.step * u.first[i] / (sqrtf(u.second[i]) * u.root + u.eps);
    u.gradient[i] = 0.0f;
  }
}

/* The next of `count` steps of AdamW (Loshchilov & Hutter, 2019) by gradients, cut to the norm `most` as torch does it,
   and 0 afterwards. */
API void adamw(Team *team, float *value, float *gradient, float *first, float *second, const Group *groups,
               int64_t n, double most, float *count, float *gradient_norm) {
  double norm = norm_of(team, gradient, groups[n - 1].end), scale = most / (norm + 1e-6);
  *count += 1.0f;
  *gradient_norm = (float)norm;
  Update update = {.value = value, .gradient = gradient, .first = first, .second = second};
  update.scale = (float)(scale < 1.0 ? scale : 1.0);
  for (const Group *g = groups; g < groups + n; g++) {
    update.begin += update.count;
    update.count = g->end - update.begin;
    update.items = threads(team, update.count, 32);
    update.keep1 = (float)g->keep1, update.keep2 = (float)g->keep2, update.eps = (float)g->eps;
    update.kept = (float)(1.0 - g->rate * g->decay);
    update.step = (float)(g->rate / (1.0 - pow(g->keep1, *count)));
    update.root = (float)(1.0 / sqrt(1.0 - pow(g->keep2, *count)));
    share_out(team, update_some, &update, update.items);
  }
}
