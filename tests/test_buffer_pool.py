"""Buffers of the CPU kernels are used again, by one at a time."""

from __future__ import annotations

from accl.kernels.cpu.buffer_pool import BufferPool


def test_a_released_buffer_is_acquired_again_when_it_is_large_enough() -> None:
    pool = BufferPool()
    first = pool.acquire(100)
    assert len(first) >= 100
    pool.release(first)
    assert pool.acquire(110) is first


def test_a_buffer_in_use_is_not_handed_out() -> None:
    pool = BufferPool()
    assert pool.acquire(10).data_ptr() != pool.acquire(10).data_ptr()


def test_a_buffer_that_is_too_small_is_replaced() -> None:
    pool = BufferPool()
    small = pool.acquire(10)
    pool.release(small)
    large = pool.acquire(1000)
    assert len(large) >= 1000
    pool.release(large)
    assert pool.acquire(10) is large
    assert pool.acquire(10) is not small
