"""The course of an experiment on the command line: check, show the plan, make and queue the runs, wait, conclude."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accl.cli.experiment_tables import Shares, conclude, runs_option, show_plan
from accl.cli.output import print_notes, say
from accl.store.rundir import typed_query
from accl.text import counted

if TYPE_CHECKING:
    from accl.config import Config
    from accl.launch.experiment import Speeds
    from accl.launch.plan import Axis, Base, Member

NameOption = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Name of the experiment; made from command, recipe, profile and values when left out.",
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would run, and start nothing.")]


@dataclass(frozen=True)
class Order:
    """Options of an experiment beside its configurations.

    Attributes:
        command: first part of a name that is made.
        based_on: id of the run whose configuration all are based on.
    """

    command: str
    name: str | None
    shares: Shares
    dry_run: bool
    detach: bool
    based_on: str = ""


def carry_out(
    order: Order,
    bases: Sequence[Base],
    axes: Sequence[Axis],
    seeds: Sequence[int],
    overrides: Sequence[str],
    root: Path,
) -> int:
    """Run an experiment, or show what would run, and return the exit code for the command.

    Raises:
        AcclError: a configuration cannot run here, or the folder of the runs cannot be used; no run has been made then.
    """
    from accl.cli.foreground import end_on_signals
    from accl.cli.waiting import INTERRUPT, wait_for
    from accl.launch.experiment import exclusive, make_missing, read_members, submit
    from accl.launch.plan import Action, assign, expand, experiment_name
    from accl.store.experiment import checked_name

    end_on_signals()
    configs, notes = expand(bases, axes, seeds, overrides)
    name = experiment_name(order.command, configs) if order.name is None else checked_name(order.name)
    print_notes(notes)
    steps = checked_steps(configs)
    speeds = read_speeds(root)

    def plan() -> list[Member]:
        existing, problems = read_members(root, name)
        members = assign(configs, existing)
        known = {member.run for member in members}
        if others := sum(each.run not in known for each in existing):
            problems.append(f"{name} has {counted(others, 'more run')}, with other configurations than these.")
        print_notes(problems)
        return members

    if order.dry_run:
        show_plan(f"experiment {name}", plan(), steps, speeds, order.shares)
        return 0
    with exclusive(root):
        members = plan()
        show_plan(f"experiment {name}", members, steps, speeds, order.shares, err=True)
        runs = make_missing(root, name, members, sys.argv, order.based_on)
        submit(root, runs, per_gpu=order.shares.per_gpu, jobs=order.shares.jobs)
    open_ = [run for run, member in zip(runs, members, strict=True) if member.action is not Action.KEEP]
    where = runs_option(root)
    if order.detach:
        if open_:
            say(f"to wait for it: accl wait {typed_query(name)}{where}   to look: accl queue, accl tui", err=True)
        say(name)
        return 0
    code = wait_for(root, open_) if open_ else 0
    if code != INTERRUPT:  # with Ctrl-C there is no end to conclude
        conclude(name, configs, runs, root)
    return code


def checked_steps(configs: Sequence[Config]) -> list[int]:
    """Check that each configuration can run here, and return its number of steps.

    Raises:
        AcclError: one cannot.
    """
    from accl.launch.preflight import check_all

    findings = check_all(configs, lambda words: say(f"{words} …", err=True, style="dim"))
    print_notes(list(dict.fromkeys(note for found in findings for note in found.notes)))
    return [config.train.total_steps(found.training_questions) for config, found in zip(configs, findings, strict=True)]


def read_speeds(root: Path) -> Speeds:
    """Read the speeds of the runs in a folder."""
    from accl.launch.experiment import Speeds
    from accl.store.rundir import run_folders
    from accl.store.summary import summarize

    return Speeds(summarize(run_folders(root)))
