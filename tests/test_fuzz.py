"""Random configurations: none ends in a traceback, hangs, or is read as something else."""

from __future__ import annotations

import random
from threading import Event

import pytest

from accl.bench import fuzz
from accl.bench.fuzz import fuzz_config, make_input, try_config


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
    assert try_config(random.Random(0)) in ("accepted", "refused")


def test_a_misread_a_crash_and_a_hang_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = fuzz.flat
    # As readers of YAML do: every text that can be a number is one.
    monkeypatch.setattr(fuzz, "flat", lambda config: flat(config) | {"data.revision": "1.0", "train.seed": 8})
    assert all("was read as" in what for _, _, what in fuzz_config(0, 200).problems)
    assert fuzz_config(0, 200).problems
    monkeypatch.setattr(fuzz, "resolve", lambda *_: {}["missing"])
    assert {what for _, _, what in fuzz_config(0, 10).problems} == {"KeyError: 'missing'"}
    monkeypatch.setattr(fuzz, "resolve", lambda *_: Event().wait())
    monkeypatch.setattr(fuzz, "DEADLINE_S", 0.05)
    assert all(what.startswith("BusyError: There was no answer") for _, _, what in fuzz_config(0, 2).problems)
    assert len(fuzz_config(0, 2).problems) == 2
