"""Dropout masks as a hash of (seed, dropout_offset, element), which the backward pass computes again.

Disentangled attention alone stores its mask, in bits of its scores.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _mix(x):
    """Return a bijective hash of uint32 values; every input bit flips about half of the output bits."""
    x ^= x >> 16
    x *= 0x21F0AAAD
    x ^= x >> 15
    x *= 0x735A2D97
    return x ^ (x >> 15)


@triton.jit
def keep_mask(seed_ptr, dropout_offset, element, THRESHOLD: tl.constexpr):
    """Return which elements survive dropout with probability THRESHOLD / 2^31; booleans in the shape of ``element``.

    The seed and the offset of a dropout in the network give two keys. One enters before and one between the rounds of
    the hash, so that the mask of another offset or seed is not a permutation of this one.

    Args:
        seed_ptr: one int64. dropout_offset: from `dropout_offset`. element: integer index of each element.
    """
    first = _mix((tl.load(seed_ptr) + dropout_offset).to(tl.uint32))
    second = _mix(first + 0x05EBCA6B) * 0x735A2D97  # which x would be multiplied by after this is added
    x = element.to(tl.uint32) ^ first
    x ^= x >> 16
    x *= 0x21F0AAAD
    x ^= x >> 15
    x = x * 0x735A2D97 + second
    x ^= x >> 15
    return x >= 2 * THRESHOLD


@triton.jit
def drop(x, seed_ptr, dropout_offset, element, THRESHOLD: tl.constexpr, KEEP_PROB: tl.constexpr):
    """Return x * keep_mask / KEEP_PROB, in the shape of ``x``; ``x`` itself where THRESHOLD is 0."""
    if THRESHOLD > 0:
        x = tl.where(keep_mask(seed_ptr, dropout_offset, element, THRESHOLD), x * (1 / KEEP_PROB), 0.0)
    return x


def mask_constants(probability: float) -> dict[str, int | float]:
    """Return THRESHOLD and KEEP_PROB, the kernels' constants for a dropout probability below 1."""
    return {"THRESHOLD": round(probability * 2**31), "KEEP_PROB": 1 - probability}


def dropout_offset(index: int) -> int:
    """Spread the indices of a network's dropouts over 31 bits, so that sums of seed and offset do not collide."""
    return (index * 0x9E3779B1) % 2**31
