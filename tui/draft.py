"""New runs before they are started: what a filled-in form means, whether it can be, and how long it will take.

Everything here may block on the disk, and is called in threads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accl.config import Config, difference, resolve, resolve_like
from accl.config.explain import explain
from accl.errors import ConfigError
from accl.launch import process, queue
from accl.launch.experiment import Speeds, exclusive, make_missing, read_members, submit
from accl.launch.plan import SEED, Action, Base, Member, assign, expand, experiment_name, makespan, read_seeds
from accl.launch.preflight import check_all
from accl.store.config_values import config_value
from accl.store.rundir import RunDir
from accl.store.summary import Summary
from tui.actions import reap
from tui.form import Form

# Keys beside its length on which the number of steps of a run depends.
LENGTH = ("data.source", "data.path", "data.protocol", "data.split_seed", "train.batch_size")


@dataclass(frozen=True)
class Draft:
    """The runs that a form describes.

    Attributes:
        experiment: name of the experiment that several runs are; empty for one.
        members: what would be done, in the order in which it would be.
        changed: by dotted key the values of recipe and profile, or of the run that these are like, and the new ones.
        notes: what there is to say about what was filled in.
        seconds: how long all of it will take, one after the other; NaN if unknown.
    """

    experiment: str
    members: Sequence[Member]
    changed: Mapping[str, tuple[Any, Any]]
    notes: Sequence[str]
    seconds: float

    @property
    def config(self) -> Config:
        """Configuration of the first run."""
        return self.members[0].config


def draft(root: Path, form: Form, summaries: Sequence[Summary] = ()) -> Draft:
    """Resolve a form, with what the folder of the runs has of it already.

    Args:
        summaries: runs by whose speeds the time is estimated.

    Raises:
        ConfigError: something of it is no valid configuration.
        RunError: the folder, or the run that these are like, cannot be read.
    """
    base = _base(form)
    unchanged = base([])
    seeds = read_seeds(form.seeds, counted=False) if form.seeds else (unchanged.config.train.seed,)
    configs, notes = expand([base], [], seeds, form.words)
    name, members = "", [Member(config, Action.TRAIN) for config in configs]
    if len(configs) > 1:
        name = experiment_name("train", configs)
        existing, problems = read_members(root, name)
        members, notes = assign(configs, existing), [*notes, *problems]
    changed = {key: values for key, values in difference(unchanged.config, configs[0]).items() if key != SEED}
    return Draft(name, members, changed, notes, _seconds(members, summaries))


def _base(form: Form) -> Base:
    if (run := form.like) is None:
        return partial(resolve, form.recipe, form.profile or None)
    return partial(resolve_like, run.config_text(), run.config)


def _seconds(members: Sequence[Member], summaries: Sequence[Summary]) -> float:
    speeds = Speeds(summaries)
    each = []
    for member in members:
        steps = _steps(member.config, summaries)
        seconds = speeds.seconds(member, steps) if steps else None
        if seconds is None:
            return math.nan
        each.append(seconds)
    return makespan(each, 1)


def _steps(config: Config, summaries: Sequence[Summary]) -> int:
    """Return the number of steps of a run, by that of one on the same questions where it depends on them; 0 if unknown.

    The questions themselves are not read, which may take long: what is typed is judged at once.
    """
    if config.train.max_steps:
        return config.train.max_steps
    dumped = config.model_dump()
    wanted = {key: dumped[key.partition(".")[0]][key.partition(".")[2]] for key in LENGTH}
    for summary in summaries:
        if summary.state is None or not summary.state.total_steps:
            continue
        values = {key: config_value(summary.config, key) for key in (*LENGTH, "train.epochs", "train.max_steps")}
        same = all(values[key] == ("null" if value is None else value) for key, value in wanted.items())
        epochs = values["train.epochs"]
        if same and values["train.max_steps"] == "null" and isinstance(epochs, float | int) and epochs > 0:
            return max(1, round(summary.state.total_steps * config.train.epochs / epochs))
    return 0


def start(root: Path, form: Form) -> list[RunDir]:
    """Check that what a form describes can run here, make the runs, and start or queue them; return all of them.

    Raises:
        AcclError: something of it cannot run here, and nothing was made; or one cannot be started.
    """
    drafted = draft(root, form)
    check_all([member.config for member in drafted.members], lambda _: None)
    based_on = form.like.id if form.like else ""
    if drafted.experiment:
        with exclusive(root):
            members = draft(root, form).members
            runs = make_missing(root, drafted.experiment, members, form.command, based_on)
            submit(root, runs)
        return runs
    run = process.prepare(root, drafted.config, form.command, based_on=based_on)
    if form.queued:
        queue.enqueue(root, [run])
    else:
        reap(process.start(run))
    return [run]


def about(changes: str) -> str:
    """Explain the key that the last word begins with, in a line; empty if there is no such key."""
    key = changes.rpartition(" ")[2].partition("=")[0]
    try:
        (found,) = explain(key)
    except (ConfigError, ValueError):  # no key, or a section with several
        return ""
    return f"{found.key}: {found.type}. {found.summary}"
