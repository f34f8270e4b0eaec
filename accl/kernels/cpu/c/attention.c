/* Attention with DeBERTa's positions. */

#include "kernels.h"
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

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t distances(int64_t longest) { return 2 * longest - 1; }
/* So many that those which belong to the padding of a row can be read as well. */
INLINE int64_t distances_padded(int64_t longest) { return padded(distances(longest) + PADDING); }

/* Floats that a call of attention needs to work in. */
API int64_t attention_scratch(int64_t longest, int64_t size) {
  int64_t table = distances_padded(longest) * padded(size), row = padded(longest) * padded(size);
  return 4 * table + 8 * row + (longest + QUERIES) * padded(longest);
}

/* from: L x d, rows `stride` apart; to: L x padded d. */
INLINE void pack(const float *from, int64_t stride, int64_t length, int64_t size, float *to) {
  int64_t wide = padded(size);
  for (int64_t j = 0; j < length; j++) {
    memcpy(to + j * wide, from + j * stride, (size_t)size * sizeof(float));
    for (int64_t c = size; c < wide; c++) to[j * wide + c] = 0.0f;
  }
}

/* from: 2 x N; to: N x 2. */
INLINE void interleave(const float *from, int64_t count, float *to) {
#pragma omp simd
  for (int64_t e = 0; e < count; e++) {
    to[2 * e] = from[e];
    to[2 * e + 1] = from[count + e];
  }
}

/* from: L x d, rows `stride` apart; to: d x PADDING for every PADDING of them, the last repeated at the end. By
   interleaving halves, which brings one bit of a row's number after another from the front of an element's place to
   its end: the compiler vectorises that, as opposed to a transposition. */
INLINE void turn(const float *from, int64_t stride, int64_t length, int64_t size, float *spare, float *to) {
  _Static_assert(PADDING == 16, "four halvings");
  int64_t half = PADDING / 2;
  for (int64_t j0 = 0; j0 < length; j0 += PADDING, to += PADDING * size) {
    for (int64_t j = j0; j < j0 + half; j++) {
      const float *low = from + least(j, length - 1) * stride, *high = from + least(j + half, length - 1) * stride;
      float *pairs = spare + 2 * (j - j0) * size;
#pragma omp simd
      for (int64_t c = 0; c < size; c++) {
        pairs[2 * c] = low[c];
        pairs[2 * c + 1] = high[c];
      }
    }
    interleave(spare, half * size, to);
    interleave(to, half * size, spare);
    interleave(spare, half * size, to);
  }
}

/* Where LANES of keys begin in what `turn` made. */
INLINE const float *turned(const float *kT, int64_t j, int64_t size) {
  return kT + j / PADDING * PADDING * size + j % PADDING;
}

/* The raw scores of a few queries from i0 on. Past the last query that one is computed again. */
INLINE void score(const float *q, int64_t stride, const float *kT, const float *pkT, const float *pqT, int64_t i0,
                  int64_t length, int64_t longest, int64_t size, float *score_LL) {
  int64_t wide = padded(length), apart = distances_padded(longest), i[QUERIES];
  for (int u = 0; u < QUERIES; u++) i[u] = least(i0 + u, length - 1);
  for (int64_t j = 0; j < wide; j += LANES) {
    Lanes sum[QUERIES] = {{0.0f}};
    for (int64_t c = 0; c < size; c++) {
      Lanes k = load(turned(kT, j, size) + c * PADDING);
      for (int u = 0; u < QUERIES; u++) {
        int64_t x = c * apart + longest - 1 - i[u] + j;
        sum[u] += q[i[u] * stride + c] * (k + load(pkT + x));
        sum[u] += k * load(pqT + x);
      }
    }
    for (int u = 0; u < QUERIES; u++) store(score_LL + i[u] * wide + j, sum[u]);
  }
}

/* The sum of all lanes. The compiler, which keeps to the order of a sum, would add one after another. */
INLINE float total(Lanes lanes) {
  typedef float Four __attribute__((vector_size(4 * sizeof(float))));
  Four part[LANES / 4], sum = {0.0f};
  memcpy(part, &lanes, sizeof part);
  for (int p = 0; p < LANES / 4; p++) sum += part[p];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* The softmax of a query's scores in place, 0 in their padding. */
INLINE void softmax(float *score, int64_t length, float scale) {
  int64_t wide = padded(length);
  for (int64_t j = length; j < wide; j++) score[j] = -INFINITY;
  int32_t top = INT32_MIN;
#pragma omp simd reduction(max : top)
  for (int64_t j = 0; j < wide; j++) {
    int32_t bits;
    memcpy(&bits, score + j, sizeof bits);
    bits = ordered(bits);
    top = bits > top ? bits : top;
  }
  float most;
  top = ordered(top);
  memcpy(&most, &top, sizeof most);
#pragma omp simd
  for (int64_t j = 0; j < wide; j++) score[j] = exp_negative(scale * (score[j] - most));
  Lanes sum = {0.0f};
  for (int64_t j = 0; j < wide; j += LANES) sum += load(score + j);
  float share = 1.0f / total(sum);
#pragma omp simd
  for (int64_t j = 0; j < wide; j++) score[j] *= share;
}

/* What a few queries read, as they follow `share`. */
INLINE void read(const float *share, const float *v, int64_t count, int64_t length, int64_t size, int64_t hidden,
                 float *context) {
  int64_t wide = padded(size), keys = padded(length), i[QUERIES];
  for (int u = 0; u < QUERIES; u++) i[u] = least(u, count - 1);
  for (int64_t c = 0; c < size; c += LANES) {
    Lanes sum[QUERIES] = {{0.0f}};
    for (int64_t j = 0; j < length; j++) {
      Lanes value = load(v + j * wide + c);
      for (int u = 0; u < QUERIES; u++) sum[u] += share[i[u] * keys + j] * value;
    }
    for (int u = 0; u < QUERIES; u++)
      memcpy(context + i[u] * hidden + c, &sum[u], (size_t)least(LANES, size - c) * sizeof(float));
  }
}

INLINE void attend(Rows rows, int64_t size, int dropping, Dropout drop, const float *qkv_T3E,
                   const float *position_U2E, float *scratch, float *probability_X, float *context_TE) {
  int64_t hidden = rows.heads * size, stride = 3 * hidden, longest = rows.longest;
  int64_t apart = distances_padded(longest), wide = padded(size);
  float *pkT = scratch, *pqT = pkT + size * apart, *kT = pqT + size * apart;
  float *v = kT + size * padded(longest), *spare = v + longest * wide, *kept = spare + PADDING * size;
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
      turn(q + hidden, stride, length, size, spare, kT);
      pack(q + 2 * hidden, stride, length, size, v);
      for (int64_t i = 0; i < length; i += QUERIES)
        score(q, stride, kT, pkT, pqT, i, length, longest, size, probability);
      for (int64_t i = 0; i < length; i += QUERIES) {
        int64_t count = least(QUERIES, length - i);
        for (int64_t u = 0; u < count; u++) softmax(probability + u * keys, length, rows.scale);
        const float *share = probability;
        if (dropping) {
          uint32_t first = (uint32_t)(probability - probability_X);
#pragma omp simd
          for (int64_t e = 0; e < count * keys; e++) kept[e] = probability[e] * mask(drop, first + (uint32_t)e);
          share = kept;
        }
        read(share, v, count, length, size, hidden, context + i * hidden);
        probability += count * keys;
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
  for (int u = 0; u < QUERIES; u++) i[u] = least(i0 + u, length - 1);
  for (int64_t j = 0; j < wide; j += LANES) {
    Lanes sum[QUERIES] = {{0.0f}};
    for (int64_t c = 0; c < size; c++) {
      Lanes v = load(turned(vT, j, size) + c * PADDING);
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

/* From the gradients of the scores of `count` neighbouring queries to those of all that they and what was read came
   from. From key to key, a distance goes over to the next query: what belongs to it stays in registers meanwhile. */
INLINE void spread(Row row, Table table, const int count, int64_t i0, int64_t length, int64_t longest, int64_t wide,
                   const float *kept, const float *dscore_LL) {
  int64_t keys = padded(length), x0 = longest - 1 - i0;
  const float *dscore = dscore_LL + i0 * keys;
  for (int64_t c = 0; c < wide; c += LANES) {
    Lanes q[QUERIES], dcontext[QUERIES], dq[QUERIES] = {{0.0f}};
    Lanes query[QUERIES], key[QUERIES], dquery[QUERIES], dkey[QUERIES];
    for (int u = 0; u < count; u++) dcontext[u] = load(row.dcontext + (i0 + u) * wide + c);
    for (int64_t j = 0; j < length; j++) {
      Lanes dv = load(row.dv + j * wide + c);
      for (int u = 0; u < count; u++) dv += kept[u * keys + j] * dcontext[u];
      store(row.dv + j * wide + c, dv);
    }
    for (int u = 0; u < count; u++) q[u] = load(row.q + (i0 + u) * wide + c);
    for (int u = 0; u < count - 1; u++) {
      int64_t x = (x0 - 1 - u) * wide + c;
      query[u] = load(table.query + x), key[u] = load(table.key + x);
      dquery[u] = load(table.dquery + x), dkey[u] = load(table.dkey + x);
    }
    for (int64_t j = 0; j < length; j++) {
      int64_t at = j * wide + c, x = x0 * wide + at, last = x - (count - 1) * wide;
      Lanes k = load(row.k + at), dk = load(row.dk + at);
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
      store(row.dk + at, dk);
      store(table.dquery + last, dquery[count - 1]);
      store(table.dkey + last, dkey[count - 1]);
    }
    for (int u = 0; u < count - 1; u++) {
      int64_t x = (x0 + length - 1 - u) * wide + c;
      store(table.dquery + x, dquery[u]);
      store(table.dkey + x, dkey[u]);
    }
    for (int u = 0; u < count; u++) store(row.dq + (i0 + u) * wide + c, dq[u]);
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

/* From the gradients of a query's probabilities after dropout to those of its scores, in place; and those after
   dropout, again. */
INLINE void unweigh(const float *probability, int64_t keys, float scale, int dropping, Dropout drop, uint32_t first,
                    float *kept, float *dscore) {
#pragma omp simd
  for (int64_t j = 0; j < keys; j++) {
    float share = dropping ? mask(drop, first + (uint32_t)j) : 1.0f;
    dscore[j] *= share;
    kept[j] = share * probability[j];
  }
  Lanes product = {0.0f}, sum = {0.0f};
  for (int64_t j = 0; j < keys; j += LANES) {
    product += load(dscore + j) * load(probability + j);
    sum += load(probability + j);
  }
  /* The sum is 1, up to a rounding that would not average out over queries. */
  float along = total(product) / total(sum);
#pragma omp simd
  for (int64_t j = 0; j < keys; j++) dscore[j] = scale * probability[j] * (dscore[j] - along);
}

INLINE void attend_back(Rows rows, int64_t size, int dropping, Dropout drop, const float *dcontext_TE,
                        const float *qkv_T3E, const float *position_U2E, const float *probability_X, float *scratch,
                        float *dqkv_T3E, float *dinner_3E, float *dposition_U2E, float *dposition_2E) {
  int64_t hidden = rows.heads * size, stride = 3 * hidden, longest = rows.longest, wide = padded(size);
  int64_t all = distances(longest) * wide, most = longest * wide;
  Table table = {scratch, scratch + all, scratch + 2 * all, scratch + 3 * all};
  float *free = scratch + 4 * all;
  Row row = {free, free + most, free + 2 * most, free + 3 * most, free + 4 * most, free + 5 * most};
  float *vT = free + 6 * most, *spare = vT + padded(longest) * size, *kept = spare + PADDING * size;
  float *dscore_LL = kept + QUERIES * padded(longest);
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
      turn(q + 2 * hidden, stride, length, size, spare, vT);
      pack(dcontext, hidden, length, size, row.dcontext);
      memset(row.dk, 0, (size_t)(2 * most) * sizeof(float));
      for (int64_t i = 0; i < length; i += QUERIES) reach(row.dcontext, wide, vT, i, length, size, dscore_LL);
      for (int64_t i = 0, count; i < length; i += count) {
        count = i + QUERIES <= length ? QUERIES : 1;
        for (int64_t u = 0; u < count; u++, probability += keys)
          unweigh(probability, keys, rows.scale, dropping, drop, (uint32_t)(probability - probability_X),
                  kept + u * keys, dscore_LL + (i + u) * keys);
        if (count == QUERIES)
          spread(row, table, QUERIES, i, length, longest, wide, kept, dscore_LL);
        else
          spread(row, table, 1, i, length, longest, wide, kept, dscore_LL);
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
