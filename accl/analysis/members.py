"""Selection of the runs of an experiment, whose arms are its configurations without the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from accl.analysis.candidates import untested_gap
from accl.analysis.grouping import Arm, group_runs, in_order
from accl.analysis.results import Setup, Split, read_setup
from accl.analysis.select import SeedSelection, select_runs, shared_seeds
from accl.config import available
from accl.config.renamed import translate_recipe
from accl.errors import CompareError
from accl.store.deadline import DEADLINE_S, each_within
from accl.store.experiment import read_experiments
from accl.store.rundir import RunDir, list_runs
from accl.store.summary import summarize
from accl.store.tested import ACCURACY
from accl.text import listed

LISTED = 8  # arms in a message


class Experiment:
    """The runs of an experiment, or of several that are compared as one."""

    def __init__(self, name: str, runs: Sequence[RunDir], profile: str | None = None) -> None:
        """Read the summaries of the runs, without those of other profiles than ``profile``."""
        self.name = name
        # Whole configurations alone make arms: a damaged one would be an arm of its own, and share no seed with others.
        whole = {run for run, setup in each_within(DEADLINE_S, read_setup, runs) if isinstance(setup, Setup)}
        read = summarize(runs)
        usable = [summary for summary in read if summary.setup and summary.run in whole]
        self.unreadable = len(read) - len(usable)
        self.summaries = [s for s in usable if s.setup and profile in (None, s.setup.profile)]

    @cached_property
    def arms(self) -> dict[str, Arm]:
        """Arms of all runs, by label, in their order: also those without results, which would change labels."""
        arms = group_runs([(s.setup.recipe, s.setup.seed, s.config) for s in self.summaries if s.setup])
        return {arm.label: arm for arm in in_order(arms, [summary.age_key[0] for summary in self.summaries])}

    def finished(self, label: str, *, tested: bool = False) -> dict[int, RunDir]:
        """Return the newest finished run of every seed of an arm, of those that were ``tested`` if that is asked."""
        ended = [s for i in self.arms[label].members if (s := self.summaries[i]).has_finished]
        ended = [s for s in ended if not tested or (s.state and ACCURACY in s.state.latest)]
        return {s.setup.seed: s.run for s in sorted(ended, key=lambda s: s.age_key) if s.setup}

    def unfinished(self, labels: Sequence[str]) -> list[str]:
        """Say how many runs of some arms have not finished; nothing if all have."""
        members = [self.summaries[i] for label in labels for i in self.arms[label].members]
        states = Counter(s.state.state.value if s.state else "unreadable" for s in members if not s.has_finished)
        said = listed([f"{count} {state}" for state, count in states.items()], "and")
        return [f"Left out, not having finished: {said} of the {len(members)} runs of {self.name}."] if states else []


def select_members(
    root: Path, names: Sequence[str], profile: str | None = None, split: Split = "test"
) -> SeedSelection | None:
    """Return the finished runs, of the seeds that all have, of the arms of an experiment that are meant by names.

    A name is that of an experiment, of an arm of one, or what `accl.analysis.select.select_runs` takes. An experiment
    means its arms, in the order of `in_order`: those named beside it, or else all. If a single
    one is named, all others are compared with that.

    Returns:
        None if no name is an experiment or an arm of one.

    Raises:
        CompareError: several experiments have such an arm, or there are no two arms with finished runs.
        RunError: as `select_runs`.
    """
    runs, recipes = list_runs(root), available("recipes")
    known = {run.id for run in runs}
    unknown = [name for name in names if name not in known and translate_recipe(name)[0] not in recipes]
    experiments = read_experiments(runs) if unknown else {}
    wanted = [name for name in dict.fromkeys(unknown) if name in experiments]
    if wanted:
        members = [run for name in wanted for run in experiments[name]]
        experiment = Experiment(listed(wanted, "and"), members, profile)
    elif (found := _with_arms(experiments, unknown, profile)) is not None:
        experiment = found
    else:
        return None
    meant = _meant(names, wanted, list(experiment.arms))
    labels = [name for name in meant if name in experiment.arms]
    own, absent = _results(experiment, labels, split, fewest=2 - (len(meant) - len(labels)))
    arms = {name: own[name] if name in own else _others(root, name, experiment, profile, split) for name in meant}
    arms = {name: of_arm for name, of_arm in arms.items() if of_arm}
    if len(arms) < 2:
        have = f"has finished runs of {next(iter(arms))} alone" if arms else "has no finished run"
        there = listed([*experiment.arms][:LISTED], "and") or "none of this profile"
        raise CompareError(
            f"{experiment.name} {have}, and a comparison needs two arms.",
            f"Its arms are {there}; see what its runs do with: accl runs",
        )
    return shared_seeds(arms, experiment.unreadable, absent)


def _results(
    experiment: Experiment, labels: Sequence[str], split: Split, fewest: int
) -> tuple[dict[str, dict[int, RunDir]], list[str]]:
    """Return the runs of arms by seed, and what they lack.

    Where the split is the test, those that were not tested are left out if at least ``fewest`` arms remain.
    """
    finished = {label: experiment.finished(label) for label in labels}
    absent = experiment.unfinished(labels)
    if empty := [label for label, runs in finished.items() if not runs]:
        absent.append(f"{listed(empty, 'and')} {'have' if empty[1:] else 'has'} no finished run.")
    if split != "test":
        return finished, absent
    tested = {label: experiment.finished(label, tested=True) for label in labels}
    untested = sum(len(finished[label]) - len(runs) for label, runs in tested.items())
    if not untested or sum(map(bool, tested.values())) < max(1, fewest):
        return finished, absent
    return tested, [*absent, untested_gap(untested, "run", experiment.name)]


def _meant(names: Sequence[str], wanted: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return names with those of experiments replaced by labels of their arms, each once."""
    named = [name for name in names if name in labels]
    rest = [] if len(named) > 1 else list(labels)
    meant: list[str] = named if len(named) == 1 and wanted else []
    for name in names:
        meant = [*meant, *(rest if name in wanted else [name])]
    return list(dict.fromkeys(meant))


def _with_arms(
    experiments: Mapping[str, Sequence[RunDir]], labels: Sequence[str], profile: str | None
) -> Experiment | None:
    """Return the experiment that has arms of these labels; None if there is none.

    Raises:
        CompareError: several have.
    """
    read = [Experiment(name, runs, profile) for name, runs in experiments.items()]
    best = max((len(set(labels) & set(e.arms)) for e in read), default=0)
    found = [e for e in read if best and len(set(labels) & set(e.arms)) == best]
    if len(found) > 1:
        arm = next(label for label in labels if label in found[0].arms)
        raise CompareError(
            f"{listed([e.name for e in found], 'and')} have an arm {arm}.",
            "Name the experiment as well, before its arms.",
        )
    return found[0] if found else None


def _others(root: Path, name: str, experiment: Experiment, profile: str | None, split: Split) -> dict[int, RunDir]:
    """Return what is meant by the name of a run or recipe that is no arm of an experiment, by seed.

    A recipe means runs on the terms of the experiment, all with one configuration.
    """
    finished = [summary.run for summary in experiment.summaries if summary.has_finished]
    chosen = select_runs(root, [*(str(run.path) for run in finished[:1]), name], profile, split)
    return chosen.seeds.get(translate_recipe(name)[0]) or {chosen.runs[-1].setup().seed: chosen.runs[-1]}
