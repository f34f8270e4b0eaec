"""A training process knows how long each of its phases took."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from accl.training import phases
from accl.training.phases import LOADING_PROGRAM, OPENING_RUN, PhaseClock


class Time:
    """A clock that stands still until it is told."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_phases_add_up_to_the_age_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Time()
    monkeypatch.setattr(phases, "time", now)
    clock = PhaseClock(age=2.0)
    for words, seconds in (
        ("loading libraries", 1.0),
        ("warming up 1/9", 3.0),
        ("warming up 2/9", 4.0),
        ("training", 5.0),
        ("validating", 6.0),
        ("training, no checkpoint can be written", 7.0),
    ):
        clock.enter(words)
        now.now += seconds
    with clock.during("saving"):
        now.now += 8.0
    now.now += 9.0
    assert clock.seconds() == {
        LOADING_PROGRAM: 2.0,
        OPENING_RUN: 0.0,
        "loading libraries": 1.0,
        "warming up": 7.0,
        "training": 21.0,
        "validating": 6.0,
        "saving": 8.0,
    }


def test_a_phase_that_fails_hands_back_to_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = Time()
    monkeypatch.setattr(phases, "time", now)
    clock = PhaseClock(age=0.0)
    clock.enter("training")
    with pytest.raises(OSError, match="full"), clock.during("saving"):
        raise OSError("full")
    now.now += 1.0
    assert clock.seconds()["training"] == 1.0


def test_the_age_of_a_process_counts_from_its_start() -> None:
    code = "import time; from accl.training.phases import process_age; print(process_age(), time.time())"
    before = time.time()
    age, now = map(float, subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert 0 < age < now - before + 0.05


def test_seconds_before_a_run_began_are_those_of_what_it_waited_for() -> None:
    clock = PhaseClock(age=5.0)
    clock.move(3.0, "waiting")
    clock.move(0.0, "nothing")
    seconds = clock.seconds()
    assert (seconds[LOADING_PROGRAM], seconds["waiting"]) == (2.0, 3.0)
    assert "nothing" not in seconds
