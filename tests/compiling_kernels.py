"""Kernels for tests of compiling; Triton reads them from a file."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def fill(out, value, BLOCK: tl.constexpr):
    tl.store(out + tl.arange(0, BLOCK), value)


@triton.jit
def fill_as_well(out, value, BLOCK: tl.constexpr):
    tl.store(out + tl.arange(0, BLOCK), value)


@triton.jit
def wrong(out, BLOCK: tl.constexpr):
    tl.static_assert(BLOCK > 128, "wrong")
    tl.store(out + tl.arange(0, BLOCK), 0)
