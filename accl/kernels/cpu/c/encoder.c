/* A DeBERTa over some rows, from token ids to hidden states or their means, and back: all in one call, since a step has
   hundreds of kernels, and after each, threads would wait for Python's lock and for one another.

   R rows of the position table, F feed-forward. */

#include "kernels.h"
#include "shared.h"
#include "team.h"

/* Places of dropout: the embedding; then in each layer the position table, attention weights, what attention adds, and
   what feed-forward adds. */
enum { EMBEDDING, TABLE, ATTENTION, MIXED, DOWN, PLACES = 4 };

/* kept: of how many layers at a time is saved what the way back needs; of all, or of one if there is none. */
typedef struct {
  int64_t layers, kept, hidden, heads, size, wide, words;
  double embedding_dropout, attention_dropout, dropout;
  float embedding_eps, table_eps, eps;
} Shape;

/* Rows that one thread takes through the layers. before: tokens of other parts. first: of the U used rows of the
   position table, which row_X counts from 0. place_n: of their means among all. room: for what is kept from the way
   there to the way back, and to work in. unknown: ids that have no row in the table. */
typedef struct {
  int64_t before, tokens, n, longest, first, used;
  const int64_t *id_T, *begin, *row_X, *place_n;
  uint64_t seed;
  float *room;
  int64_t unknown;
} Part;

/* Weights of a layer, or their gradients. inner: queries, keys and values, one below the other; position: queries and
   keys of the position table, which are the first two thirds of `inner` if the module has none. */
typedef struct {
  float *inner_3ED, *inner_3E, *position_2ED, *position_2E;
  float *mix_DE, *mix_D, *gain1_D, *shift1_D, *up_FD, *up_F, *down_DF, *down_D, *gain2_D, *shift2_D;
} Layer;

/* The same, as the module has them. */
typedef struct {
  const float *inner_ED[3], *inner_E[3], *position_ED[2], *position_E[2];
  float *mix_DE, *mix_D, *gain1_D, *shift1_D, *up_FD, *up_F, *down_DF, *down_D, *gain2_D, *shift2_D;
} Given;

/* Of a position table without a norm, gain and shift are nowhere. */
typedef struct {
  const float *word_VD, *gain_D, *shift_D, *table_RD, *table_gain_D, *table_shift_D;
  Given layer[];
} Weights;

/* Of one thread, end to end: first so many that are added up from 0 on. Those of words are left to `scatter`. */
typedef struct {
  float *all;
  int64_t added;
  float *gain_D, *shift_D, *table_RD, *table_gain_D, *table_shift_D;
  Layer layer[];
} Gradients;

/* What the way back needs of a layer; of norms what came out before gain and shift, and 1 / deviation. */
typedef struct {
  float *inner_3ED, *inner_3E, *position_2ED, *position_2E;
  float *x_TD, *qkv_T3E, *table_UD, *position_U2E, *probability_X, *context_TE;
  float *normal1_TD, *inverse1_T, *y_TD, *slope_TF, *wide_TF, *normal2_TD, *inverse2_T;
} Saved;

/* The same of what stands below the layers; and memory to work in. */
typedef struct {
  float *normal_TD, *inverse_T, *table_UD, *table_normal_UD, *table_inverse_U, *state_TD;
  float *dtable_UD, *drow_UD, *dproduct_TD, *dup_TF, *dcontext_TE, *dqkv_T3E, *dposition_U2E, *scratch;
  int64_t size;
} Base;

INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE float scale(const Shape *shape) { return 1.0f / sqrtf(3.0f * (float)shape->size); }
INLINE uint32_t site(int64_t layer, int place) { return (uint32_t)(PLACES * layer + place); }

/* The next `count` floats of a room, which may still be nowhere. */
INLINE float *take(float *room, int64_t *at, int64_t count) {
  float *found = room ? room + *at : 0;
  *at += padded(count);
  return found;
}

static Base base_of(const Shape *shape, const Part *part) {
  int64_t T = part->tokens, U = part->used, D = shape->hidden, E = shape->heads * shape->size, F = shape->wide;
  int64_t rows = most(T, U), at = 0;
  int64_t narrow = most(product_scratch(rows, D, 3 * E), product_scratch(rows, E, D));
  int64_t wide = most(product_scratch(rows, D, F), product_scratch(rows, F, D));
  Base base;
  base.normal_TD = take(part->room, &at, T * D);
  base.inverse_T = take(part->room, &at, T);
  base.table_UD = take(part->room, &at, U * D);
  base.table_normal_UD = take(part->room, &at, U * D);
  base.table_inverse_U = take(part->room, &at, U);
  base.state_TD = take(part->room, &at, T * D);
  base.dtable_UD = take(part->room, &at, U * D);
  base.drow_UD = take(part->room, &at, U * D);
  base.dproduct_TD = take(part->room, &at, T * D);
  base.dup_TF = take(part->room, &at, T * F);
  base.dcontext_TE = take(part->room, &at, T * E);
  base.dqkv_T3E = take(part->room, &at, T * 3 * E);
  base.dposition_U2E = take(part->room, &at, U * 2 * E);
  base.scratch = take(part->room, &at, most(attention_scratch(part->longest, shape->size), most(narrow, wide)));
  base.size = at;
  return base;
}

/* Of a layer, from its place in the room on, which is moved to the next one's. */
static Saved saved_at(const Shape *shape, const Part *part, int64_t *at) {
  int64_t T = part->tokens, U = part->used, D = shape->hidden, E = shape->heads * shape->size, F = shape->wide;
  int64_t scores = 0;
  for (int64_t r = 0; r < part->n; r++) {
    int64_t length = part->begin[r + 1] - part->begin[r];
    scores += shape->heads * length * padded(length);
  }
  Saved saved;
  saved.inner_3ED = take(part->room, at, 3 * E * D);
  saved.inner_3E = take(part->room, at, 3 * E);
  saved.position_2ED = take(part->room, at, 2 * E * D);
  saved.position_2E = take(part->room, at, 2 * E);
  saved.x_TD = take(part->room, at, T * D);
  saved.qkv_T3E = take(part->room, at, T * 3 * E);
  saved.table_UD = take(part->room, at, U * D);
  saved.position_U2E = take(part->room, at, U * 2 * E);
  saved.probability_X = take(part->room, at, scores);
  saved.context_TE = take(part->room, at, T * E);
  saved.normal1_TD = take(part->room, at, T * D);
  saved.inverse1_T = take(part->room, at, T);
  saved.y_TD = take(part->room, at, T * D);
  saved.slope_TF = take(part->room, at, T * F);
  saved.wide_TF = take(part->room, at, T * F);
  saved.normal2_TD = take(part->room, at, T * D);
  saved.inverse2_T = take(part->room, at, T);
  return saved;
}

static Saved saved_by(const Shape *shape, const Part *part, int64_t layer) {
  int64_t base = base_of(shape, part).size, next = base;
  saved_at(shape, part, &next);
  int64_t at = base + layer % shape->kept * (next - base);
  return saved_at(shape, part, &at);
}

/* Floats that a part needs room for. */
API int64_t encode_room(const Shape *shape, const Part *part) {
  int64_t base = base_of(shape, part).size, next = base;
  saved_at(shape, part, &next);
  return base + shape->kept * (next - base);
}

INLINE void join(const float *const *from, int count, int64_t size, float *to) {
  for (int i = 0; i < count; i++) memcpy(to + i * size, from[i], (size_t)size * sizeof(float));
}

static void layer(const Shape *shape, const Part *part, const Given *given, Saved *saved, int64_t number,
                  const float *table_UD, float *scratch, float *out_TD) {
  int64_t T = part->tokens, U = part->used, D = shape->hidden, E = shape->heads * shape->size, F = shape->wide;
  join(given->inner_ED, 3, E * D, saved->inner_3ED);
  join(given->inner_E, 3, E, saved->inner_3E);
  int own = given->position_ED[0] != 0;
  if (own) {
    join(given->position_ED, 2, E * D, saved->position_2ED);
    join(given->position_E, 2, E, saved->position_2E);
  }
  const float *position_2ED = own ? saved->position_2ED : saved->inner_3ED;
  const float *position_2E = own ? saved->position_2E : saved->inner_3E;
  dropout(table_UD, saved->table_UD, U * D, part->seed, site(number, TABLE), shape->dropout);
  product(saved->table_UD, position_2ED, position_2E, U, D, 2 * E, scratch, saved->position_U2E);
  product(saved->x_TD, saved->inner_3ED, saved->inner_3E, T, D, 3 * E, scratch, saved->qkv_T3E);
  attention(saved->qkv_T3E, saved->position_U2E, part->begin, part->n, part->longest, part->row_X, shape->heads,
            shape->size, scale(shape), part->seed, site(number, ATTENTION), shape->attention_dropout, scratch,
            saved->probability_X, saved->context_TE);
  product(saved->context_TE, given->mix_DE, 0, T, E, D, scratch, saved->normal1_TD);
  norm(saved->normal1_TD, given->mix_D, saved->x_TD, given->gain1_D, given->shift1_D, T, D, shape->eps, part->seed,
       site(number, MIXED), shape->dropout, saved->y_TD, saved->inverse1_T);
  product(saved->y_TD, given->up_FD, 0, T, D, F, scratch, saved->slope_TF);
  gelu(saved->slope_TF, given->up_F, T, F, saved->wide_TF);
  product(saved->wide_TF, given->down_DF, 0, T, F, D, scratch, saved->normal2_TD);
  norm(saved->normal2_TD, given->down_D, saved->y_TD, given->gain2_D, given->shift2_D, T, D, shape->eps, part->seed,
       site(number, DOWN), shape->dropout, out_TD, saved->inverse2_T);
}

/* From the gradient of the layer's output to that of its input, in its place. That of the position table is added to what
   is there. */
static void layer_back(const Shape *shape, const Part *part, const Given *given, const Saved *saved, const Layer *d,
                       int64_t number, const Base *base, float *d_TD) {
  int64_t T = part->tokens, U = part->used, D = shape->hidden, E = shape->heads * shape->size, F = shape->wide;
  float *scratch = base->scratch, *dproduct_TD = base->dproduct_TD, *dup_TF = base->dup_TF;
  int own = d->position_2ED != 0;
  norm_back(d_TD, saved->normal2_TD, saved->inverse2_T, given->gain2_D, T, D, part->seed, site(number, DOWN),
            shape->dropout, d_TD, dproduct_TD, d->gain2_D, d->shift2_D, d->down_D);
  product_weights(dproduct_TD, saved->wide_TF, T, F, D, 0, scratch, d->down_DF);
  product_back(dproduct_TD, given->down_DF, T, F, D, 0, scratch, dup_TF);
  gelu_back(dup_TF, saved->slope_TF, T, F, d->up_F);
  product_weights(dup_TF, saved->y_TD, T, D, F, 0, scratch, d->up_FD);
  product_back(dup_TF, given->up_FD, T, D, F, 1, scratch, d_TD);
  norm_back(d_TD, saved->normal1_TD, saved->inverse1_T, given->gain1_D, T, D, part->seed, site(number, MIXED),
            shape->dropout, d_TD, dproduct_TD, d->gain1_D, d->shift1_D, d->mix_D);
  product_weights(dproduct_TD, saved->context_TE, T, E, D, 0, scratch, d->mix_DE);
  product_back(dproduct_TD, given->mix_DE, T, E, D, 0, scratch, base->dcontext_TE);
  attention_back(base->dcontext_TE, saved->qkv_T3E, saved->position_U2E, saved->probability_X, part->begin, part->n,
                 part->longest, part->row_X, U, shape->heads, shape->size, scale(shape), part->seed,
                 site(number, ATTENTION), shape->attention_dropout, scratch, base->dqkv_T3E, d->inner_3E,
                 base->dposition_U2E, own ? d->position_2E : d->inner_3E);
  product_weights(base->dqkv_T3E, saved->x_TD, T, D, 3 * E, 0, scratch, d->inner_3ED);
  product_weights(base->dposition_U2E, saved->table_UD, U, D, 2 * E, !own, scratch,
                  own ? d->position_2ED : d->inner_3ED);
  product_back(base->dposition_U2E, own ? saved->position_2ED : saved->inner_3ED, U, D, 2 * E, 0, scratch,
               base->drow_UD);
  Dropout drop = dropout_at(part->seed, site(number, TABLE), shape->dropout);
#pragma omp simd
  for (int64_t i = 0; i < U * D; i++) base->dtable_UD[i] += base->drow_UD[i] * mask(drop, (uint32_t)i);
  product_back(base->dqkv_T3E, saved->inner_3ED, T, D, 3 * E, 1, scratch, d_TD);
}

static int64_t forward(const Shape *shape, const Part *part, const Weights *weights, float *state_TD,
                       float *mean_ND) {
  int64_t T = part->tokens, U = part->used, D = shape->hidden;
  const float *table_UD = weights->table_RD + part->first * D;
  Base base = base_of(shape, part);
  if (weights->table_gain_D) {
    embed(table_UD, U, 0, weights->table_gain_D, weights->table_shift_D, U, D, shape->table_eps, 0, 0, 0.0,
          base.table_normal_UD, base.table_UD, base.table_inverse_U);
    table_UD = base.table_UD;
  }
  Saved saved = saved_by(shape, part, 0);
  int64_t unknown = embed(weights->word_VD, shape->words, part->id_T, weights->gain_D, weights->shift_D, T, D,
                          shape->embedding_eps, part->seed, EMBEDDING, shape->embedding_dropout, base.normal_TD,
                          saved.x_TD, base.inverse_T);
  float *last_TD = state_TD ? state_TD + part->before * D : base.state_TD;
  for (int64_t i = 0; i < shape->layers; i++) {
    int last = i + 1 == shape->layers;
    Saved next = last ? saved : saved_by(shape, part, i + 1);
    layer(shape, part, &weights->layer[i], &saved, i, table_UD, base.scratch, last ? last_TD : next.x_TD);
    saved = next;
  }
  if (mean_ND) means(last_TD, part->begin, part->n, D, part->place_n, mean_ND);
  return unknown;
}

static void back(const Shape *shape, const Part *part, const Weights *weights, const Gradients *gradients,
                 const float *dstate_TD, const float *dmean_ND, float *drow_TD) {
  int64_t T = part->tokens, U = part->used, D = shape->hidden;
  Base base = base_of(shape, part);
  float *dtable_UD = gradients->table_RD + part->first * D, *d_TD = drow_TD + part->before * D;
  memset(gradients->all, 0, (size_t)gradients->added * sizeof(float));
  if (dmean_ND)
    means_back(dmean_ND, part->begin, part->n, D, part->place_n, d_TD);
  else
    memcpy(d_TD, dstate_TD + part->before * D, (size_t)(T * D) * sizeof(float));
  if (weights->table_gain_D)
    memset(base.dtable_UD, 0, (size_t)(U * D) * sizeof(float));
  else
    base.dtable_UD = dtable_UD;
  for (int64_t i = shape->layers - 1; i >= 0; i--) {
    Saved saved = saved_by(shape, part, i);
    layer_back(shape, part, &weights->layer[i], &saved, &gradients->layer[i], i, &base, d_TD);
  }
  embed_back(d_TD, base.normal_TD, base.inverse_T, weights->gain_D, T, D, part->seed, EMBEDDING,
             shape->embedding_dropout, d_TD, gradients->gain_D, gradients->shift_D);
  if (weights->table_gain_D)
    embed_back(base.dtable_UD, base.table_normal_UD, base.table_inverse_U, weights->table_gain_D, U, D, 0, 0, 0.0,
               dtable_UD, gradients->table_gain_D, gradients->table_shift_D);
}

/* What threads share out, each a part. */
typedef struct {
  const Shape *shape;
  Part *parts;
  const Weights *weights;
  const Gradients *const *gradients;
  float *state_TD, *mean_ND;
  const float *dstate_TD, *dmean_ND;
  float *drow_TD;
} Call;

static void forward_of(void *what, int64_t item) {
  Call *call = what;
  Part *part = call->parts + item;
  part->unknown = forward(call->shape, part, call->weights, call->state_TD, call->mean_ND);
}

static void back_of(void *what, int64_t item) {
  Call *call = what;
  back(call->shape, call->parts + item, call->weights, call->gradients[item], call->dstate_TD, call->dmean_ND,
       call->drow_TD);
}

/* Hidden states of the last layer, T x D of all parts; or means of their rows, N x D; the other one is nowhere. Gives
   how many ids have no row in the table, for which another one is read. */
API int64_t encode(Team *team, const Shape *shape, Part *parts, int64_t count, const Weights *weights,
                   float *state_TD, float *mean_ND) {
  Call call = {.shape = shape, .parts = parts, .weights = weights, .state_TD = state_TD, .mean_ND = mean_ND};
  share_out(team, forward_of, &call, count);
  int64_t unknown = 0;
  for (int64_t i = 0; i < count; i++) unknown += parts[i].unknown;
  return unknown;
}

/* Where gradients go in the end: those of tensor s, which begin at offset[s] in each part's, to to[s]; those of words,
   but for one that is not learnt, to dword. What goes nowhere is not wanted. */
typedef struct {
  const int64_t *offset, *count;
  float *const *to;
  int64_t tensors, never;
  float *dword_VD;
} Target;

/* Adds gradients to what is there, from those of states or means. gradients: for each part, to work in, and so drow: of
   words, one row for each token. */
API void encode_back(Team *team, const Shape *shape, Part *parts, int64_t count, const Weights *weights,
                     const Gradients *const *gradients, const float *dstate_TD, const float *dmean_ND, float *drow_TD,
                     const Target *target) {
  Call call = {shape, parts, weights, gradients, 0, 0, dstate_TD, dmean_ND, drow_TD};
  share_out(team, back_of, &call, count);
  const float *found[count];
  for (int64_t i = 0; i < count; i++) found[i] = gradients[i]->all;
  gather(team, found, count, target->offset, target->count, target->to, target->tensors);
  int64_t tokens = parts[count - 1].before + parts[count - 1].tokens;
  if (target->dword_VD)
    scatter(drow_TD, parts->id_T, tokens, shape->hidden, target->never, target->dword_VD);
}
