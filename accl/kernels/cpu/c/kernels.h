/* What the files here need of each other; each function is described where it is defined. */

#pragma once

#include "shared.h"

/* A pool of threads for loops whose iterations are independent. */
typedef struct ThreadPool ThreadPool;
typedef void Task(void *argument, int64_t item);

int64_t thread_pool_size(const ThreadPool *pool);
void parallel_for(ThreadPool *pool, Task *task, void *argument, int64_t items);

/* Sequences that one thread computes.
   before: tokens of earlier shards. first: first of the U rows of the position table in use. bucket_X: row for each of
   the X = 2 max_length - 1 distances, counted from the first. cu_seqlens: where each sequence begins, and the end of
   the last. perm_n: index of each sequence's mean among all means. buffer: see `encode_buffer_size`. unknown: number of
   ids that have no row in the word table, set by the forward pass. */
typedef struct {
  int64_t before, tokens, n, max_length, first, used;
  const int64_t *id_T, *cu_seqlens, *bucket_X, *perm_n;
  uint64_t seed;
  float *buffer;
  int64_t unknown;
} Shard;

/* Parameters of a layer, each where the module has it, or one shard's gradients of them, which lie end to end. qkv: of
   queries, keys and values; the first two are also those of the position table. */
typedef struct {
  float *qkv_ED[3], *qkv_E[3];
  float *out_DE, *out_D, *gain1_D, *shift1_D, *up_FD, *up_F, *down_DF, *down_D, *gain2_D, *shift2_D;
} Layer;

typedef struct {
  float *gain_D, *shift_D, *table_RD, *table_gain_D, *table_shift_D;
  Layer layer[];
} Parameters;

/* A forward pass and its backward pass.
   saved_layers: how many layers' activations a buffer holds: all for a backward pass, 1 if there is none. words: V.
   Of the backward pass only: drow: gradients of words, one row for each token of all shards. gradients: the addresses
   of `Parameters` for each shard. to: where the sums over shards are added, of count[s] elements for tensor s of
   `tensors`, `elements` in all; dword: the same of words, but for padding_id. A 0 means that a gradient is not wanted.
 */
typedef struct {
  int64_t layers, saved_layers, hidden, heads, size, feed_forward, words, shards, tensors, elements, padding_id;
  double embedding_dropout, attention_dropout, dropout, embedding_eps, table_eps, eps;
  Shard *shard;
  const float *word_VD;
  const Parameters *weights;
  float *mean_ND;
  const float *dmean_ND;
  float *drow_TD, *const *gradients;
  const int64_t *count;
  float *const *to, *dword_VD;
} EncoderContext;

void dropout(const float *x, float *out, int64_t count, Dropout drop);
void gelu(float *product_TF, const float *bias_F, int64_t tokens, int64_t width, float *active_TF);
void gelu_backward(float *dactive_TF, const float *derivative_TF, int64_t tokens, int64_t width, float *dbias_F);
void layer_norm(float *product_TD, const float *bias_D, const float *residual_TD, const float *gain_D,
                const float *shift_D, int64_t tokens, int64_t width, double eps, Dropout drop, float *out_TD,
                float *inverse_T);
void layer_norm_backward(float *dout_TD, const float *normal_TD, const float *inverse_T, const float *gain_D,
                         int64_t tokens, int64_t width, Dropout drop, float *dproduct_TD, float *dgain_D,
                         float *dshift_D, float *dbias_D);
int64_t embed(const float *table_VD, int64_t rows, const int64_t *id_T, const float *gain_D, const float *shift_D,
              int64_t tokens, int64_t width, double eps, Dropout drop, float *normal_TD, float *out_TD,
              float *inverse_T);
void embed_backward(const float *dout_TD, const float *normal_TD, const float *inverse_T, const float *gain_D,
                    int64_t tokens, int64_t width, Dropout drop, float *drow_TD, float *dgain_D, float *dshift_D);
void sequence_means(const float *x_TD, const Shard *shard, int64_t width, float *mean_ND);
void sequence_means_backward(const float *dmean_ND, const Shard *shard, int64_t width, float *dx_TD);

int64_t attention_scratch(int64_t max_length, int64_t size);
void attention(const EncoderContext *pass, const Shard *shard, Dropout drop, const float *qkv_T3E,
               const float *position_U2E,
               float *scratch, float *probability_S, float *context_TE);
void attention_backward(const EncoderContext *pass, const Shard *shard, Dropout drop, const float *dcontext_TE,
                        const float *qkv_T3E, const float *position_U2E, const float *probability_S, float *scratch,
                        float *dqkv_T3E, float *dqkv_3E, float *dposition_U2E);

int64_t linear_scratch(int64_t tokens, int64_t inputs, int64_t outputs);
void linear(const float *x_TK, const float *w_NK, const float *bias_N, int64_t tokens, int64_t inputs, int64_t outputs,
            float *scratch, float *y_TN);
void linear_backward_input(const float *dy_TN, const float *w_NK, int64_t tokens, int64_t inputs, int64_t outputs,
                           int add, float *scratch, float *dx_TK);
void linear_backward_weight(const float *dy_TN, const float *x_TK, int64_t tokens, int64_t inputs, int64_t outputs,
                            float *scratch, float *dw_NK);

void reduce_gradients(ThreadPool *pool, const EncoderContext *pass);
void scatter_add_rows(const EncoderContext *pass);
