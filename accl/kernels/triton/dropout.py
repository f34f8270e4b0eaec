"""Dropout masks that are never stored: a hash of (seed, site, element), computed again in the backward pass."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _mix(x):
    """A bijection of 32 bits in which every bit of the input moves about half of the output's."""
    x ^= x >> 16
    x *= 0x21F0AAAD
    x ^= x >> 15
    x *= 0x735A2D97
    return x ^ (x >> 15)


@triton.jit
def keep(seed_ptr, site, element, THRESHOLD: tl.constexpr):
    """Which elements survive a dropout of probability THRESHOLD / 2^31, at one site (place in the network).

    The two keys that seed and site give enter before and between the rounds, so that the mask of another site or
    seed is not this one with its elements exchanged.
    """
    first = _mix((tl.load(seed_ptr) + site).to(tl.uint32))
    second = _mix(first + 0x05EBCA6B)
    x = element.to(tl.uint32) ^ first
    x ^= x >> 16
    x *= 0x21F0AAAD
    x ^= x >> 15
    x += second
    x *= 0x735A2D97
    x ^= x >> 15
    return (x >> 1) >= THRESHOLD


def threshold(probability: float) -> int:
    """The THRESHOLD of a dropout probability below 1."""
    return round(probability * 2**31)


def site(number: int) -> int:
    """Spreads the numbers of sites over 31 bits, so that neighbouring seeds and sites do not meet."""
    return (number * 0x9E3779B1) % 2**31
