"""Runs chosen by recipe, experiment or id, put together as arms with their seeds: what figures and reports show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from accl.analysis.candidates import missing_recipes, nothing_matches
from accl.analysis.grouping import Arm, group_runs, in_order
from accl.analysis.results import Setup, read_setup
from accl.config import available
from accl.config.renamed import translate_recipe
from accl.errors import AcclError, CompareError
from accl.store.deadline import DEADLINE_S, each_within, within
from accl.store.rundir import RunDir, find_run, list_runs
from accl.store.summary import Summary, as_problem, summarize
from accl.text import listed, printable

SHOWN = 3  # ids in a sentence


@dataclass(frozen=True)
class ArmSet:
    """Runs on equal terms (profile, protocol and data) as arms, the reference first.

    Attributes:
        setups, configs: of all runs, and the texts of their ``config.yaml``; the members of ``arms`` index them.
        notes: what was left out, and why.
    """

    setups: tuple[Setup, ...]
    configs: tuple[str, ...]
    arms: tuple[Arm, ...]
    notes: tuple[str, ...]

    @property
    def reference(self) -> str:
        """Label of the arm that the others are compared with."""
        return self.arms[0].label

    @property
    def terms(self) -> str:
        """The terms in words."""
        terms = self.setups[0].terms
        return f"profile {terms['profile']}, protocol {terms['protocol']}, data {terms['data'][:12] or '?'}"

    def seeds(self, arm: Arm) -> list[int]:
        """Return the seeds of an arm's runs, in the order of its members."""
        return [self.setups[i].config.train.seed for i in arm.members]


def choose_armsets(
    root: Path, names: Sequence[str] = (), *, profile: str | None = None, reference: str | None = None
) -> list[ArmSet]:
    """Return the runs that ``names`` mean, one `ArmSet` for each set of equal terms, the newest run's first.

    A recipe means its finished runs of every seed on the terms of the runs named beside it, or else on the newest terms
    on which every recipe named has one. An experiment means its finished members, no name all finished runs. Of
    several runs that differ in nothing, not even the seed, the newest counts. Anything else names one run, as for
    `find_run`, which need not be finished.

    Args:
        profile: take only runs of this profile.
        reference: label of the arm to compare with; that of the first run or recipe named when None, and where
            none is named ``baseline`` or the arm with the oldest run. Of several sets, those that lack it have that.

    Raises:
        CompareError: nothing is chosen, or no such reference.
        RunError: a name means nothing, or a run that was named cannot be read.
    """
    summaries = summarize(list_runs(root))
    finished = [s for s in summaries if s.has_finished]
    meant = _sorted_out(root, names, summaries)
    recipes, experiments, single = meant.recipes, meant.experiments, meant.single
    wanted = [s for s in finished if not names or s.experiment in experiments or _recipe(s) in recipes]
    setups, notes = _read_setups([s.run for s in wanted])
    of_experiment = {s.run: s.experiment for s in wanted}
    setups = [setup for setup in setups if profile in (None, setup.config.profile)]
    if names:
        named = [setup for setup in setups if of_experiment[setup.run] in experiments]
        named += [within(DEADLINE_S, partial(read_setup, run)) for run in single]
        if recipes:
            named += _of_recipes(root, recipes, setups, named, profile)
        setups = [*{setup.run: setup for setup in named}.values()]
    notes += _unfinished(experiments, summaries)
    by_terms: dict[tuple[str, ...], list[Setup]] = {}
    for setup in setups:
        by_terms.setdefault((*setup.terms.values(),), []).append(setup)
    if not by_terms:
        where = f"{root} with profile {profile}" if profile else str(root)
        raise CompareError(f"There is no finished run in {where}.", "See what there is with: accl runs")
    newest = sorted(by_terms.values(), key=lambda group: max(s.run.age_key for s in group), reverse=True)
    found = [_as_arms(group, set(single), meant.order, notes) for group in newest]
    labels = [arm.label for each in found for arm in each.arms]
    if reference is not None and reference not in labels:
        raise CompareError(f"There is no arm {reference!r} to compare with.", f"There is: {listed(labels, 'and')}.")
    return [replace(each, arms=tuple(sorted(each.arms, key=lambda arm: arm.label != reference))) for each in found]


def only_one(chosen: Sequence[ArmSet]) -> ArmSet:
    """Return the one set of runs on equal terms.

    Raises:
        CompareError: there are several.
    """
    if len(chosen) > 1:
        terms = listed([f"{len(each.setups)} with {each.terms}" for each in chosen], "and")
        what = f"The runs differ in their terms, so one figure cannot hold them: {terms}."
        raise CompareError(what, "Name fewer runs, or one profile with --profile.")
    return chosen[0]


@dataclass(frozen=True)
class _Meant:
    """What names mean; ``order`` has the recipes and the ids of single runs in the order in which they were typed."""

    recipes: list[str]
    experiments: list[str]
    single: list[RunDir]
    order: list[str]


def _sorted_out(root: Path, names: Sequence[str], summaries: Sequence[Summary]) -> _Meant:
    ids = {summary.run.id for summary in summaries}
    known = {_recipe(summary) for summary in summaries} | set(available("recipes"))
    made = {summary.experiment for summary in summaries} - {""}
    meant = _Meant([], [], [], [])
    for name in dict.fromkeys(names):
        recipe = translate_recipe(name)[0]
        if recipe in known and name not in ids:
            meant.recipes.append(recipe)
            meant.order.append(recipe)
        elif name in made and name not in ids:
            meant.experiments.append(name)
        else:
            meant.single.append(find_run(root, name))
            meant.order.append(meant.single[-1].id)
    return meant


def _recipe(summary: Summary) -> str | None:
    return translate_recipe(summary.setup.recipe)[0] if summary.setup else None


def _read_setups(runs: Sequence[RunDir]) -> tuple[list[Setup], list[str]]:
    """Read the setups of runs; those that cannot be read are left out, and the notes say why."""
    answers = [*each_within(DEADLINE_S, read_setup, runs)]
    setups = [setup for _, setup in answers if isinstance(setup, Setup)]
    problems = [(run, as_problem(e, run.path)) for run, e in answers if isinstance(e, BaseException)]
    return setups, [left_out(run, problem) for run, problem in problems]


def some_ids(runs: Sequence[RunDir]) -> str:
    """Return the ids of the first runs for a sentence."""
    return listed([run.id for run in runs[:SHOWN]] + ["others"] * (len(runs) > SHOWN), "and")


def left_out(run: RunDir, problem: AcclError) -> str:
    """Say that a run is left out, and why."""
    return f"Left out: {without_path(run, problem)}"


def without_path(run: RunDir, problem: AcclError) -> str:
    """Return what is wrong with a run, with its id in place of its path: who reads it may be on another machine."""
    what = problem.what.replace(f"{printable(str(run.path))}/", "")
    return what if printable(run.id) in what else f"{printable(run.id)}: {what}"


def _unfinished(experiments: Iterable[str], summaries: Sequence[Summary]) -> list[str]:
    notes = []
    for name in experiments:
        others = [s for s in summaries if s.experiment == name and not s.has_finished]
        if others:
            are = "has" if len(others) == 1 else "have"
            ids = some_ids([s.run for s in others])
            notes.append(f"{len(others)} of {name} {are} not finished and {are} no part in this: {ids}.")
    return notes


def _of_recipes(
    root: Path, recipes: Sequence[str], setups: Sequence[Setup], named: Sequence[Setup], profile: str | None
) -> list[Setup]:
    candidates = {name: [s for s in setups if s.config.recipe == name] for name in recipes}
    if missing := [name for name, runs in candidates.items() if not runs]:
        raise missing_recipes(missing, root, profile)
    anchors = list(named) or sorted(candidates[recipes[0]], key=lambda s: s.run.age_key, reverse=True)
    for terms in dict.fromkeys((*anchor.terms.items(),) for anchor in anchors):
        fitting = {name: [s for s in runs if s.terms == dict(terms)] for name, runs in candidates.items()}
        if all(fitting.values()):
            return [setup for runs in fitting.values() for setup in runs]
    raise nothing_matches(anchors[0], {name: runs[::-1] for name, runs in candidates.items()})


def _as_arms(setups: Sequence[Setup], single: set[RunDir], order: Sequence[str], notes: Sequence[str]) -> ArmSet:
    """Group runs on equal terms into arms; a run named by itself stays beside another of the same seed.

    Raises:
        AbsentError, BusyError, DamagedError: a configuration cannot be read any more.
    """
    setups = sorted(setups, key=lambda setup: setup.run.age_key)
    texts = within(DEADLINE_S, lambda: [setup.run.config_text() for setup in setups])
    every = group_runs([(s.config.recipe, s.config.train.seed, text) for s, text in zip(setups, texts, strict=True)])
    newest = {i for arm in every for i in {setups[i].config.train.seed: i for i in arm.members}.values()}
    kept = [i for i, setup in enumerate(setups) if i in newest or setup.run in single]
    place = {i: at for at, i in enumerate(kept)}
    arms = [replace(arm, members=tuple(place[i] for i in arm.members if i in place)) for arm in every]
    if older := [setup.run for i, setup in enumerate(setups) if i not in place]:
        said = "Of runs that differ in nothing, not even the seed, the newest counts. Left out"
        notes = [*notes, f"{said}: {some_ids(older)}."]
    setups, texts = [setups[i] for i in kept], [texts[i] for i in kept]
    if order:
        arms.sort(key=lambda arm: min(map(order.index, _names(arm, setups, order)), default=len(order)))
    else:
        arms = in_order(arms, [setup.run.created for setup in setups])
    return ArmSet(tuple(setups), tuple(texts), tuple(arms), tuple(notes))


def _names(arm: Arm, setups: Sequence[Setup], order: Sequence[str]) -> list[str]:
    """Return the names in ``order`` by which an arm was chosen."""
    ids = {setups[i].run.id for i in arm.members}
    return [name for name in order if name == arm.recipe or name in ids]
