"""The experiment that a run belongs to: a named set of runs that one command made.

The name stands in ``experiment.json`` of every member, so that a copied run still says what it was made for, and a
damaged file costs no more than one member.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from accl.errors import ConfigError, RunError
from accl.store.deadline import DEADLINE_S, each_within
from accl.store.rundir import RunDir
from accl.text import printable

NAME_LIMIT = 100  # characters


def checked_name(name: str) -> str:
    """Return the name of an experiment without blanks around it.

    Raises:
        ConfigError: it is empty, too long, or has characters that no terminal shows.
    """
    name = name.strip()
    if not name or len(name) > NAME_LIMIT or printable(name) != name:
        what = f"{printable(name[:NAME_LIMIT])!r} cannot name an experiment."
        raise ConfigError(what, f"Give one line of at most {NAME_LIMIT} characters, for example: --name weights")
    return name


def read_experiment(run: RunDir) -> str:
    """Return the name of a run's experiment; empty when it belongs to none or the file cannot be read."""
    with suppress(RunError, OSError):
        name = run.read_json(run.experiment).get("name")
        return printable(name[:NAME_LIMIT]) if isinstance(name, str) else ""
    return ""


def read_experiments(runs: Sequence[RunDir]) -> dict[str, list[RunDir]]:
    """Return the members of every experiment that some runs belong to, in the order of the runs."""
    experiments: dict[str, list[RunDir]] = {}
    for run, name in each_within(DEADLINE_S, read_experiment, runs):
        if name and isinstance(name, str):
            experiments.setdefault(name, []).append(run)
    return experiments


def write_experiment(run: RunDir, name: str) -> None:
    """Make a run a member of an experiment, whose name is valid (`checked_name`)."""
    run.write_json(run.experiment, {"name": name})
