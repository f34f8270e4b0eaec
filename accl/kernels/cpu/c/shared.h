/* What all kernels share. They compute a DeBERTa, forward and back, for rows that lie end to end.

   Compiled where they run (accl.kernels.cpu.native) and called without Python's lock, so that threads do not wait for one
   another. All numbers are fp32. What is named *_back adds the gradients of vectors (biases, gains) to what is there;
   everything else is written over. Loops over neighbouring elements are left to the compiler to vectorise.

   Shapes: T tokens in n rows of L, the longest of them of `longest`; H heads of d, E = H * d; D hidden; U used rows of
   the position table. */

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
/* What rows of scores and heads are padded to: a multiple of every LANES. */
#define PADDING 16
#define QUERIES 4

/* Wherever a float may lie. */
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define API __attribute__((visibility("default")))

INLINE int64_t padded(int64_t count) { return (count + PADDING - 1) / PADDING * PADDING; }
INLINE Lanes load(const float *at) { return *(const Lanes *)at; }
INLINE void store(float *at, Lanes value) { *(Lanes *)at = value; }

/* exp(x) of x <= 0 to 1e-7 of itself, and 0 below -87, where it would be denormal, which is slow. Cephes' polynomial. */
INLINE float exp_negative(float x) {
  const float shift = 12582912.0f; /* 1.5 * 2^23: what is added to it is rounded to whole numbers */
  float least = x < -87.0f ? 0.0f : 1.0f;
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
  return p * power * least;
}

/* A whole number that is ordered as x is; it is its own inverse. The compiler makes no vectors of the greatest of
   floats. */
INLINE int32_t ordered(int32_t bits) { return bits ^ (bits >> 31 & INT32_MAX); }

/* Dropout --------------------------------------------------------------------------------------------------------- */

/* Masks are never stored: a hash of (seed, site, element), computed again on the way back; a site is a place in the
   network. `threshold` of 2^31 are dropped, and the scale is that of this very share, so that the mean is kept. */
typedef struct {
  uint32_t first, second;
  int32_t threshold;
  float scale;
} Dropout;

/* A bijection of 32 bits in which every bit of the input moves about half of the output's. */
INLINE uint32_t mix(uint32_t x) {
  x ^= x >> 16;
  x *= 0x21F0AAADu;
  x ^= x >> 15;
  x *= 0x735A2D97u;
  return x ^ (x >> 15);
}

INLINE Dropout dropout_at(uint64_t seed, uint32_t site, double probability) {
  Dropout drop;
  drop.first = mix(mix((uint32_t)seed ^ mix((uint32_t)(seed >> 32))) + site * 0x9E3779B1u);
  drop.second = mix(drop.first + 0x05EBCA6Bu);
  drop.threshold = (int32_t)(probability * 2147483648.0 + 0.5);
  drop.scale = (float)(2147483648.0 / (2147483648.0 - drop.threshold));
  return drop;
}

/* 0 or the scale. The keys enter before and between the rounds, so that the mask of another site or seed is not this
   one with its elements exchanged. */
INLINE float mask(Dropout drop, uint32_t element) {
  uint32_t x = element ^ drop.first;
  x ^= x >> 16;
  x *= 0x21F0AAADu;
  x ^= x >> 15;
  x += drop.second;
  x *= 0x735A2D97u;
  x ^= x >> 15;
  return (int32_t)(x >> 1) >= drop.threshold ? drop.scale : 0.0f;
}
