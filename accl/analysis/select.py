"""From the names a person types to runs that can be compared honestly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from accl.analysis.results import Setup, read_setup
from accl.config import available
from accl.errors import CompareError, ConfigError, RunError
from accl.store.rundir import RunDir, find_run, list_runs
from accl.store.state import State, read_state

EXAMPLE_PROFILE = "demo"  # what to suggest when nothing says which profile is meant


def select_runs(root: Path, names: Sequence[str], profile: str | None = None) -> list[RunDir]:
    """The runs that ``names`` mean, in that order.

    A name is a recipe, or a run id, an unambiguous part of one, ``last`` or a path. Runs chosen by recipe
    share profile, protocol and data: with the first run named by id if there is one, else with the newest
    finished run of the first recipe that has such partners. Among those the same seed is preferred, then the newest.

    Raises:
        CompareError: no finished runs, or none that share their terms.
        RunError: a name is neither a recipe nor a run.
        ConfigError: the configuration of a run named by id is damaged.
    """
    everything = list_runs(root)
    setups, unreadable = _finished(everything)
    recipes = {setup.config.recipe for setup in setups} | set(available("recipes"))
    ids = {run.id for run in everything}
    by_recipe = list(dict.fromkeys(name for name in names if name in recipes and name not in ids))
    named = {name: read_setup(find_run(root, name)) for name in names if name not in by_recipe}
    for setup in named.values():
        if profile not in (None, setup.config.profile):
            raise CompareError(
                f"Run {setup.run.id} has profile {setup.config.profile}, not {profile}.", "Leave --profile out."
            )
    candidates = {
        recipe: [s for s in setups if s.config.recipe == recipe and profile in (None, s.config.profile)]
        for recipe in by_recipe
    }
    taken = {setup.run.id for setup in named.values()}
    for recipe, found in candidates.items():  # an arm beside itself says nothing, where there is another
        candidates[recipe] = [s for s in found if s.run.id not in taken] or found
    anchors = list(named.values())[:1] or (candidates[by_recipe[0]] if by_recipe else [])
    missing = [name for name, found in candidates.items() if not found]
    if missing:
        have = [*anchors, *(setup for found in candidates.values() for setup in found)]
        suggested = profile or (have[0].config.profile if have else EXAMPLE_PROFILE)
        where = f"{root} with profile {profile}" if profile else str(root)
        raise _missing(missing, where, suggested, unreadable)
    chosen = _matching(anchors, candidates) if by_recipe else {}
    return [(named[name] if name in named else chosen[name]).run for name in names]


def _matching(anchors: Sequence[Setup], candidates: dict[str, list[Setup]]) -> dict[str, Setup]:
    """One run for each recipe, on the terms of the newest anchor for which every recipe has a run."""
    for anchor in anchors:
        fitting = {name: [s for s in found if s.terms == anchor.terms] for name, found in candidates.items()}
        if all(fitting.values()):
            seeds = [{s.config.train.seed for s in found} for found in fitting.values()]
            wanted = [a.config.train.seed for a in anchors if a.terms == anchor.terms]
            # The newest seed that every arm has; else each arm comes as near as it can.
            seed = next((seed for seed in wanted if all(seed in had for had in seeds)), wanted[0])
            return {
                name: next((s for s in found if s.config.train.seed == seed), found[0])
                for name, found in fitting.items()
            }
    anchor = anchors[0]
    for name, found in candidates.items():
        if all(setup.terms != anchor.terms for setup in found):
            other = found[0]
            raise CompareError(
                f"No finished run of {name} matches {anchor.run.id}: "
                f"the newest, {other.run.id}, differs in {other.differs_from(anchor)}.",
                f"Train one that does: {anchor.train_command(name, than=other)}",
            )
    raise AssertionError("every recipe has a run on the terms of the first anchor, yet none was chosen")


def _finished(runs: Sequence[RunDir]) -> tuple[list[Setup], int]:
    """Setups of the finished runs, newest first, and how many could not be read: one damaged run, or one that an
    older accl wrote, must not stand in the way of all others."""
    setups, unreadable = [], 0
    for run in reversed(runs):
        try:
            if read_state(run).state is State.FINISHED:
                setups.append(read_setup(run))
        except (RunError, ConfigError):
            unreadable += 1
    return setups, unreadable


def _missing(recipes: Sequence[str], where: str, profile: str, unreadable: int) -> CompareError:
    names = " or ".join([", ".join(recipes[:-1]), recipes[-1]] if len(recipes) > 1 else recipes)
    ignored = f" ({unreadable} unreadable run{'s' * (unreadable > 1)} ignored)" if unreadable else ""
    commands = " && ".join(f"accl train {name} --profile {profile}" for name in recipes)
    return CompareError(f"There is no finished run of {names} in {where}{ignored}.", f"Train first: {commands}")
