"""Finished runs, of which comparisons, figures and claims choose, and words for what a choice lacks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from accl.analysis.results import Setup, read_setup
from accl.errors import CompareError
from accl.store.deadline import DEADLINE_S, each_within
from accl.store.experiment import read_experiment
from accl.store.rundir import RunDir, list_runs
from accl.store.state import RunState, State, read_state
from accl.store.tested import ACCURACY
from accl.text import counted, listed

EXAMPLE_PROFILE = "demo"  # of suggested commands, when nothing else names a profile


def finished_runs(runs: Sequence[RunDir]) -> tuple[list[tuple[Setup, RunState]], int]:
    """Return setup and state of the finished ones of some runs, in their order, and how many could not be read.

    One damaged run, or one of an older accl, must not keep all others from being compared.
    """
    answers = [answer for _, answer in each_within(DEADLINE_S, _finished, runs)]
    return [a for a in answers if isinstance(a, tuple)], sum(isinstance(a, BaseException) for a in answers)


def _finished(run: RunDir) -> tuple[Setup, RunState] | None:
    state = read_state(run)
    return (read_setup(run), state) if state.state is State.FINISHED else None


def is_tested(setup: Setup, state: RunState) -> bool:
    """Return whether a finished run has been tested, at its end or later."""
    return setup.config.eval.test or ACCURACY in state.latest


def unreadable_gap(count: int) -> list[str]:
    """Say how many runs could not be read; nothing if all could."""
    gap = f"{counted(count, 'run')} in the folder could not be read and may be missing here; see: accl runs"
    return [gap] if count else []


def untested_gap(count: int, noun: str, of: str) -> str:
    """Say that runs are left out because they were not tested."""
    return f"Left out, not having been tested: {counted(count, noun)} of {of}; accl test RUN... tests them."


def missing_recipes(
    recipes: Sequence[str], root: Path, profile: str | None, other: str | None = None, unreadable: int = 0
) -> CompareError:
    """Make the error for recipes without finished runs, with the commands that train them.

    Args:
        profile: the one that was asked for; ``other`` that of the runs that there are.
    """
    where = f"{root} with profile {profile}" if profile else str(root)
    ignored = f" ({counted(unreadable, 'unreadable run')} ignored)" if unreadable else ""
    commands = " && ".join(f"accl train {name} --profile {profile or other or EXAMPLE_PROFILE}" for name in recipes)
    named = [name for _, name in each_within(DEADLINE_S, read_experiment, list_runs(root)[::-1])]
    if experiment := next((name for name in named if name and isinstance(name, str)), ""):
        commands += f", or name an experiment that is there: {shlex.quote(experiment)}"
    what = f"There is no finished run of {listed(list(recipes), 'or')} in {where}{ignored}."
    return CompareError(what, f"Train first: {commands}")


def nothing_matches(anchor: Setup, candidates: Mapping[str, Sequence[Setup]]) -> CompareError:
    """Make the error for the first recipe none of whose runs, the newest first, is on the terms of a run."""
    recipe, runs = next(each for each in candidates.items() if all(s.terms != anchor.terms for s in each[1]))
    return CompareError(
        f"No finished run of {recipe} matches {anchor.run.id}: "
        f"the newest, {runs[0].run.id}, differs in {runs[0].differs_from(anchor)}.",
        f"Train one that does: {anchor.train_command(recipe, than=runs[0])}",
    )
