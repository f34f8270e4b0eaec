/* A DeBERTa over packed sequences, from token ids to means of hidden states, and the backward pass.

   Each pass is one call: a step has hundreds of kernels, and after each of them threads would have to wait for Python's
   lock and for each other.

   Shapes beyond those of shared.h: N sequences of all shards; V rows of the word table, R of the position table, U of
   those in use; F feed-forward width; S scores. */

#include "kernels.h"
#include "shared.h"
#include "thread_pool.h"

/* Where dropout happens: on the embedding; then in each layer on the position table, the attention weights, the output
   of attention, and that of the feed-forward part. */
enum { EMBEDDING, TABLE, ATTENTION, ATTENTION_OUTPUT, FEED_FORWARD_OUTPUT, PLACES = 4 };

/* saved_layers: how many layers' activations a buffer holds: all for a backward pass, 1 if there is none. words: V. */
typedef struct {
  int64_t layers, saved_layers, hidden, heads, size, feed_forward, words;
  double embedding_dropout, attention_dropout, dropout;
  float embedding_eps, table_eps, eps;
} Shape;

/* Sequences that one thread computes.
   before: tokens of earlier shards. first: first of the rows of the position table in use; bucket_X counts from there.
   perm_n: index of each sequence's mean among all means. buffer: see `encode_buffer_size`. unknown: number of ids that
   have no row in the word table, set by the forward pass. */
typedef struct {
  int64_t before, tokens, n, max_length, first, used;
  const int64_t *id_T, *cu_seqlens, *bucket_X, *perm_n;
  uint64_t seed;
  float *buffer;
  int64_t unknown;
} Shard;

/* Parameters of a layer, each where the module has it. qkv: of queries, keys and values; position: of queries and keys
   of the position table, 0 if the module shares those of `qkv`. */
typedef struct {
  const float *qkv_ED[3], *qkv_E[3], *position_ED[2], *position_E[2];
  const float *out_DE, *out_D, *gain1_D, *shift1_D, *up_FD, *up_F, *down_DF, *down_D, *gain2_D, *shift2_D;
} LayerWeights;

/* Gradients of the same, those of `qkv` and of `position` one below the other. */
typedef struct {
  float *qkv_3ED, *qkv_3E, *position_2ED, *position_2E;
  float *out_DE, *out_D, *gain1_D, *shift1_D, *up_FD, *up_F, *down_DF, *down_D, *gain2_D, *shift2_D;
} LayerGradients;

/* table_gain, table_shift: 0 for a position table without LayerNorm. */
typedef struct {
  const float *word_VD, *gain_D, *shift_D, *table_RD, *table_gain_D, *table_shift_D;
  LayerWeights layer[];
} Weights;

/* Gradients of one thread, end to end from `all` on; the first `accumulated` floats are sums, so they start at 0. That
   of the word table is left to `scatter_add_rows`. */
typedef struct {
  float *all;
  int64_t accumulated;
  float *gain_D, *shift_D, *table_RD, *table_gain_D, *table_shift_D;
  LayerGradients layer[];
} Gradients;

/* Activations of a layer that its backward pass needs. normal: output of LayerNorm before gain and shift; inverse: 1 /
   deviation. The weights of `qkv` and `position` are copied to lie one below the other. */
typedef struct {
  float *qkv_3ED, *qkv_3E, *position_2ED, *position_2E;
  float *x_TD, *qkv_T3E, *table_UD, *position_U2E, *probability_S, *context_TE;
  float *normal1_TD, *inverse1_T, *y_TD, *derivative_TF, *active_TF, *normal2_TD, *inverse2_T;
} SavedActivations;

/* Activations below the layers, and memory for intermediate results. size: floats of all of it. */
typedef struct {
  float *normal_TD, *inverse_T, *table_UD, *table_normal_UD, *table_inverse_U, *state_TD;
  float *dtable_UD, *drow_UD, *dproduct_TD, *dup_TF, *dcontext_TE, *dqkv_T3E, *dposition_U2E, *scratch;
  int64_t size;
} Workspace;

INLINE int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE float attention_scale(const Shape *shape) { return 1.0f / sqrtf(3.0f * (float)shape->size); }
INLINE uint32_t dropout_offset(int64_t layer, int place) { return (uint32_t)(PLACES * layer + place); }

/* The next `count` floats of a buffer; 0 while sizes are only added up, without a buffer. */
INLINE float *allocate(float *buffer, int64_t *used, int64_t count) {
  float *found = buffer ? buffer + *used : 0;
  *used += padded(count);
  return found;
}

static Workspace workspace(const Shape *shape, const Shard *shard) {
  int64_t T = shard->tokens, U = shard->used, D = shape->hidden, E = shape->heads * shape->size;
  int64_t F = shape->feed_forward;
  int64_t rows = max_of(T, U), at = 0;
  int64_t square = max_of(linear_scratch(rows, D, 3 * E), linear_scratch(rows, E, D));
  int64_t wide = max_of(linear_scratch(rows, D, F), linear_scratch(rows, F, D));
  Workspace work;
  work.normal_TD = allocate(shard->buffer, &at, T * D);
  work.inverse_T = allocate(shard->buffer, &at, T);
  work.table_UD = allocate(shard->buffer, &at, U * D);
  work.table_normal_UD = allocate(shard->buffer, &at, U * D);
  work.table_inverse_U = allocate(shard->buffer, &at, U);
  work.state_TD = allocate(shard->buffer, &at, T * D);
  work.dtable_UD = allocate(shard->buffer, &at, U * D);
  work.drow_UD = allocate(shard->buffer, &at, U * D);
  work.dproduct_TD = allocate(shard->buffer, &at, T * D);
  work.dup_TF = allocate(shard->buffer, &at, T * F);
  work.dcontext_TE = allocate(shard->buffer, &at, T * E);
  work.dqkv_T3E = allocate(shard->buffer, &at, T * 3 * E);
  work.dposition_U2E = allocate(shard->buffer, &at, U * 2 * E);
  int64_t attention = attention_scratch(shard->max_length, shape->size);
  work.scratch = allocate(shard->buffer, &at, max_of(attention, max_of(square, wide)));
  work.size = at;
  return work;
}

/* Takes the activations of a layer from the buffer at `at`, and moves `at` behind them. */
static SavedActivations allocate_saved(const Shape *shape, const Shard *shard, int64_t *at) {
  int64_t T = shard->tokens, U = shard->used, D = shape->hidden, E = shape->heads * shape->size;
  int64_t F = shape->feed_forward;
  int64_t scores = 0;
  for (int64_t r = 0; r < shard->n; r++) {
    int64_t length = shard->cu_seqlens[r + 1] - shard->cu_seqlens[r];
    scores += shape->heads * length * padded(length);
  }
  SavedActivations saved;
  saved.qkv_3ED = allocate(shard->buffer, at, 3 * E * D);
  saved.qkv_3E = allocate(shard->buffer, at, 3 * E);
  saved.position_2ED = allocate(shard->buffer, at, 2 * E * D);
  saved.position_2E = allocate(shard->buffer, at, 2 * E);
  saved.x_TD = allocate(shard->buffer, at, T * D);
  saved.qkv_T3E = allocate(shard->buffer, at, T * 3 * E);
  saved.table_UD = allocate(shard->buffer, at, U * D);
  saved.position_U2E = allocate(shard->buffer, at, U * 2 * E);
  saved.probability_S = allocate(shard->buffer, at, scores);
  saved.context_TE = allocate(shard->buffer, at, T * E);
  saved.normal1_TD = allocate(shard->buffer, at, T * D);
  saved.inverse1_T = allocate(shard->buffer, at, T);
  saved.y_TD = allocate(shard->buffer, at, T * D);
  saved.derivative_TF = allocate(shard->buffer, at, T * F);
  saved.active_TF = allocate(shard->buffer, at, T * F);
  saved.normal2_TD = allocate(shard->buffer, at, T * D);
  saved.inverse2_T = allocate(shard->buffer, at, T);
  return saved;
}

static SavedActivations saved_of(const Shape *shape, const Shard *shard, int64_t layer) {
  int64_t begin = workspace(shape, shard).size, end = begin;
  allocate_saved(shape, shard, &end);
  int64_t at = begin + layer % shape->saved_layers * (end - begin);
  return allocate_saved(shape, shard, &at);
}

/* Floats that the buffer of a shard must have: for activations that the backward pass needs, and to work in. */
API int64_t encode_buffer_size(const Shape *shape, const Shard *shard) {
  int64_t begin = workspace(shape, shard).size, end = begin;
  allocate_saved(shape, shard, &end);
  return begin + shape->saved_layers * (end - begin);
}

INLINE void concatenate(const float *const *from, int count, int64_t size, float *to) {
  for (int i = 0; i < count; i++) memcpy(to + i * size, from[i], (size_t)size * sizeof(float));
}

static void layer_forward(const Shape *shape, const Shard *shard, const LayerWeights *w, SavedActivations *saved,
                          int64_t number, const float *table_UD, float *scratch, float *out_TD) {
  int64_t T = shard->tokens, U = shard->used, D = shape->hidden, E = shape->heads * shape->size;
  int64_t F = shape->feed_forward;
  concatenate(w->qkv_ED, 3, E * D, saved->qkv_3ED);
  concatenate(w->qkv_E, 3, E, saved->qkv_3E);
  int own = w->position_ED[0] != 0;
  if (own) {
    concatenate(w->position_ED, 2, E * D, saved->position_2ED);
    concatenate(w->position_E, 2, E, saved->position_2E);
  }
  const float *position_2ED = own ? saved->position_2ED : saved->qkv_3ED;
  const float *position_2E = own ? saved->position_2E : saved->qkv_3E;
  dropout(table_UD, saved->table_UD, U * D, shard->seed, dropout_offset(number, TABLE), shape->dropout);
  linear(saved->table_UD, position_2ED, position_2E, U, D, 2 * E, scratch, saved->position_U2E);
  linear(saved->x_TD, saved->qkv_3ED, saved->qkv_3E, T, D, 3 * E, scratch, saved->qkv_T3E);
  attention(saved->qkv_T3E, saved->position_U2E, shard->cu_seqlens, shard->n, shard->max_length, shard->bucket_X,
            shape->heads, shape->size, attention_scale(shape), shard->seed, dropout_offset(number, ATTENTION),
            shape->attention_dropout, scratch, saved->probability_S, saved->context_TE);
  linear(saved->context_TE, w->out_DE, 0, T, E, D, scratch, saved->normal1_TD);
  layer_norm(saved->normal1_TD, w->out_D, saved->x_TD, w->gain1_D, w->shift1_D, T, D, shape->eps, shard->seed,
             dropout_offset(number, ATTENTION_OUTPUT), shape->dropout, saved->y_TD, saved->inverse1_T);
  linear(saved->y_TD, w->up_FD, 0, T, D, F, scratch, saved->derivative_TF);
  gelu(saved->derivative_TF, w->up_F, T, F, saved->active_TF);
  linear(saved->active_TF, w->down_DF, 0, T, F, D, scratch, saved->normal2_TD);
  layer_norm(saved->normal2_TD, w->down_D, saved->y_TD, w->gain2_D, w->shift2_D, T, D, shape->eps, shard->seed,
             dropout_offset(number, FEED_FORWARD_OUTPUT), shape->dropout, out_TD, saved->inverse2_T);
}

/* Turns the gradient of the layer's output into that of its input, in place, and adds that of the position table to
   work->dtable. */
static void layer_backward(const Shape *shape, const Shard *shard, const LayerWeights *w, const SavedActivations *saved,
                           const LayerGradients *d, int64_t number, const Workspace *work, float *d_TD) {
  int64_t T = shard->tokens, U = shard->used, D = shape->hidden, E = shape->heads * shape->size;
  int64_t F = shape->feed_forward;
  float *scratch = work->scratch, *dproduct_TD = work->dproduct_TD, *dup_TF = work->dup_TF;
  int own = d->position_2ED != 0;
  layer_norm_backward(d_TD, saved->normal2_TD, saved->inverse2_T, w->gain2_D, T, D, shard->seed,
                      dropout_offset(number, FEED_FORWARD_OUTPUT), shape->dropout, d_TD, dproduct_TD, d->gain2_D,
                      d->shift2_D, d->down_D);
  linear_backward_weight(dproduct_TD, saved->active_TF, T, F, D, 0, scratch, d->down_DF);
  linear_backward_input(dproduct_TD, w->down_DF, T, F, D, 0, scratch, dup_TF);
  gelu_backward(dup_TF, saved->derivative_TF, T, F, d->up_F);
  linear_backward_weight(dup_TF, saved->y_TD, T, D, F, 0, scratch, d->up_FD);
  linear_backward_input(dup_TF, w->up_FD, T, D, F, 1, scratch, d_TD);
  layer_norm_backward(d_TD, saved->normal1_TD, saved->inverse1_T, w->gain1_D, T, D, shard->seed,
                      dropout_offset(number, ATTENTION_OUTPUT), shape->dropout, d_TD, dproduct_TD, d->gain1_D,
                      d->shift1_D, d->out_D);
  linear_backward_weight(dproduct_TD, saved->context_TE, T, E, D, 0, scratch, d->out_DE);
  linear_backward_input(dproduct_TD, w->out_DE, T, E, D, 0, scratch, work->dcontext_TE);
  attention_backward(work->dcontext_TE, saved->qkv_T3E, saved->position_U2E, saved->probability_S, shard->cu_seqlens,
                     shard->n, shard->max_length, shard->bucket_X, U, shape->heads, shape->size, attention_scale(shape),
                     shard->seed, dropout_offset(number, ATTENTION), shape->attention_dropout, scratch, work->dqkv_T3E,
                     d->qkv_3E, work->dposition_U2E, own ? d->position_2E : d->qkv_3E);
  linear_backward_weight(work->dqkv_T3E, saved->x_TD, T, D, 3 * E, 0, scratch, d->qkv_3ED);
  linear_backward_weight(work->dposition_U2E, saved->table_UD, U, D, 2 * E, !own, scratch,
                         own ? d->position_2ED : d->qkv_3ED);
  linear_backward_input(work->dposition_U2E, own ? saved->position_2ED : saved->qkv_3ED, U, D, 2 * E, 0, scratch,
                        work->drow_UD);
  Dropout drop = dropout_at(shard->seed, dropout_offset(number, TABLE), shape->dropout);
#pragma omp simd
  for (int64_t i = 0; i < U * D; i++) work->dtable_UD[i] += work->drow_UD[i] * keep_mask(drop, (uint32_t)i);
  linear_backward_input(work->dqkv_T3E, saved->qkv_3ED, T, D, 3 * E, 1, scratch, d_TD);
}

/* Arguments of a pass, which threads share; the last three are for the backward pass. */
typedef struct {
  const Shape *shape;
  Shard *shards;
  const Weights *weights;
  float *mean_ND;
  const float *dmean_ND;
  const Gradients *const *gradients;
  float *drow_TD;
} Pass;

static void forward(void *argument, int64_t item) {
  const Pass *pass = argument;
  const Shape *shape = pass->shape;
  const Weights *weights = pass->weights;
  Shard *shard = pass->shards + item;
  int64_t T = shard->tokens, U = shard->used, D = shape->hidden;
  const float *table_UD = weights->table_RD + shard->first * D;
  Workspace work = workspace(shape, shard);
  if (weights->table_gain_D) {
    embed(table_UD, U, 0, weights->table_gain_D, weights->table_shift_D, U, D, shape->table_eps, 0, 0, 0.0,
          work.table_normal_UD, work.table_UD, work.table_inverse_U);
    table_UD = work.table_UD;
  }
  SavedActivations saved = saved_of(shape, shard, 0);
  shard->unknown = embed(weights->word_VD, shape->words, shard->id_T, weights->gain_D, weights->shift_D, T, D,
                         shape->embedding_eps, shard->seed, EMBEDDING, shape->embedding_dropout, work.normal_TD,
                         saved.x_TD, work.inverse_T);
  for (int64_t i = 0; i < shape->layers; i++) {
    int last = i + 1 == shape->layers;
    SavedActivations next = last ? saved : saved_of(shape, shard, i + 1);
    layer_forward(shape, shard, &weights->layer[i], &saved, i, table_UD, work.scratch,
                  last ? work.state_TD : next.x_TD);
    saved = next;
  }
  sequence_means(work.state_TD, shard->cu_seqlens, shard->n, D, shard->perm_n, pass->mean_ND);
}

static void backward(void *argument, int64_t item) {
  const Pass *pass = argument;
  const Shape *shape = pass->shape;
  const Weights *weights = pass->weights;
  const Shard *shard = pass->shards + item;
  const Gradients *gradients = pass->gradients[item];
  int64_t T = shard->tokens, U = shard->used, D = shape->hidden;
  Workspace work = workspace(shape, shard);
  float *dtable_UD = gradients->table_RD + shard->first * D, *d_TD = pass->drow_TD + shard->before * D;
  memset(gradients->all, 0, (size_t)gradients->accumulated * sizeof(float));
  sequence_means_backward(pass->dmean_ND, shard->cu_seqlens, shard->n, D, shard->perm_n, d_TD);
  if (weights->table_gain_D)
    memset(work.dtable_UD, 0, (size_t)(U * D) * sizeof(float));
  else
    work.dtable_UD = dtable_UD;
  for (int64_t i = shape->layers - 1; i >= 0; i--) {
    SavedActivations saved = saved_of(shape, shard, i);
    layer_backward(shape, shard, &weights->layer[i], &saved, &gradients->layer[i], i, &work, d_TD);
  }
  embed_backward(d_TD, work.normal_TD, work.inverse_T, weights->gain_D, T, D, shard->seed, EMBEDDING,
                 shape->embedding_dropout, d_TD, gradients->gain_D, gradients->shift_D);
  if (weights->table_gain_D)
    embed_backward(work.dtable_UD, work.table_normal_UD, work.table_inverse_U, weights->table_gain_D, U, D, 0, 0, 0.0,
                   dtable_UD, gradients->table_gain_D, gradients->table_shift_D);
}

/* The mean of the last layer's hidden states over each sequence, mean_ND. Returns the number of ids that have no row in
   the word table; row 0 is read for them. */
API int64_t encode(ThreadPool *pool, const Shape *shape, Shard *shards, int64_t count, const Weights *weights,
                   float *mean_ND) {
  Pass pass = {.shape = shape, .shards = shards, .weights = weights, .mean_ND = mean_ND};
  parallel_for(pool, forward, &pass, count);
  int64_t unknown = 0;
  for (int64_t i = 0; i < count; i++) unknown += shards[i].unknown;
  return unknown;
}

/* Where gradients are added in the end: that of tensor s, of count[s] elements from offset[s] on in each thread's, to
   to[s]; those of words, but for padding_id, to dword. A 0 means that a gradient is not wanted. */
typedef struct {
  const int64_t *offset, *count;
  float *const *to;
  int64_t tensors, padding_id;
  float *dword_VD;
} Target;

/* Adds the gradients of all weights, given those of the means. gradients: one for each shard, to work in, as is drow:
   gradients of words, one row for each token of all shards. */
API void encode_backward(ThreadPool *pool, const Shape *shape, Shard *shards, int64_t count, const Weights *weights,
                         const Gradients *const *gradients, const float *dmean_ND, float *drow_TD,
                         const Target *target) {
  Pass pass = {shape, shards, weights, 0, dmean_ND, gradients, drow_TD};
  parallel_for(pool, backward, &pass, count);
  const float *parts[count];
  for (int64_t i = 0; i < count; i++) parts[i] = gradients[i]->all;
  reduce_gradients(pool, parts, count, target->offset, target->count, target->to, target->tensors);
  int64_t tokens = shards[count - 1].before + shards[count - 1].tokens;
  if (target->dword_VD)
    scatter_add_rows(drow_TD, shards->id_T, tokens, shape->hidden, target->padding_id, target->dword_VD);
}
