/* Attention with DeBERTa's disentangled relative positions.

   The score of query i and key j is scale * (q_i k_j + q_i pk_x + k_j pq_x), where pk and pq are keys and queries of
   the position table, and x = j - i + max_length - 1 numbers the distances: for one query, x grows with j. */

#include "kernels.h"

/* Queries that are computed at a time. */
#define QUERIES 4

INLINE float attention_scale(int64_t size) { return 1.0f / sqrtf(3.0f * (float)size); }
INLINE int64_t distances(int64_t max_length) { return 2 * max_length - 1; }
/* Number of distances with room for those that the padding of a sequence reads. */
INLINE int64_t distances_padded(int64_t max_length) { return padded(distances(max_length) + PADDING); }

/* Number of floats of scratch memory that a call needs. */
int64_t attention_scratch(int64_t max_length, int64_t size) {
  int64_t table = distances_padded(max_length) * padded(size), row = padded(max_length) * padded(size);
  return 4 * table + 8 * row + (max_length + QUERIES) * padded(max_length);
}

/* Copies L x d, with rows `stride` apart, to L x padded d. */
INLINE void pack(const float *from, int64_t stride, int64_t length, int64_t size, float *to) {
  int64_t width = padded(size);
  for (int64_t j = 0; j < length; j++) {
    memcpy(to + j * width, from + j * stride, (size_t)size * sizeof(float));
    for (int64_t c = size; c < width; c++) to[j * width + c] = 0.0f;
  }
}

/* q k^T of QUERIES queries from i0 on, and unless pkT is 0 the terms of positions; in place of queries behind the last
   one, that is computed again. */
INLINE void score(const float *q, int64_t stride, const float *kT, const float *pkT, const float *pqT, int64_t i0,
                  int64_t length, int64_t max_length, int64_t size, float *score_LL) {
  int64_t width = padded(length), table_width = distances_padded(max_length), i[QUERIES];
  for (int u = 0; u < QUERIES; u++) i[u] = min_of(i0 + u, length - 1);
  for (int64_t j = 0; j < width; j += LANES) {
    Lanes sum[QUERIES] = {{0.0f}};
    for (int64_t c = 0; c < size; c++) {
      Lanes k = load(panel_at(kT, j, size) + c * PADDING);
      for (int u = 0; u < QUERIES; u++) {
        int64_t x = c * table_width + max_length - 1 - i[u] + j;
        sum[u] += q[i[u] * stride + c] * (k + (pkT ? load(pkT + x) : (Lanes){0.0f}));
        if (pkT) sum[u] += k * load(pqT + x);
      }
    }
    for (int u = 0; u < QUERIES; u++) store(score_LL + i[u] * width + j, sum[u]);
  }
}

/* Sum of all lanes, as a tree: the compiler keeps to the order of a sum, and would add one after another. */
INLINE float total(Lanes lanes) {
  typedef float Four __attribute__((vector_size(4 * sizeof(float))));
  Four part[LANES / 4], sum = {0.0f};
  memcpy(part, &lanes, sizeof part);
  for (int p = 0; p < LANES / 4; p++) sum += part[p];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Softmax of a query's scores in place; 0 in the padding. */
INLINE void softmax(float *score, int64_t length, float scale) {
  int64_t width = padded(length);
  for (int64_t j = length; j < width; j++) score[j] = -INFINITY;
  int32_t top = INT32_MIN;
#pragma omp simd reduction(max : top)
  for (int64_t j = 0; j < width; j++) {
    int32_t bits;
    memcpy(&bits, score + j, sizeof bits);
    bits = ordered(bits);
    top = bits > top ? bits : top;
  }
  float largest;
  top = ordered(top);
  memcpy(&largest, &top, sizeof largest);
#pragma omp simd
  for (int64_t j = 0; j < width; j++) score[j] = exp_negative(scale * (score[j] - largest));
  Lanes sum = {0.0f};
  for (int64_t j = 0; j < width; j += LANES) sum += load(score + j);
  float share = 1.0f / total(sum);
#pragma omp simd
  for (int64_t j = 0; j < width; j++) score[j] *= share;
}

/* context = share v for `count` consecutive queries. */
INLINE void weighted_sum(const float *share, const float *v, int64_t count, int64_t length, int64_t size,
                         int64_t hidden, float *context) {
  int64_t width = padded(size), keys = padded(length), i[QUERIES];
  for (int u = 0; u < QUERIES; u++) i[u] = min_of(u, count - 1);
  for (int64_t c = 0; c < size; c += LANES) {
    Lanes sum[QUERIES] = {{0.0f}};
    for (int64_t j = 0; j < length; j++) {
      Lanes value = load(v + j * width + c);
      for (int u = 0; u < QUERIES; u++) sum[u] += share[i[u] * keys + j] * value;
    }
    for (int u = 0; u < QUERIES; u++)
      memcpy(context + i[u] * hidden + c, &sum[u], (size_t)min_of(LANES, size - c) * sizeof(float));
  }
}

INLINE void attention_of(const EncoderContext *pass, const Shard *shard, int64_t size, Dropout drop,
                         const float *qkv_T3E,
                         const float *position_U2E, float *scratch, float *probability_S, float *context_TE) {
  int64_t hidden = pass->heads * size, stride = 3 * hidden, max_length = shard->max_length;
  int64_t table_width = distances_padded(max_length), width = padded(size);
  float *pkT = scratch, *pqT = pkT + size * table_width, *kT = pqT + size * table_width;
  float *v = kT + size * padded(max_length), *spare = v + max_length * width, *dropped = spare + PADDING * size;
  float *probability = probability_S, scale = attention_scale(size);
  memset(pkT, 0, (size_t)(2 * size * table_width) * sizeof(float));
  for (int64_t h = 0; h < pass->heads; h++) {
    for (int64_t x = 0; x < distances(max_length); x++) {
      const float *query = position_U2E + shard->bucket_X[x] * 2 * hidden + h * size, *key = query + hidden;
      for (int64_t c = 0; c < size; c++) {
        pkT[c * table_width + x] = key[c];
        pqT[c * table_width + x] = query[c];
      }
    }
    for (int64_t r = 0; r < shard->n; r++) {
      int64_t length = shard->cu_seqlens[r + 1] - shard->cu_seqlens[r], keys = padded(length);
      const float *q = qkv_T3E + shard->cu_seqlens[r] * stride + h * size;
      float *context = context_TE + shard->cu_seqlens[r] * hidden + h * size;
      transpose(q + hidden, stride, length, size, spare, kT);
      pack(q + 2 * hidden, stride, length, size, v);
      for (int64_t i = 0; i < length; i += QUERIES)
        score(q, stride, kT, pkT, pqT, i, length, max_length, size, probability);
      for (int64_t i = 0; i < length; i += QUERIES) {
        int64_t count = min_of(QUERIES, length - i);
        for (int64_t u = 0; u < count; u++) softmax(probability + u * keys, length, scale);
        const float *share = probability;
        if (drop.threshold) {
          uint32_t first = (uint32_t)(probability - probability_S);
#pragma omp simd
          for (int64_t e = 0; e < count * keys; e++) dropped[e] = probability[e] * keep_mask(drop, first + (uint32_t)e);
          share = dropped;
        }
        weighted_sum(share, v, count, length, size, hidden, context + i * hidden);
        probability += count * keys;
      }
    }
  }
}

/* Calls a function that takes the size of heads. It is a constant if it is 32, so that the compiler unrolls loops. */
#define WITH_SIZE(function, ...)                        \
  if (pass->size == 32)                                 \
    function(pass, shard, 32, drop, __VA_ARGS__);       \
  else                                                  \
    function(pass, shard, pass->size, drop, __VA_ARGS__)

/* Attention of packed queries, keys and values (qkv_T3E) with the queries and keys of the position table
   (position_U2E). probability_S, for the backward pass: the L x padded L probabilities of each head and sequence before
   dropout. context_TE: the result. */
void attention(const EncoderContext *pass, const Shard *shard, Dropout drop, const float *qkv_T3E,
               const float *position_U2E,
               float *scratch, float *probability_S, float *context_TE) {
  WITH_SIZE(attention_of, qkv_T3E, position_U2E, scratch, probability_S, context_TE);
}

/* One head of a sequence in the backward pass, each L x padded d. */
typedef struct {
  float *q, *k, *dcontext, *dq, *dk, *dv;
} SequenceHead;

/* One head of the projected position table by distance, each X x padded d. */
typedef struct {
  float *query, *key, *dquery, *dkey;
} TableHead;

/* Adds the contribution of `count` consecutive queries to all gradients, given those of their scores. With each step to
   the next key, a distance moves on to the next query; what belongs to it stays in registers meanwhile. */
INLINE void score_backward(SequenceHead seq, TableHead table, const int count, int64_t i0, int64_t length,
                           int64_t max_length, int64_t width, const float *dropped, const float *dscore_LL) {
  int64_t keys = padded(length), x0 = max_length - 1 - i0;
  const float *dscore = dscore_LL + i0 * keys;
  for (int64_t c = 0; c < width; c += LANES) {
    Lanes q[QUERIES], dcontext[QUERIES], dq[QUERIES] = {{0.0f}};
    Lanes query[QUERIES], key[QUERIES], dquery[QUERIES], dkey[QUERIES];
    for (int u = 0; u < count; u++) dcontext[u] = load(seq.dcontext + (i0 + u) * width + c);
    for (int64_t j = 0; j < length; j++) {
      Lanes dv = load(seq.dv + j * width + c);
      for (int u = 0; u < count; u++) dv += dropped[u * keys + j] * dcontext[u];
      store(seq.dv + j * width + c, dv);
    }
    for (int u = 0; u < count; u++) q[u] = load(seq.q + (i0 + u) * width + c);
    for (int u = 0; u < count - 1; u++) {
      int64_t x = (x0 - 1 - u) * width + c;
      query[u] = load(table.query + x), key[u] = load(table.key + x);
      dquery[u] = load(table.dquery + x), dkey[u] = load(table.dkey + x);
    }
    for (int64_t j = 0; j < length; j++) {
      int64_t at = j * width + c, x = x0 * width + at, last = x - (count - 1) * width;
      Lanes k = load(seq.k + at), dk = load(seq.dk + at);
      for (int u = count - 1; u > 0; u--) {
        query[u] = query[u - 1], key[u] = key[u - 1];
        dquery[u] = dquery[u - 1], dkey[u] = dkey[u - 1];
      }
      query[0] = load(table.query + x), key[0] = load(table.key + x);
      dquery[0] = load(table.dquery + x), dkey[0] = load(table.dkey + x);
      for (int u = 0; u < count; u++) {
        float d = dscore[u * keys + j];
        dq[u] += d * (k + key[u]);
        dk += d * (q[u] + query[u]);
        dkey[u] += d * q[u];
        dquery[u] += d * k;
      }
      store(seq.dk + at, dk);
      store(table.dquery + last, dquery[count - 1]);
      store(table.dkey + last, dkey[count - 1]);
    }
    for (int u = 0; u < count - 1; u++) {
      int64_t x = (x0 + length - 1 - u) * width + c;
      store(table.dquery + x, dquery[u]);
      store(table.dkey + x, dkey[u]);
    }
    for (int u = 0; u < count; u++) store(seq.dq + (i0 + u) * width + c, dq[u]);
  }
}

/* Copies L x padded d to L x d, with rows `stride` apart, and adds the sum of the rows to `sum`. */
INLINE void unpack(const float *from, int64_t stride, int64_t length, int64_t size, float *to, float *sum) {
  int64_t width = padded(size);
  for (int64_t j = 0; j < length; j++)
#pragma omp simd
    for (int64_t c = 0; c < size; c++) {
      to[j * stride + c] = from[j * width + c];
      sum[c] += from[j * width + c];
    }
}

/* Turns the gradients of a query's probabilities after dropout into those of its scores, in place, and computes the
   probabilities after dropout again. */
INLINE void softmax_backward(const float *probability, int64_t keys, float scale, Dropout drop,
                             uint32_t first, float *dropped, float *dscore) {
#pragma omp simd
  for (int64_t j = 0; j < keys; j++) {
    float share = keep_mask(drop, first + (uint32_t)j);
    dscore[j] *= share;
    dropped[j] = share * probability[j];
  }
  Lanes product = {0.0f}, sum = {0.0f};
  for (int64_t j = 0; j < keys; j += LANES) {
    product += load(dscore + j) * load(probability + j);
    sum += load(probability + j);
  }
  /* Not exactly 1: the rounding error would add up over queries. */
  float along = total(product) / total(sum);
#pragma omp simd
  for (int64_t j = 0; j < keys; j++) dscore[j] = scale * probability[j] * (dscore[j] - along);
}

INLINE void attention_backward_of(const EncoderContext *pass, const Shard *shard, int64_t size, Dropout drop,
                                  const float *dcontext_TE, const float *qkv_T3E, const float *position_U2E,
                                  const float *probability_S, float *scratch, float *dqkv_T3E, float *dqkv_3E,
                                  float *dposition_U2E) {
  int64_t hidden = pass->heads * size, stride = 3 * hidden, max_length = shard->max_length, width = padded(size);
  int64_t all = distances(max_length) * width, largest = max_length * width;
  TableHead table = {scratch, scratch + all, scratch + 2 * all, scratch + 3 * all};
  float *free = scratch + 4 * all;
  SequenceHead seq = {free,               free + largest,     free + 2 * largest,
                      free + 3 * largest, free + 4 * largest, free + 5 * largest};
  float *vT = free + 6 * largest, *spare = vT + padded(max_length) * size, *dropped = spare + PADDING * size;
  float *dscore_LL = dropped + QUERIES * padded(max_length);
  const float *probability = probability_S;
  float scale = attention_scale(size);
  for (int64_t h = 0; h < pass->heads; h++) {
    for (int64_t x = 0; x < distances(max_length); x++) {
      const float *query = position_U2E + shard->bucket_X[x] * 2 * hidden + h * size;
      pack(query, 0, 1, size, table.query + x * width);
      pack(query + hidden, 0, 1, size, table.key + x * width);
    }
    memset(table.dquery, 0, (size_t)(2 * all) * sizeof(float));
    for (int64_t r = 0; r < shard->n; r++) {
      int64_t length = shard->cu_seqlens[r + 1] - shard->cu_seqlens[r], keys = padded(length);
      int64_t first_q = shard->cu_seqlens[r] * stride + h * size;
      const float *q = qkv_T3E + first_q, *dcontext = dcontext_TE + shard->cu_seqlens[r] * hidden + h * size;
      float *dq = dqkv_T3E + first_q, *sum = dqkv_3E + h * size;
      pack(q, stride, length, size, seq.q);
      pack(q + hidden, stride, length, size, seq.k);
      transpose(q + 2 * hidden, stride, length, size, spare, vT);
      pack(dcontext, hidden, length, size, seq.dcontext);
      memset(seq.dk, 0, (size_t)(2 * largest) * sizeof(float));
      for (int64_t i = 0; i < length; i += QUERIES)
        score(seq.dcontext, width, vT, 0, 0, i, length, max_length, size, dscore_LL);
      for (int64_t i = 0, count; i < length; i += count) {
        count = i + QUERIES <= length ? QUERIES : 1;
        for (int64_t u = 0; u < count; u++, probability += keys)
          softmax_backward(probability, keys, scale, drop, (uint32_t)(probability - probability_S),
                           dropped + u * keys, dscore_LL + (i + u) * keys);
        if (count == QUERIES)
          score_backward(seq, table, QUERIES, i, length, max_length, width, dropped, dscore_LL);
        else
          score_backward(seq, table, 1, i, length, max_length, width, dropped, dscore_LL);
      }
      unpack(seq.dq, stride, length, size, dq, sum);
      unpack(seq.dk, stride, length, size, dq + hidden, sum + hidden);
      unpack(seq.dv, stride, length, size, dq + 2 * hidden, sum + 2 * hidden);
    }
    for (int64_t x = 0; x < distances(max_length); x++) {
      float *dquery = dposition_U2E + shard->bucket_X[x] * 2 * hidden + h * size, *sum = dqkv_3E + h * size;
#pragma omp simd
      for (int64_t c = 0; c < size; c++) {
        dquery[c] += table.dquery[x * width + c];
        dquery[hidden + c] += table.dkey[x * width + c];
        sum[c] += table.dquery[x * width + c];
        sum[hidden + c] += table.dkey[x * width + c];
      }
    }
  }
}

/* Gradients of queries, keys and values; of the projected position table; and, added to what is there, of the biases,
   which both projections share. */
void attention_backward(const EncoderContext *pass, const Shard *shard, Dropout drop, const float *dcontext_TE,
                        const float *qkv_T3E, const float *position_U2E, const float *probability_S, float *scratch,
                        float *dqkv_T3E, float *dqkv_3E, float *dposition_U2E) {
  memset(dposition_U2E, 0, (size_t)(shard->used * 2 * pass->heads * pass->size) * sizeof(float));
  WITH_SIZE(attention_backward_of, dcontext_TE, qkv_T3E, position_U2E, probability_S, scratch, dqkv_T3E, dqkv_3E,
            dposition_U2E);
}
