"""Random configurations: none ends in a traceback, hangs, or is read as something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from accl.bench import fuzz
from accl.bench.fuzz import fuzz_config, generate


@pytest.mark.parametrize("seed", [0, 1])
def test_random_configurations_are_refused_in_words_or_taken_as_typed(seed: int) -> None:
    found = fuzz_config(seed, 300)
    assert found.problems == []
    assert sum(found.accepted.values()) + sum(found.refused.values()) == 300
    assert min(found.accepted["--set"], found.accepted["yaml"], found.refused["--set"], found.refused["yaml"]) > 10


@pytest.mark.slow
def test_ten_thousand_random_configurations() -> None:
    assert fuzz_config(13, 10_000).problems == []


def test_equal_seeds_give_equal_inputs() -> None:
    assert list(generate(3, 50)) == list(generate(3, 50)) != list(generate(4, 50))


def test_a_misread_a_crash_and_a_hang_are_problems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="read as"):
        fuzz._try_item("data.revision=1", _misreading(monkeypatch, tmp_path))
    monkeypatch.undo()
    monkeypatch.setattr(fuzz, "resolve", lambda *_: {}["missing"])
    assert {what for _, _, what in fuzz_config(0, 10).problems} == {"KeyError: 'missing'"}
    from threading import Event

    monkeypatch.setattr(fuzz, "resolve", lambda *_: Event().wait())
    monkeypatch.setattr(fuzz, "DEADLINE_S", 0.05)
    problems = fuzz_config(0, 2).problems
    assert [kind for kind, _, _ in problems] == ["yaml", "--set"]
    assert all(what.startswith("BusyError: There was no answer") for _, _, what in problems)


def _misreading(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Make the reader take text for a number, as YAML does; returns the folder to work in."""
    monkeypatch.setattr(fuzz, "flat", lambda _: {"data.revision": "1.0"})
    return folder
