"""Runs are chosen by their names, or by a query."""

from __future__ import annotations

from pathlib import Path

import pytest
from factory import finished_run

from accl.errors import RunError
from accl.store.rundir import RunDir, find_run
from accl.store.selection import choose_runs


def finished(root: Path, recipe: str = "full", seed: int = 1) -> RunDir:
    return finished_run(root, recipe, seed=seed, curves=False, predictions=False)


def chosen(root: Path, *words: str) -> set[str]:
    return {run.id for run in choose_runs(root, words).runs}


def test_words_are_runs_where_each_names_one_and_otherwise_a_query(tmp_path: Path) -> None:
    names = ("20261122-full-s1-7f3a", "20261123-full-s12-8e4b", "20261124-full-s1-9d5c", "20261125-baseline-s1-1111")
    for number, name in enumerate(names):
        _, recipe, seed, _ = name.split("-")
        run = RunDir(finished(tmp_path, recipe, int(seed[1:])).path.rename(tmp_path / name))
        run.write_json(run.labels, {"name": f"name {number}"})
    first, second, third, fourth = names
    assert chosen(tmp_path, "7f3a", "8e4b") == {first, second}
    assert chosen(tmp_path, "name 1", str(tmp_path / third)) == {second, third}
    assert chosen(tmp_path, "full-s1") == {first, third}  # and not full-s12
    assert chosen(tmp_path, "full", "seed:1") == {first, third}
    assert chosen(tmp_path, "state:finished") == set(names)
    assert chosen(tmp_path, "last") == {find_run(tmp_path, "last").id}
    assert chosen(tmp_path, "baseline", "OR", "8e4b") == {second, fourth}
    with pytest.raises(RunError, match="No run of 4"):
        choose_runs(tmp_path, ["7f3a", "nothing"])


def test_a_run_is_found_by_its_whole_name_before_parts_of_ids(tmp_path: Path) -> None:
    one, other = finished(tmp_path), finished(tmp_path, seed=12)
    for run, name in ((one, "12"), (other, "the other")):
        run.write_json(run.labels, {"name": name})
    assert find_run(tmp_path, "12") == one
    assert find_run(tmp_path, "the other") == other
    assert find_run(tmp_path, other.id) == other
    with pytest.raises(RunError, match="No run named"):
        find_run(tmp_path, "the oth")
    other.write_json(other.labels, {"name": "12"})
    with pytest.raises(RunError, match="2 runs match"):
        find_run(tmp_path, "12")
