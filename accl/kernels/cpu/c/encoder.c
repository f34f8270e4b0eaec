/* A DeBERTa over packed sequences, from token ids to means of hidden states, and the backward pass.

   Each pass is one call: a step has hundreds of kernels, and after each of them threads would have to wait for Python's
   lock and for each other.

   Shapes beyond those of shared.h: N sequences of all shards; V rows of the word table, R of the position table; F
   feed-forward width; S scores. */

#include "kernels.h"

/* Where dropout happens: on the embedding; then in each layer on the position table, the attention weights, the output
   of attention, and that of the feed-forward part. */
enum { EMBEDDING, TABLE, ATTENTION, ATTENTION_OUTPUT, FEED_FORWARD_OUTPUT, PLACES = 4 };

/* Memory of a shard: activations below the layers and intermediate results; then, from FIRST_SAVED on, activations of a
   layer that its backward pass needs. normal: output of LayerNorm before gain and shift; inverse: 1 / deviation. The
   weights of queries, keys and values are copied to lie one below the other. */
typedef struct {
  float *normal_TD, *inverse_T, *table_UD, *table_normal_UD, *table_inverse_U, *state_TD;
  float *dtable_UD, *drow_UD, *dproduct_TD, *dup_TF, *dcontext_TE, *dqkv_T3E, *dposition_U2E, *scratch;
  float *qkv_3ED, *qkv_3E, *x_TD, *dropped_UD, *qkv_T3E, *position_U2E, *probability_S, *context_TE;
  float *normal1_TD, *inverse1_T, *y_TD, *derivative_TF, *active_TF, *normal2_TD, *inverse2_T;
} Memory;
enum { FIRST_SAVED = 14, FIELDS = sizeof(Memory) / sizeof(float *) };

/* Finds the memory of a layer in a shard's buffer, and returns the floats that the buffer must have. */
static int64_t find_memory(const EncoderContext *pass, const Shard *shard, int64_t layer, Memory *memory) {
  int64_t T = shard->tokens, U = shard->used, D = pass->hidden, E = pass->heads * pass->size, F = pass->feed_forward;
  int64_t rows = max_of(T, U), S = 0, at = 0;
  int64_t square = max_of(linear_scratch(rows, D, 3 * E), linear_scratch(rows, E, D));
  int64_t wide = max_of(linear_scratch(rows, D, F), linear_scratch(rows, F, D));
  int64_t scratch = max_of(attention_scratch(shard->max_length, pass->size), max_of(square, wide));
  for (int64_t r = 0; r < shard->n; r++) {
    int64_t length = shard->cu_seqlens[r + 1] - shard->cu_seqlens[r];
    S += pass->heads * length * padded(length);
  }
  const int64_t size[FIELDS] = {
      T * D,     T,         U * D, U * D, U,         T * D,     U * D, U * D, T * D, T * F, T * E, T * 3 * E, U * 2 * E,
      scratch,   3 * E * D, 3 * E, T * D, U * D,     T * 3 * E, U * 2 * E, S, T * E, T * D, T,     T * D,     T * F,
      T * F,     T * D,     T};
  float *field[FIELDS];
  for (int64_t i = 0; i < FIELDS; i++) {
    int64_t copies = i < FIRST_SAVED ? 1 : pass->saved_layers;
    field[i] = shard->buffer + at + layer % copies * padded(size[i]);
    at += copies * padded(size[i]);
  }
  memcpy(memory, field, sizeof field);
  return at;
}

/* Number of floats that the buffer of a shard must have. */
API int64_t encode_buffer_size(const EncoderContext *pass, const Shard *shard) {
  Memory memory;
  return find_memory(pass, shard, 0, &memory);
}

INLINE Dropout dropout_of(const EncoderContext *pass, const Shard *shard, int64_t layer, int place) {
  double probability = place == ATTENTION ? pass->attention_dropout : pass->dropout;
  return dropout_at(shard->seed, (uint32_t)(PLACES * layer + place), probability);
}

INLINE void concatenate(float *const *from, int64_t size, float *to) {
  for (int i = 0; i < 3; i++) memcpy(to + i * size, from[i], (size_t)size * sizeof(float));
}

static void layer_forward(const EncoderContext *pass, const Shard *shard, const Memory *m, int64_t layer,
                          float *out_TD) {
  int64_t T = shard->tokens, U = shard->used, D = pass->hidden, E = pass->heads * pass->size, F = pass->feed_forward;
  const Layer *w = &pass->weights->layer[layer];
  concatenate(w->qkv_ED, E * D, m->qkv_3ED);
  concatenate(w->qkv_E, E, m->qkv_3E);
  dropout(m->table_UD, m->dropped_UD, U * D, dropout_of(pass, shard, layer, TABLE));
  linear(m->dropped_UD, m->qkv_3ED, m->qkv_3E, U, D, 2 * E, m->scratch, m->position_U2E);
  linear(m->x_TD, m->qkv_3ED, m->qkv_3E, T, D, 3 * E, m->scratch, m->qkv_T3E);
  attention(pass, shard, dropout_of(pass, shard, layer, ATTENTION), m->qkv_T3E, m->position_U2E, m->scratch,
            m->probability_S, m->context_TE);
  linear(m->context_TE, w->out_DE, 0, T, E, D, m->scratch, m->normal1_TD);
  layer_norm(m->normal1_TD, w->out_D, m->x_TD, w->gain1_D, w->shift1_D, T, D, pass->eps,
             dropout_of(pass, shard, layer, ATTENTION_OUTPUT), m->y_TD, m->inverse1_T);
  linear(m->y_TD, w->up_FD, 0, T, D, F, m->scratch, m->derivative_TF);
  gelu(m->derivative_TF, w->up_F, T, F, m->active_TF);
  linear(m->active_TF, w->down_DF, 0, T, F, D, m->scratch, m->normal2_TD);
  layer_norm(m->normal2_TD, w->down_D, m->y_TD, w->gain2_D, w->shift2_D, T, D, pass->eps,
             dropout_of(pass, shard, layer, FEED_FORWARD_OUTPUT), out_TD, m->inverse2_T);
}

/* Turns the gradient of the layer's output into that of its input, in place, adds that of the position table to
   m->dtable, and those of weights to d. */
static void layer_backward(const EncoderContext *pass, const Shard *shard, const Memory *m, int64_t layer,
                           const Layer *d,
                           float *d_TD) {
  int64_t T = shard->tokens, U = shard->used, D = pass->hidden, E = pass->heads * pass->size, F = pass->feed_forward;
  const Layer *w = &pass->weights->layer[layer];
  layer_norm_backward(d_TD, m->normal2_TD, m->inverse2_T, w->gain2_D, T, D,
                      dropout_of(pass, shard, layer, FEED_FORWARD_OUTPUT), m->dproduct_TD, d->gain2_D, d->shift2_D,
                      d->down_D);
  linear_backward_weight(m->dproduct_TD, m->active_TF, T, F, D, m->scratch, d->down_DF);
  linear_backward_input(m->dproduct_TD, w->down_DF, T, F, D, 0, m->scratch, m->dup_TF);
  gelu_backward(m->dup_TF, m->derivative_TF, T, F, d->up_F);
  linear_backward_weight(m->dup_TF, m->y_TD, T, D, F, m->scratch, d->up_FD);
  linear_backward_input(m->dup_TF, w->up_FD, T, D, F, 1, m->scratch, d_TD);
  layer_norm_backward(d_TD, m->normal1_TD, m->inverse1_T, w->gain1_D, T, D,
                      dropout_of(pass, shard, layer, ATTENTION_OUTPUT), m->dproduct_TD, d->gain1_D, d->shift1_D,
                      d->out_D);
  linear_backward_weight(m->dproduct_TD, m->context_TE, T, E, D, m->scratch, d->out_DE);
  linear_backward_input(m->dproduct_TD, w->out_DE, T, E, D, 0, m->scratch, m->dcontext_TE);
  attention_backward(pass, shard, dropout_of(pass, shard, layer, ATTENTION), m->dcontext_TE, m->qkv_T3E,
                     m->position_U2E, m->probability_S, m->scratch, m->dqkv_T3E, d->qkv_E[0], m->dposition_U2E);
  linear_backward_weight(m->dqkv_T3E, m->x_TD, T, D, 3 * E, m->scratch, d->qkv_ED[0]);
  linear_backward_weight(m->dposition_U2E, m->dropped_UD, U, D, 2 * E, m->scratch, d->qkv_ED[0]);
  linear_backward_input(m->dposition_U2E, m->qkv_3ED, U, D, 2 * E, 0, m->scratch, m->drow_UD);
  Dropout drop = dropout_of(pass, shard, layer, TABLE);
#pragma omp simd
  for (int64_t i = 0; i < U * D; i++) m->dtable_UD[i] += m->drow_UD[i] * keep_mask(drop, (uint32_t)i);
  linear_backward_input(m->dqkv_T3E, m->qkv_3ED, T, D, 3 * E, 1, m->scratch, d_TD);
}

static void forward(void *argument, int64_t item) {
  const EncoderContext *pass = argument;
  const Parameters *w = pass->weights;
  Shard *shard = pass->shard + item;
  int64_t T = shard->tokens, U = shard->used, D = pass->hidden, layers = pass->layers;
  Dropout drop = dropout_at(shard->seed, EMBEDDING, pass->embedding_dropout), none = dropout_at(0, 0, 0.0);
  Memory memory, next;
  find_memory(pass, shard, 0, &memory);
  embed(w->table_RD + shard->first * D, U, 0, w->table_gain_D, w->table_shift_D, U, D, pass->table_eps, none,
        memory.table_normal_UD, memory.table_UD, memory.table_inverse_U);
  shard->unknown = embed(pass->word_VD, pass->words, shard->id_T, w->gain_D, w->shift_D, T, D, pass->embedding_eps,
                         drop, memory.normal_TD, memory.x_TD, memory.inverse_T);
  for (int64_t i = 0; i < layers; i++, memory = next) {
    find_memory(pass, shard, i + 1, &next);
    layer_forward(pass, shard, &memory, i, i + 1 < layers ? next.x_TD : memory.state_TD);
  }
  sequence_means(memory.state_TD, shard, D, pass->mean_ND);
}

static void backward(void *argument, int64_t item) {
  const EncoderContext *pass = argument;
  const Parameters *w = pass->weights, *d = (const Parameters *)(pass->gradients + item * pass->tensors);
  const Shard *shard = pass->shard + item;
  int64_t T = shard->tokens, U = shard->used, D = pass->hidden;
  float *d_TD = pass->drow_TD + shard->before * D;
  Dropout drop = dropout_at(shard->seed, EMBEDDING, pass->embedding_dropout), none = dropout_at(0, 0, 0.0);
  Memory memory;
  find_memory(pass, shard, 0, &memory);
  memset(d->gain_D, 0, (size_t)pass->elements * sizeof(float));
  memset(memory.dtable_UD, 0, (size_t)(U * D) * sizeof(float));
  sequence_means_backward(pass->dmean_ND, shard, D, d_TD);
  for (int64_t i = pass->layers - 1; i >= 0; i--) {
    find_memory(pass, shard, i, &memory);
    layer_backward(pass, shard, &memory, i, &d->layer[i], d_TD);
  }
  embed_backward(d_TD, memory.normal_TD, memory.inverse_T, w->gain_D, T, D, drop, d_TD, d->gain_D, d->shift_D);
  embed_backward(memory.dtable_UD, memory.table_normal_UD, memory.table_inverse_U, w->table_gain_D, U, D, none,
                 d->table_RD + shard->first * D, d->table_gain_D, d->table_shift_D);
}

/* The mean of the last layer's hidden states over each sequence, mean_ND. Returns the number of ids that have no row in
   the word table; row 0 is read for them. */
API int64_t encode(ThreadPool *pool, EncoderContext *pass) {
  parallel_for(pool, forward, pass, pass->shards);
  int64_t unknown = 0;
  for (int64_t i = 0; i < pass->shards; i++) unknown += pass->shard[i].unknown;
  return unknown;
}

/* Adds the gradients of all weights, given those of the means. */
API void encode_backward(ThreadPool *pool, EncoderContext *pass) {
  parallel_for(pool, backward, pass, pass->shards);
  reduce_gradients(pool, pass);
  if (pass->dword_VD) scatter_add_rows(pass);
}
