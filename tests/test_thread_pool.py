"""Threads for work on a CPU: results in order, errors passed on, nothing left behind."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from accl.data.hub import cache_folder
from accl.kernels.cpu.native import load
from accl.kernels.cpu.thread_pool import BackgroundThread, ThreadPool, one_torch_thread


def threads() -> int:
    gc.collect()  # pools of earlier tests
    return len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads by /proc")
def test_a_pool_has_a_thread_less_than_its_size_and_ends_them_with_itself() -> None:
    kernels, before = load(cache_folder()), threads()
    pools = [ThreadPool(size, kernels) for size in (1, 2, 5)]
    assert threads() == before + 0 + 1 + 4
    pools.clear()
    assert threads() == before


def test_two_callables_run_at_once_each_in_a_thread_of_its_own() -> None:
    together = threading.Barrier(2)

    def work() -> int:
        together.wait(30)  # both at once, or never
        return threading.get_ident()

    background = BackgroundThread()
    for _ in range(2):
        one, other = background.run_concurrently(work, work)
        assert one == threading.get_ident() != other


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_is_raised_after_both_have_ended_and_the_thread_goes_on(failing: int) -> None:
    background, ended = BackgroundThread(), []

    def work(item: int) -> None:
        if item == failing:
            raise KeyError(item)
        ended.append(item)

    for _ in range(2):
        with pytest.raises(KeyError, match=str(failing)):
            background.run_concurrently(lambda: work(0), lambda: work(1))
    assert ended == [1 - failing] * 2
    assert background.run_concurrently(lambda: 1, lambda: 2) == (1, 2)


def test_gradients_are_recorded_in_both_threads() -> None:
    x = torch.ones(1, requires_grad=True)
    one, other = BackgroundThread().run_concurrently(lambda: 2 * x, lambda: 3 * x)
    (one + other).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [5.0]


def test_a_background_thread_ends_with_its_owner() -> None:
    before = set(threading.enumerate())
    background = BackgroundThread()
    (own,) = set(threading.enumerate()) - before
    del background
    own.join(30)
    assert not own.is_alive()


# --- torch's own threads


@pytest.fixture
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def threads_of_a_new_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.usefixtures("_three_threads")
def test_torch_has_one_thread_inside_and_as_many_as_before_afterwards_also_after_an_error() -> None:
    with one_torch_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    with pytest.raises(KeyError), one_torch_thread():
        raise KeyError
    assert (torch.get_num_threads(), threads_of_a_new_thread()) == (3, 3)


@pytest.mark.usefixtures("_three_threads")
def test_torch_has_one_thread_for_each_of_two_callables_and_as_many_as_before_afterwards() -> None:
    background = BackgroundThread()
    for _ in range(2):
        assert background.run_concurrently(torch.get_num_threads, torch.get_num_threads) == (1, 1)
        assert (torch.get_num_threads(), threads_of_a_new_thread()) == (3, 3)
