/* Helpers of all kernels, which compute a DeBERTa forward and backward for sequences that lie end to end.

   They are compiled on the machine that they run on (accl.kernels.cpu.compiler), and called without Python's lock. All
   numbers are fp32. Functions named *_backward add the gradients of vectors (biases, gains) to what is there, and write
   over everything else. Loops over neighbouring elements are left to the compiler to vectorise.

   Shapes: T tokens in n sequences of length L, at most max_length; H heads of d, E = H * d; D hidden; U rows of the
   position table in use. */

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
/* Rows of scores and heads are padded to this: a multiple of every LANES. */
#define PADDING 16

/* A vector register; it may be loaded from any float's address. */
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define API __attribute__((visibility("default")))

INLINE int64_t padded(int64_t count) { return (count + PADDING - 1) / PADDING * PADDING; }
INLINE Lanes load(const float *at) { return *(const Lanes *)at; }
INLINE void store(float *at, Lanes value) { *(Lanes *)at = value; }
INLINE int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

/* Transposes 2 x N to N x 2. */
INLINE void interleave(const float *from, int64_t count, float *to) {
#pragma omp simd
  for (int64_t e = 0; e < count; e++) {
    to[2 * e] = from[e];
    to[2 * e + 1] = from[count + e];
  }
}

/* Transposes L x d, with rows `stride` apart, to panels of d x PADDING; the last row is repeated to fill the last
   panel. Each interleaving of halves moves one bit of the row number from the front of an element's index to its end.
   Compilers vectorise that, unlike a plain transposition. */
INLINE void transpose(const float *from, int64_t stride, int64_t length, int64_t size, float *spare, float *to) {
  _Static_assert(PADDING == 16, "four halvings");
  int64_t half = PADDING / 2;
  for (int64_t j0 = 0; j0 < length; j0 += PADDING, to += PADDING * size) {
    for (int64_t j = j0; j < j0 + half; j++) {
      const float *low = from + min_of(j, length - 1) * stride, *high = from + min_of(j + half, length - 1) * stride;
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

/* Address of LANES rows from j on in the panels that `transpose` makes. */
INLINE const float *panel_at(const float *panels, int64_t j, int64_t size) {
  return panels + j / PADDING * PADDING * size + j % PADDING;
}

/* exp(x) for x <= 0 with a relative error of 1e-7; 0 below -87, where it would be a denormal, which is slow. Cephes'
   polynomial. */
INLINE float exp_negative(float x) {
  const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
  float nonzero = x < -87.0f ? 0.0f : 1.0f;
  x = x < -87.0f ? -87.0f : x;
  float shifted = x * 1.44269504f + shift, whole = shifted - shift;
  float r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits = ((int32_t)whole + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return p * power * nonzero;
}

/* Maps the bits of a float to an integer that is ordered as the float is; its own inverse. Compilers vectorise the
   maximum of integers, but not of floats. */
INLINE int32_t ordered(int32_t bits) { return bits ^ (bits >> 31 & INT32_MAX); }

/* Dropout --------------------------------------------------------------------------------------------------------- */

/* Masks are not stored: they are a hash of (seed, dropout_offset, element), computed again in the backward pass. The
   offset numbers the places of dropout in the network. An element is dropped with probability threshold / 2^31, and the
   scale is exact for that probability, so that the mean is kept. */
typedef struct {
  uint32_t key1, key2;
  int32_t threshold;
  float scale;
} Dropout;

/* A bijection of 32 bits in which every bit of the input flips about half of the output's. */
INLINE uint32_t mix(uint32_t x) {
  x ^= x >> 16;
  x *= 0x21F0AAADu;
  x ^= x >> 15;
  x *= 0x735A2D97u;
  return x ^ (x >> 15);
}

INLINE Dropout dropout_at(uint64_t seed, uint32_t dropout_offset, double probability) {
  Dropout drop;
  drop.key1 = mix(mix((uint32_t)seed ^ mix((uint32_t)(seed >> 32))) + dropout_offset * 0x9E3779B1u);
  drop.key2 = mix(drop.key1 + 0x05EBCA6Bu);
  drop.threshold = (int32_t)(probability * 2147483648.0 + 0.5);
  drop.scale = (float)(2147483648.0 / (2147483648.0 - drop.threshold));
  return drop;
}

/* 0 or the scale. One key enters before the rounds of the hash and one between them: with a single one, the mask of
   another offset or seed would be this one with its elements exchanged. */
INLINE float keep_mask(Dropout drop, uint32_t element) {
  if (!drop.threshold) return 1.0f;
  uint32_t x = element ^ drop.key1;
  x ^= x >> 16;
  x *= 0x21F0AAADu;
  x ^= x >> 15;
  x += drop.key2;
  x *= 0x735A2D97u;
  x ^= x >> 15;
  return (int32_t)(x >> 1) >= drop.threshold ? drop.scale : 0.0f;
}
