"""Threads that share out work: results in order, errors passed on, nothing left behind."""

from __future__ import annotations

import threading

import pytest
import torch

from accl.fast.team import Team


@pytest.mark.parametrize("size", [1, 2, 4])
def test_results_come_in_the_order_of_the_items_each_from_a_thread_of_its_own(size: int) -> None:
    together = threading.Barrier(size)

    def work(item: int) -> tuple[int, int]:
        together.wait(30)  # all at once, or never
        return item * item, threading.get_ident()

    team = Team(size)
    for count in (size, size):
        found = team.share_out(work, range(count))
        assert [square for square, _ in found] == [i * i for i in range(count)]
        assert len({thread for _, thread in found}) == count
        assert found[0][1] == threading.get_ident()


def test_fewer_items_than_threads_are_taken_as_well() -> None:
    assert Team(3).share_out(str, [7]) == ["7"]
    with pytest.raises(AssertionError):
        Team(1).share_out(str, [1, 2])


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_is_raised_after_all_have_ended_and_the_team_goes_on(failing: int) -> None:
    team, ended = Team(2), []

    def work(item: int) -> None:
        if item == failing:
            raise KeyError(item)
        ended.append(item)

    for _ in range(2):
        with pytest.raises(KeyError, match=str(failing)):
            team.share_out(work, [0, 1])
    assert ended == [1 - failing] * 2
    assert team.share_out(str, [0, 1]) == ["0", "1"]


def test_work_is_done_without_graph_and_autocast_in_every_thread() -> None:
    with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
        found = Team(2).share_out(lambda _: (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")), [0, 1])
    assert found == [(False, False)] * 2


def test_threads_end_with_their_team() -> None:
    before = set(threading.enumerate())
    team = Team(3)
    own = set(threading.enumerate()) - before
    assert len(own) == 2
    del team
    for thread in own:
        thread.join(30)
    assert not any(thread.is_alive() for thread in own)


@pytest.mark.parametrize(("total", "size", "multiple"), [(100, 3, 16), (5, 4, 16), (64, 2, 16), (7, 7, 1), (1, 3, 1)])
def test_ranges_cover_everything_once(total: int, size: int, multiple: int) -> None:
    found = Team(size).ranges(total, multiple)
    assert [i for begin, end in found for i in range(begin, end)] == list(range(total))
    assert len(found) <= size
    assert all(begin % multiple == 0 and begin < end for begin, end in found)
