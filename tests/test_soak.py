"""The injections of `accl bench soak`, a few of each, and that its comparison of runs finds what differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from accl.bench.runs import finished_run
from accl.bench.soak.equality import measurements
from accl.bench.soak.inputs import examples, feed
from accl.bench.soak.kills import PLAN, kill_runs
from accl.bench.soak.races import race
from accl.store.writer import Recorder
from tui.soak import visit


def test_broken_inputs_are_accepted_or_refused_in_words(tmp_path: Path) -> None:
    counts = feed(tmp_path, 30, seed=1)
    assert list(examples(counts)) == []
    assert counts["accepted"] + counts["refused"] == 30


def test_a_row_that_stands_twice_is_a_difference(tmp_path: Path) -> None:
    run, other = (finished_run(tmp_path, "full", seed, steps=5, questions=4) for seed in (1, 1))
    assert measurements(run) == measurements(other)
    recorder = Recorder(other.database)
    recorder.metrics(5, 0.005, 0.05, {"train/lr": 1.0})
    recorder.close()
    assert {name for name, rows in measurements(run).items() if rows != measurements(other)[name]} == {"metrics"}


async def test_the_visit_of_the_app_opens_the_runs_of_a_group(tmp_path: Path) -> None:
    ids = {finished_run(tmp_path, "full", seed, steps=5, questions=4).id for seed in (1, 2)}
    assert await visit(tmp_path, at_least=2) == ids


@pytest.mark.slow
def test_a_run_that_is_killed_ten_times_ends_equal(tmp_path: Path) -> None:
    kills = kill_runs(tmp_path, 1, seed=1, parallel=1)
    assert kills.unequal == []
    assert (kills.equal, kills.killed.total()) == (1, len(PLAN))


@pytest.mark.slow
def test_of_two_resumes_at_once_one_trains(tmp_path: Path) -> None:
    assert race(tmp_path, 6, seed=1, parallel=2) == {"pairs": 6, "one trainer": 6}
