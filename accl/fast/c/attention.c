/* Attention with DeBERTa's positions. */

#include "shared.h"

/* Rows of different lengths and the position table by distance.

   Scores of query i and key j are scale * (q_i k_j + q_i pk_x + k_j pq_x), where pk and pq are keys and queries of the
   position table, and x = j - i + longest - 1 numbers the distances: for one query, j and x run side by side.
   row_X: the row of the table for each x. begin: where each row begins, and the end of the last. */
typedef struct {
  int64_t n, longest, heads, size;
  const int64_t *begin, *row_X;
  float scale;
} Rows;

INLINE int64_t distances(int64_t longest) { return 2 * longest - 1; }
/* So many that those which belong to the padding of a row can be read as well. */
INLINE int64_t distances_padded(int64_t longest) { return padded(distances(longest) + PADDING); }

/* Floats that a call of attention needs to work in. */
API int64_t attention_scratch(int64_t longest, int64_t size) {
  int64_t table = distances_padded(longest) * padded(size), row = padded(longest) * padded(size);
  return 4 * table + 8 * row + (longest + 2) * padded(longest);
}

/* from: L x d, rows `stride` apart; to: L x padded d. */
INLINE void pack(const float *from, int64_t stride, int64_t length, int64_t size, float *to) {
  int64_t wide = padded(size);
  for (int64_t j = 0; j < length; j++) {
    memcpy(to + j * wide, from + j * stride, (size_t)size * sizeof(float));
    for (int64_t c = size; c < wide; c++) to[j * wide + c] = 0.0f;
  }
}

/* from: L x d, rows `stride` apart; to: d x padded L. */
INLINE void turn(const float *from, int64_t stride, int64_t length, int64_t size, float *to) {
  int64_t wide = padded(length);
  for (int64_t c = 0; c < size; c++) {
    for (int64_t j = 0; j < length; j++) to[c * wide + j] = from[j * stride + c];
    for (int64_t j = length; j < wide; j++) to[c * wide + j] = 0.0f;
  }
}

/* The raw scores of a few queries from i0 on. Past the last query that one is computed again. */
INLINE void score(const float *q, int64_t stride, const float *kT, const float *pkT, const float *pqT, int64_t i0,
                  int64_t length, int64_t longest, int64_t size, float *score_LL) {
  int64_t wide = padded(length), apart = distances_padded(longest), i[QUERIES];
  for (int u = 0; u < QUERIES; u++) i[u] = i0 + u < length ? i0 + u : length - 1;
  for (int64_t j = 0; j < wide; j += LANES) {
    Lanes sum[QUERIES] = {{0.0f}};
    for (int64_t c = 0; c < size; c++) {
      Lanes k = load(kT + c * wide + j);
      for (int u = 0; u < QUERIES; u++) {
        int64_t x = c * apart + longest - 1 - i[u] + j;
        sum[u] += q[i[u] * stride + c] * (k + load(pkT + x));
        sum[u] += k * load(pqT + x);
      }
    }
    for (int u = 0; u < QUERIES; u++) store(score_LL + i[u] * wide + j, sum[u]);
  }
}

/* The softmax of a query's scores in place, 0 in their padding. */
INLINE void softmax(float *score, int64_t length, float scale) {
  int64_t wide = padded(length);
  float tops[PADDING], sum = 0.0f;
  for (int64_t j = length; j < wide; j++) score[j] = -INFINITY;
  memcpy(tops, score, sizeof tops);
  for (int64_t j = PADDING; j < wide; j += PADDING)
    for (int l = 0; l < PADDING; l++) tops[l] = score[j + l] > tops[l] ? score[j + l] : tops[l];
  for (int half = PADDING / 2; half > 0; half /= 2)
    for (int l = 0; l < half; l++) tops[l] = tops[l] > tops[l + half] ? tops[l] : tops[l + half];
  float most = tops[0];
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < wide; j++) {
    score[j] = exp_negative(scale * (score[j] - most));
    sum += score[j];
  }
  float share = 1.0f / sum;
#pragma omp simd
  for (int64_t j = 0; j < wide; j++) score[j] *= share;
}

INLINE void attend(Rows rows, int64_t size, int dropping, Dropout drop, const float *qkv_T3E,
                   const float *position_U2E, float *scratch, float *probability_X, float *context_TE) {
  int64_t hidden = rows.heads * size, stride = 3 * hidden, longest = rows.longest;
  int64_t apart = distances_padded(longest), wide = padded(size);
  float *pkT = scratch, *pqT = pkT + size * apart, *kT = pqT + size * apart;
  float *v = kT + size * padded(longest), *kept = v + longest * wide;
  float *probability = probability_X;
  memset(pkT, 0, (size_t)(2 * size * apart) * sizeof(float));
  for (int64_t h = 0; h < rows.heads; h++) {
    for (int64_t x = 0; x < distances(longest); x++) {
      const float *query = position_U2E + rows.row_X[x] * 2 * hidden + h * size, *key = query + hidden;
      for (int64_t c = 0; c < size; c++) {
        pkT[c * apart + x] = key[c];
        pqT[c * apart + x] = query[c];
      }
    }
    for (int64_t r = 0; r < rows.n; r++) {
      int64_t length = rows.begin[r + 1] - rows.begin[r], keys = padded(length);
      const float *q = qkv_T3E + rows.begin[r] * stride + h * size;
      float *context = context_TE + rows.begin[r] * hidden + h * size;
      turn(q + hidden, stride, length, size, kT);
      pack(q + 2 * hidden, stride, length, size, v);
      for (int64_t i = 0; i < length; i += QUERIES)
        score(q, stride, kT, pkT, pqT, i, length, longest, size, probability);
      for (int64_t i = 0; i < length; i++, probability += keys) {
        softmax(probability, length, rows.scale);
        const float *share = probability;
        if (dropping) {
          uint32_t first = (uint32_t)(probability - probability_X);
#pragma omp simd
          for (int64_t j = 0; j < keys; j++) kept[j] = probability[j] * mask(drop, first + (uint32_t)j);
          share = kept;
        }
        for (int64_t c = 0; c < wide; c += LANES) {
          Lanes sum = {0.0f};
          for (int64_t j = 0; j < length; j++) sum += share[j] * load(v + j * wide + c);
          if (c + LANES <= size)
            store(context + i * hidden + c, sum);
          else
            for (int64_t l = c; l < size; l++) context[i * hidden + l] = sum[l - c];
        }
      }
    }
  }
}

/* context_TE: what the heads read. probability_X: of each head and row, L x padded L, before dropout. */
API void attention(const float *qkv_T3E, const float *position_U2E, const int64_t *begin, int64_t n, int64_t longest,
                   const int64_t *row_X, int64_t heads, int64_t size, float scale, uint64_t seed, uint32_t site,
                   double probability, float *scratch, float *probability_X, float *context_TE) {
  Rows rows = {n, longest, heads, size, begin, row_X, scale};
  Dropout drop = dropout_at(seed, site, probability);
  int dropping = drop.threshold > 0;
  if (size == 32) /* known beforehand, the loops over it are laid out flat */
    attend(rows, 32, dropping, drop, qkv_T3E, position_U2E, scratch, probability_X, context_TE);
  else
    attend(rows, size, dropping, drop, qkv_T3E, position_U2E, scratch, probability_X, context_TE);
}

/* dkept_LL = dcontext v, of a few queries as in `score`. */
INLINE void reach(const float *dcontext, int64_t stride, const float *vT, int64_t i0, int64_t length, int64_t size,
                  float *dkept_LL) {
  int64_t wide = padded(length), i[QUERIES];
  for (int u = 0; u < QUERIES; u++) i[u] = i0 + u < length ? i0 + u : length - 1;
  for (int64_t j = 0; j < wide; j += LANES) {
    Lanes sum[QUERIES] = {{0.0f}};
    for (int64_t c = 0; c < size; c++) {
      Lanes v = load(vT + c * wide + j);
      for (int u = 0; u < QUERIES; u++) sum[u] += dcontext[i[u] * stride + c] * v;
    }
    for (int u = 0; u < QUERIES; u++) store(dkept_LL + i[u] * wide + j, sum[u]);
  }
}

/* A row of L as it is read and written on the way back, padded d at a time. */
typedef struct {
  float *q, *k, *dcontext, *dq, *dk, *dv;
} Row;

/* The same of the position table by distance. */
typedef struct {
  float *query, *key, *dquery, *dkey;
} Table;

/* From the gradients of a query's scores to those of all that they and what was read came from. */
INLINE void spread(Row row, Table table, int64_t i, int64_t length, int64_t longest, int64_t wide, const float *kept,
                   const float *dscore) {
  for (int64_t c = 0; c < wide; c += LANES) {
    Lanes q = load(row.q + i * wide + c), dcontext = load(row.dcontext + i * wide + c), dq = {0.0f};
    for (int64_t j = 0; j < length; j++) {
      int64_t at = j * wide + c, x = (longest - 1 - i) * wide + at;
      Lanes k = load(row.k + at);
      dq += dscore[j] * (k + load(table.key + x));
      store(row.dk + at, load(row.dk + at) + dscore[j] * (q + load(table.query + x)));
      store(row.dv + at, load(row.dv + at) + kept[j] * dcontext);
      store(table.dkey + x, load(table.dkey + x) + dscore[j] * q);
      store(table.dquery + x, load(table.dquery + x) + dscore[j] * k);
    }
    store(row.dq + i * wide + c, dq);
  }
}

/* to: L x d, rows `stride` apart; their sum is added to `sum`. */
INLINE void unpack(const float *from, int64_t stride, int64_t length, int64_t size, float *to, float *sum) {
  int64_t wide = padded(size);
  for (int64_t j = 0; j < length; j++)
#pragma omp simd
    for (int64_t c = 0; c < size; c++) {
      to[j * stride + c] = from[j * wide + c];
      sum[c] += from[j * wide + c];
    }
}

INLINE void attend_back(Rows rows, int64_t size, int dropping, Dropout drop, const float *dcontext_TE,
                        const float *qkv_T3E, const float *position_U2E, const float *probability_X, float *scratch,
                        float *dqkv_T3E, float *dinner_3E, float *dposition_U2E, float *dposition_2E) {
  int64_t hidden = rows.heads * size, stride = 3 * hidden, longest = rows.longest, wide = padded(size);
  int64_t all = distances(longest) * wide, most = longest * wide;
  Table table = {scratch, scratch + all, scratch + 2 * all, scratch + 3 * all};
  float *free = scratch + 4 * all;
  Row row = {free, free + most, free + 2 * most, free + 3 * most, free + 4 * most, free + 5 * most};
  float *vT = free + 6 * most, *kept = vT + padded(longest) * size, *dscore_LL = kept + padded(longest);
  const float *probability = probability_X;
  for (int64_t h = 0; h < rows.heads; h++) {
    for (int64_t x = 0; x < distances(longest); x++) {
      const float *query = position_U2E + rows.row_X[x] * 2 * hidden + h * size;
      pack(query, 0, 1, size, table.query + x * wide);
      pack(query + hidden, 0, 1, size, table.key + x * wide);
    }
    memset(table.dquery, 0, (size_t)(2 * all) * sizeof(float));
    for (int64_t r = 0; r < rows.n; r++) {
      int64_t length = rows.begin[r + 1] - rows.begin[r], keys = padded(length);
      int64_t first_q = rows.begin[r] * stride + h * size;
      const float *q = qkv_T3E + first_q, *dcontext = dcontext_TE + rows.begin[r] * hidden + h * size;
      float *dq = dqkv_T3E + first_q, *sum = dinner_3E + h * size;
      pack(q, stride, length, size, row.q);
      pack(q + hidden, stride, length, size, row.k);
      turn(q + 2 * hidden, stride, length, size, vT);
      pack(dcontext, hidden, length, size, row.dcontext);
      memset(row.dk, 0, (size_t)(2 * most) * sizeof(float));
      for (int64_t i = 0; i < length; i += QUERIES) reach(row.dcontext, wide, vT, i, length, size, dscore_LL);
      for (int64_t i = 0; i < length; i++, probability += keys) {
        float *dscore = dscore_LL + i * keys, along = 0.0f, whole = 0.0f;
        uint32_t first = (uint32_t)(probability - probability_X);
#pragma omp simd reduction(+ : along, whole)
        for (int64_t j = 0; j < keys; j++) {
          float share = dropping ? mask(drop, first + (uint32_t)j) : 1.0f;
          dscore[j] *= share;
          kept[j] = share * probability[j];
          along += dscore[j] * probability[j];
          whole += probability[j];
        }
        along /= whole; /* 1, up to a rounding that would not average out over queries */
#pragma omp simd
        for (int64_t j = 0; j < keys; j++) dscore[j] = rows.scale * probability[j] * (dscore[j] - along);
        spread(row, table, i, length, longest, wide, kept, dscore);
      }
      unpack(row.dq, stride, length, size, dq, sum);
      unpack(row.dk, stride, length, size, dq + hidden, sum + hidden);
      unpack(row.dv, stride, length, size, dq + 2 * hidden, sum + 2 * hidden);
    }
    for (int64_t x = 0; x < distances(longest); x++) {
      float *dquery = dposition_U2E + rows.row_X[x] * 2 * hidden + h * size, *sum = dposition_2E + h * size;
#pragma omp simd
      for (int64_t c = 0; c < size; c++) {
        dquery[c] += table.dquery[x * wide + c];
        dquery[hidden + c] += table.dkey[x * wide + c];
        sum[c] += table.dquery[x * wide + c];
        sum[hidden + c] += table.dkey[x * wide + c];
      }
    }
  }
}

/* Gradients of queries, keys and values; of the projected position table, of `used` rows; and of the biases of both,
   which may be the same. */
API void attention_back(const float *dcontext_TE, const float *qkv_T3E, const float *position_U2E,
                        const float *probability_X, const int64_t *begin, int64_t n, int64_t longest,
                        const int64_t *row_X, int64_t used, int64_t heads, int64_t size, float scale, uint64_t seed,
                        uint32_t site, double probability, float *scratch, float *dqkv_T3E, float *dinner_3E,
                        float *dposition_U2E, float *dposition_2E) {
  Rows rows = {n, longest, heads, size, begin, row_X, scale};
  Dropout drop = dropout_at(seed, site, probability);
  int dropping = drop.threshold > 0;
  memset(dposition_U2E, 0, (size_t)(used * 2 * heads * size) * sizeof(float));
  if (size == 32)
    attend_back(rows, 32, dropping, drop, dcontext_TE, qkv_T3E, position_U2E, probability_X, scratch, dqkv_T3E,
                dinner_3E, dposition_U2E, dposition_2E);
  else
    attend_back(rows, size, dropping, drop, dcontext_TE, qkv_T3E, position_U2E, probability_X, scratch, dqkv_T3E,
                dinner_3E, dposition_U2E, dposition_2E);
}
