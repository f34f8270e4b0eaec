"""Random configurations: none ends in a traceback, hangs, or is read as something else."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from threading import Event

import pytest

from accl.bench import fuzz
from accl.bench.fuzz import make_input, try_input
from accl.store.deadline import each_within

DEADLINE_S = 5.0  # for one input


@dataclass
class Fuzzed:
    """Outcomes of random inputs by kind, ``--set`` or ``yaml``; problems by kind, input and what went wrong."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[tuple[str, str | bytes, str]] = field(default_factory=list)


def fuzz_config(seed: int, count: int, deadline: float = DEADLINE_S) -> Fuzzed:
    """Try ``count`` random inputs, which depend on the seed and their number alone."""
    found = Fuzzed()
    inputs = [make_input(random.Random(f"{seed}/{number}")) for number in range(count)]
    for (kind, content), outcome in each_within(deadline, lambda case: try_input(case[1]), inputs):
        if isinstance(outcome, BaseException):
            found.problems.append((kind, content, f"{type(outcome).__name__}: {outcome}"))
        else:
            found.outcomes[kind, outcome] += 1
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_random_configurations_are_refused_in_words_or_taken_as_typed(seed: int) -> None:
    found = fuzz_config(seed, 300)
    assert found.problems == []
    assert sum(found.outcomes.values()) == 300
    assert all(found.outcomes[kind, what] > 10 for kind in ("--set", "yaml") for what in ("accepted", "refused"))


@pytest.mark.slow
def test_ten_thousand_random_configurations() -> None:
    assert fuzz_config(13, 10_000).problems == []


def test_an_input_depends_on_its_generator_alone() -> None:
    made = [[make_input(random.Random(seed)) for seed in range(50)] for _ in range(2)]
    assert made[0] == made[1]
    assert {kind for kind, _ in made[0]} == {"--set", "yaml"}
    assert try_input(made[0][0][1]) in ("accepted", "refused")


def test_a_misread_a_crash_and_a_hang_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = fuzz.flat
    # As readers of YAML do: every text that can be a number is one.
    monkeypatch.setattr(fuzz, "flat", lambda config: flat(config) | {"data.revision": "1.0", "train.seed": 8})
    assert all("was read as" in what for _, _, what in fuzz_config(0, 200).problems)
    assert fuzz_config(0, 200).problems
    monkeypatch.setattr(fuzz, "resolve", lambda *_: {}["missing"])
    assert {what for _, _, what in fuzz_config(0, 10).problems} == {"KeyError: 'missing'"}
    monkeypatch.setattr(fuzz, "resolve", lambda *_: Event().wait())
    stuck = fuzz_config(0, 2, deadline=0.05).problems
    assert len(stuck) == 2
    assert all(what.startswith("BusyError: There was no answer") for _, _, what in stuck)
