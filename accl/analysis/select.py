"""Selection of comparable runs by recipe name or run id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accl.analysis.candidates import (
    finished_runs,
    is_tested,
    missing_recipes,
    nothing_matches,
    unreadable_gap,
    untested_gap,
)
from accl.analysis.results import NO_SETTINGS, Setup, Split, read_setup
from accl.config import available, difference
from accl.config.renamed import translate_recipe
from accl.errors import CompareError
from accl.store.deadline import DEADLINE_S, within
from accl.store.rundir import RunDir, find_run, list_runs
from accl.store.state import read_state

_Terms = tuple[tuple[str, ...], int]  # profile, protocol and data; optimizer steps

LISTED_SEEDS = 20  # in a warning


@dataclass(frozen=True)
class Selection:
    """Runs chosen one by one.

    Attributes:
        unreadable: number of runs that were left out because of damage.
        untested: number of runs, by recipe, that are newer than the chosen one and not tested.
        seeds: newest run of every seed that is set up like the chosen one, by recipe.
        other_seeds: seeds that have runs with other settings alone, by recipe.
    """

    runs: tuple[RunDir, ...]
    unreadable: int
    untested: dict[str, int]
    seeds: dict[str, dict[int, RunDir]]
    other_seeds: dict[str, set[int]]

    @property
    def gaps(self) -> list[str]:
        """Warnings about runs that the selection lacks."""
        gaps = [untested_gap(count, "newer run", recipe) for recipe, count in self.untested.items()]
        return gaps + unreadable_gap(self.unreadable)


def select_runs(root: Path, names: Sequence[str], profile: str | None = None, split: Split = "test") -> Selection:
    """Return the runs that ``names`` mean, in that order.

    A name is a recipe, or a run id, an unambiguous part of one, ``last`` or a path. Runs chosen by recipe
    share profile, protocol and data: with the first run named by id if there is one, else with the newest
    finished run of the first recipe that has such partners. Among those the same seed is preferred, then the newest.

    Where the split is the test, a run that has not been tested is chosen for want of another only.

    Raises:
        CompareError: no finished runs, or none that share their terms.
        RunError: a name is neither a recipe nor a run, or the run that it names cannot be read.
    """
    all_runs, names = list_runs(root), _todays(names)
    found, unreadable = finished_runs(all_runs[::-1])
    setups = [setup for setup, _ in found]
    recipes = {setup.config.recipe for setup in setups} | set(available("recipes"))
    ids = {run.id for run in all_runs}
    by_recipe = list(dict.fromkeys(name for name in names if name in recipes and name not in ids))
    named: dict[str, Setup] = {}
    for name in names:
        if name not in by_recipe:
            run = find_run(root, name)
            named[name] = within(DEADLINE_S, partial(read_setup, run))
    for setup in named.values():
        if profile not in (None, had := setup.config.profile):
            raise CompareError(f"Run {setup.run.id} has profile {had}, not {profile}.", "Leave --profile out.")
    named_ids = {setup.run.id for setup in named.values()}
    candidates: dict[str, list[Setup]] = {}
    for recipe in by_recipe:
        options = [s for s in setups if s.config.recipe == recipe and profile in (None, s.config.profile)]
        # An arm is not compared with itself where there is another run.
        options = [s for s in options if s.run.id not in named_ids] or options
        candidates[recipe] = [s for s in options if split != "test" or _is_tested(s)] or options
    anchors = list(named.values())[:1] or (candidates[by_recipe[0]] if by_recipe else [])
    if missing := [name for name, options in candidates.items() if not options]:
        have = [*anchors, *(setup for options in candidates.values() for setup in options)]
        raise missing_recipes(missing, root, profile, have[0].config.profile if have else None, unreadable)
    chosen = _matching(anchors, candidates) if by_recipe else {}
    runs = tuple((named[name] if name in named else chosen[name]).run for name in names)
    untested = {name: _newer_untested(setups, setup) for name, setup in chosen.items()} if split == "test" else {}
    seeds = {name: _other_seeds(setups, setup, split) for name, setup in chosen.items()}
    return Selection(
        runs,
        unreadable if by_recipe else 0,
        {name: count for name, count in untested.items() if count},
        {name: runs for name, (runs, _) in seeds.items()},
        {name: others for name, (_, others) in seeds.items()},
    )


def _is_tested(setup: Setup) -> bool:
    return is_tested(setup, read_state(setup.run))


def _newer_untested(setups: Sequence[Setup], chosen: Setup) -> int:
    """Return how many runs on the terms of a chosen one are newer, and not tested; setups come newest first."""
    newer = setups[: setups.index(chosen)] if chosen in setups else []
    alike = [s for s in newer if (s.config.recipe, s.terms) == (chosen.config.recipe, chosen.terms)]
    return sum(not _is_tested(setup) for setup in alike)


def _other_seeds(setups: Sequence[Setup], chosen: Setup, split: Split) -> tuple[dict[int, RunDir], set[int]]:
    """Return the newest run of every seed that is set up like a chosen one, and the seeds that have others alone."""
    runs, others, terms = {chosen.config.train.seed: chosen.run}, set(), _terms(chosen)
    for setup in setups:
        seed = setup.config.train.seed
        if setup.config.recipe != chosen.config.recipe or seed in runs or _terms(setup) != terms:
            continue
        if split == "test" and not _is_tested(setup):
            continue
        if difference(setup.config, chosen.config).keys() <= NO_SETTINGS:
            runs[seed] = setup.run
        else:
            others.add(seed)
    return runs, others - runs.keys()


@dataclass(frozen=True)
class SeedSelection:
    """Runs of several arms over shared seeds.

    Attributes:
        labels: of the arms: recipes, or what tells those of an experiment apart.
        seeds: S seeds, ascending.
        runs: run of each seed, for each arm in the order of the labels; the newest of each where no seed is shared.
        left_out: seeds of runs on the same terms that other arms lack, by label.
        unreadable: number of runs, of unknown recipe and seed, that could not be read.
        absent: sentences about other runs that the selection lacks.
    """

    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[tuple[RunDir, ...], ...]
    left_out: dict[str, tuple[int, ...]]
    unreadable: int
    absent: tuple[str, ...] = ()

    @property
    def gaps(self) -> list[str]:
        """Warnings about runs that the selection lacks."""
        gaps = [f"Left out for want of partners: {_seeds(seeds)} of {label}." for label, seeds in self.left_out.items()]
        return [*self.absent, *gaps, *unreadable_gap(self.unreadable)]


def _seeds(seeds: Sequence[int]) -> str:
    listed = ", ".join(map(str, seeds))
    return f"{len(seeds)} seeds" if len(seeds) > LISTED_SEEDS else f"seed{'s' * (len(seeds) > 1)} {listed}"


def shared_seeds(
    arms: Mapping[str, Mapping[int, RunDir]], unreadable: int, absent: Sequence[str] = ()
) -> SeedSelection:
    """Return the runs of the seeds that all arms have, given by label and seed; the rest is left out."""
    seeds = tuple(sorted(set.intersection(*map(set, arms.values()))))
    return SeedSelection(
        tuple(arms),
        seeds,
        tuple(
            tuple(runs[seed] for seed in seeds) or (max(runs.values(), key=lambda run: run.age_key),)
            for runs in arms.values()
        ),
        {label: extra for label, runs in arms.items() if (extra := tuple(sorted(set(runs) - set(seeds))))},
        unreadable,
        tuple(absent),
    )


def select_seeds(
    root: Path, recipes: Sequence[str], profile: str | None = None, split: Split = "test"
) -> SeedSelection:
    """Return, for each recipe, its newest finished run of every seed that all recipes share.

    Runs match when profile, protocol, data and the number of steps are equal. Of several such groups with all recipes,
    the one with the most shared seeds is chosen, then the one with the newest run of the first recipe. Where the split
    is the test, a run that has not been tested is chosen for want of another only.

    Raises:
        CompareError: a name is no recipe or comes twice, a recipe has no finished run, or no seed is shared.
    """
    recipes = _todays(recipes)
    found, unreadable = finished_runs(list_runs(root)[::-1])
    setups = [setup for setup, _ in found]
    known = {setup.config.recipe for setup in setups} | set(available("recipes"))
    for name in recipes:
        if name not in known:
            raise CompareError(
                f"{name!r} is not a recipe with runs in {root}.", "Several seeds are gathered by recipe; see: accl runs"
            )
        if recipes.count(name) > 1:
            raise CompareError(f"Recipe {name} was named twice.", "Name every recipe once.")
    # recipe -> (terms, steps) -> seed -> newest run; dicts keep the order of `setups`, newest first.
    grouped: dict[str, dict[_Terms, dict[int, Setup]]] = {name: {} for name in recipes}
    for setup in sorted(setups, key=lambda setup: split == "test" and not _is_tested(setup)):
        if setup.config.recipe in grouped and profile in (None, setup.config.profile):
            by_seed = grouped[setup.config.recipe].setdefault(_terms(setup), {})
            by_seed.setdefault(setup.config.train.seed, setup)
    if missing := [name for name, groups in grouped.items() if not groups]:
        had = next((profile for groups in grouped.values() for (profile, *_), _ in groups), None)
        raise missing_recipes(missing, root, profile, had, unreadable)
    shared = {
        terms: set.intersection(*(set(groups.get(terms, {})) for groups in grouped.values()))
        for terms in grouped[recipes[0]]
    }
    terms = max(shared, key=lambda terms: len(shared[terms]))  # the first of equals
    if not shared[terms]:
        raise _nothing_shared(grouped)
    runs = {name: {seed: setup.run for seed, setup in grouped[name][terms].items()} for name in recipes}
    return shared_seeds(runs, unreadable)


def _todays(names: Sequence[str]) -> list[str]:
    """Return the names with recipes by the names that they have today: an old one means the same arm."""
    return [translate_recipe(name)[0] for name in names]


def _terms(setup: Setup) -> _Terms:
    return (*setup.terms.values(),), read_state(setup.run).step


def _nothing_shared(grouped: dict[str, dict[_Terms, dict[int, Setup]]]) -> CompareError:
    """Suggest what to train so that the newest run of the first recipe has a partner in every arm."""
    first, *others = grouped
    wanted, runs = next(iter(grouped[first].items()))
    seed, anchor = next(iter(runs.items()))
    commands = []
    for name in others:
        if seed not in grouped[name].get(wanted, {}):
            terms, by_seed = next(iter(grouped[name].items()))
            command = f"{anchor.train_command(name, than=next(iter(by_seed.values())))} --seed {seed}"
            commands.append(command + f" --set train.max_steps={wanted[1]}" * (terms[1] != wanted[1]))
    return CompareError(
        "No seed has a finished run of every recipe with equal profile, protocol, data and number of steps.",
        f"Beside {anchor.run.id} train: {' && '.join(commands)}",
    )


def _matching(anchors: Sequence[Setup], candidates: dict[str, list[Setup]]) -> dict[str, Setup]:
    """Choose one run for each recipe, on the terms of the newest anchor for which every recipe has a run."""
    for anchor in anchors:
        fitting = {name: [s for s in options if s.terms == anchor.terms] for name, options in candidates.items()}
        if all(fitting.values()):
            seeds = [{s.config.train.seed for s in options} for options in fitting.values()]
            wanted = [a.config.train.seed for a in anchors if a.terms == anchor.terms]
            # The newest seed that every arm has; otherwise each arm has that seed where it can.
            seed = next((seed for seed in wanted if all(seed in had for had in seeds)), wanted[0])
            return {
                name: next((s for s in options if s.config.train.seed == seed), options[0])
                for name, options in fitting.items()
            }
    raise nothing_matches(anchors[0], candidates)
