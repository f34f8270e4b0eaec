"""Threads of the C kernels: as many as asked for, and nothing left behind."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from accl.data.cache import cache_folder
from accl.kernels.cpu.native import load
from accl.kernels.cpu.thread_pool import ThreadPool, one_torch_thread


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
