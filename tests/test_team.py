"""Threads that share out work: results in order, errors passed on, nothing left behind."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest
import torch

from accl.data.hub import cache_folder
from accl.kernels.cpu.native import load
from accl.kernels.cpu.team import Partner, Team


def threads() -> int:
    gc.collect()  # teams of earlier tests
    return len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads by /proc")
def test_a_team_has_a_thread_less_than_its_size_and_ends_them_with_itself() -> None:
    kernels, before = load(cache_folder()), threads()
    teams = [Team(size, kernels) for size in (1, 2, 5)]
    assert threads() == before + 0 + 1 + 4
    teams.clear()
    assert threads() == before


def test_two_things_are_done_at_once_each_in_a_thread_of_its_own() -> None:
    together = threading.Barrier(2)

    def work() -> int:
        together.wait(30)  # both at once, or never
        return threading.get_ident()

    partner = Partner()
    for _ in range(2):
        one, other = partner.both(work, work)
        assert one == threading.get_ident() != other


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_is_raised_after_both_have_ended_and_the_partner_goes_on(failing: int) -> None:
    partner, ended = Partner(), []

    def work(item: int) -> None:
        if item == failing:
            raise KeyError(item)
        ended.append(item)

    for _ in range(2):
        with pytest.raises(KeyError, match=str(failing)):
            partner.both(lambda: work(0), lambda: work(1))
    assert ended == [1 - failing] * 2
    assert partner.both(lambda: 1, lambda: 2) == (1, 2)


def test_gradients_are_followed_in_both_threads() -> None:
    x = torch.ones(1, requires_grad=True)
    one, other = Partner().both(lambda: 2 * x, lambda: 3 * x)
    (one + other).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [5.0]


def test_a_partner_ends_with_who_asks() -> None:
    before = set(threading.enumerate())
    partner = Partner()
    (own,) = set(threading.enumerate()) - before
    del partner
    own.join(30)
    assert not own.is_alive()
