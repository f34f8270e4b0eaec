"""Which runs of the queue are started in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from accl.config import dump, resolve
from accl.launch.companions import MOST_TOGETHER, Seat, batches, likeness, starting, worth_starting
from accl.launch.places import Place
from accl.store.rundir import RunDir
from accl.store.waiting import Waiting

PLACE = Waiting(0.0, 1.0, per_gpu=4, folder="/here", command=("accl", "ablate"))


def config(recipe: str, *sets: str) -> str:
    return dump(resolve(recipe, "demo", ["train.device=cuda", *sets]).config)


def test_arms_and_seeds_of_one_command_may_share_a_process() -> None:
    one = likeness(PLACE, config("full", "train.seed=1"))
    assert one is not None
    assert likeness(PLACE.changed(position=2.0, since=9.0), config("baseline", "train.seed=2")) == one


@pytest.mark.parametrize(
    ("place", "sets"),
    [
        (PLACE.changed(folder="/there"), ()),
        (PLACE.changed(command=("accl", "sweep")), ()),
        (PLACE.changed(per_gpu=3), ()),
        (PLACE.changed(jobs=3), ()),
        (PLACE, ("train.device=auto",)),
    ],
)
def test_what_a_process_has_once_keeps_runs_apart(place: Waiting, sets: tuple[str, ...]) -> None:
    other = likeness(place, config("full", *sets))
    assert other is not None
    assert other != likeness(PLACE, config("full"))


def test_a_run_that_shares_no_gpu_or_launches_kernel_by_kernel_has_a_process_of_its_own() -> None:
    assert likeness(PLACE.changed(per_gpu=1), config("full")) is None
    assert likeness(PLACE, config("full", "train.backend=reference")) is None
    assert likeness(PLACE, config("full", "train.deterministic=true")) is None


def seat(number: int, gpu: str = "GPU-a", like: str = "x") -> Seat:
    return Seat(RunDir(Path(f"/runs/{number}")), PLACE, Place(gpu, gpu), like)


def test_a_process_has_the_runs_of_one_gpu_that_are_alike_in_their_order() -> None:
    seats = [seat(1), seat(2, "GPU-b"), seat(3), seat(4, like="y"), seat(5, "GPU-b")]
    assert batches(seats) == [[seats[0], seats[2]], [seats[1], seats[4]], [seats[3]]]


def test_many_runs_are_spread_evenly_over_as_few_processes_as_hold_them() -> None:
    seats = [seat(number) for number in range(2 * MOST_TOGETHER + 1)]
    found = batches(seats)
    assert len(found) == 3
    assert max(map(len, found)) - min(map(len, found)) <= 1
    assert sorted((each for batch in found for each in batch), key=seats.index) == seats
    assert all(batch == sorted(batch, key=seats.index) for batch in found)


@pytest.mark.parametrize(
    ("count", "beside", "more", "now"),
    [(1, 0, True, True), (1, 3, True, False), (2, 2, True, True), (1, 3, False, True), (4, 0, False, True)],
)
def test_a_free_place_is_filled_once_half_of_them_are_free_or_nobody_else_waits(
    count: int, beside: int, more: bool, now: bool
) -> None:
    assert worth_starting(count, beside, per_gpu=4, more=more) == now


@pytest.mark.parametrize(("count", "started"), [(MOST_TOGETHER, 0), (2 * MOST_TOGETHER, 2)])
def test_half_of_many_places_are_filled_again_by_several_processes(count: int, started: int) -> None:
    waiting = PLACE.changed(per_gpu=3 * MOST_TOGETHER)
    seats = [Seat(RunDir(Path(f"/runs/{n}")), waiting, Place("GPU-a", "GPU-a"), "x") for n in range(count)]
    found = starting(seats, {"GPU-a": waiting.per_gpu - count}, more=True)
    assert [len(batch) for batch in found] == [MOST_TOGETHER] * started
