"""Tables of an experiment: what is going to run, and the arms by their validation once they have run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accl.cli.options import RUNS
from accl.cli.output import SafeConsole, emit, say
from accl.cli.table import MISSING, Column, Row, Table, percent
from accl.errors import AcclError
from accl.store.rundir import RunDir, typed_query
from accl.store.state import RunState, State, observe
from accl.text import duration, listed

if TYPE_CHECKING:
    from accl.analysis.grouping import Arm
    from accl.config import Config
    from accl.launch.experiment import Speeds
    from accl.launch.plan import Member

# By action: title of the column of seeds, and words after a number of runs.
_WORDS = {
    "train": ("to train", "to train"),
    "resume": ("to resume", "to resume"),
    "wait": ("under way", "under way"),
    "keep": ("finished", "finished already"),
}
_CONCLUSION = [
    Column("arm", wrap=True),
    Column("n", justify="right"),
    Column("validation", "", "%", "right", percent),
    Column("sd", "± sd", "", "right", percent),
    Column("test", "", "%", "right", percent),
]


@dataclass(frozen=True)
class Shares:
    """How many runs train at once: in all, None for one on each GPU or one on a CPU; and of one GPU."""

    jobs: int | None = None
    per_gpu: int = 1


def show_plan(
    title: str, members: Sequence[Member], steps: Sequence[int], speeds: Speeds, shares: Shares, err: bool = False
) -> None:
    """Print an arm in a row: which seeds are trained, resumed, waited for and kept, and how long one takes.

    Args:
        steps: number of steps of each member in all.
        err: print on stderr, as beside the result of a command.
    """
    seconds = [speeds.seconds(member, total) for member, total in zip(members, steps, strict=True)]
    rows = []
    for arm in arms_of([member.config for member in members]):
        mine = [members[i] for i in arm.members]
        times = [seconds[i] for i in arm.members if members[i].action != "keep"]
        row: dict[str, object] = {"arm": arm.label, "steps": max(steps[i] for i in arm.members)}
        row |= {action: [member.config.train.seed for member in mine if member.action == action] for action in _WORDS}
        known = [time for time in times if time is not None]
        row |= {"open": len(times), "each": max(known) if known and len(known) == len(times) else None}
        rows.append(row)
    used = [action for action in _WORDS if any(row[action] for row in rows)]
    columns = [
        Column("arm", wrap=True),
        *(Column(action, f"seeds {_WORDS[action][0]}", show=_seeds, wrap=True) for action in used),
        Column("steps", justify="right"),
        Column("each", "time each", "", "right", cell=_time_each),
    ]
    if used == ["keep"]:
        columns = columns[:-2]
    emit(Table(title, columns, rows), console=SafeConsole(err=err))
    counts = {action: sum(member.action == action for member in members) for action in _WORDS}
    words = listed([f"{count} {_WORDS[action][1]}" for action, count in counts.items() if count], "and")
    say(words, *_together(members, seconds, speeds, shares), err=err)


def _time_each(row: Row) -> str:
    return "unknown" if row["each"] is None and row["open"] else duration(row["each"])


def _seeds(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds)) or MISSING


def _together(members: Sequence[Member], seconds: Sequence[float | None], speeds: Speeds, shares: Shares) -> list[str]:
    """Say how long all runs take, by whose speed, and what that leaves out."""
    from accl.launch.gpus import gpus
    from accl.launch.plan import makespan

    open_ = [(m.config, s) for m, s in zip(members, seconds, strict=True) if m.action != "keep"]
    if not open_:
        return []
    times = [time for _, time in open_ if time is not None]
    if len(times) < len(open_):
        return ["how long that takes is unknown: nothing of this profile and encoder has been trained here"]
    cards = max(1, len(gpus())) if any(config.train.device != "cpu" for config, _ in open_) else 1
    places = shares.jobs or cards * shares.per_gpu
    seen = list(dict.fromkeys(speed.run.id for config, _ in open_ if (speed := speeds.find(config)) is not None))
    by_whom = f"at the speed of {seen[0]}{f' and {len(seen) - 1} more' if seen[1:] else ''}"
    if places == 1:
        return [f"about {duration(makespan(times, 1))}, {by_whom}"]
    shared = "; longer where they slow each other down" if places > cards else ""
    return [f"about {duration(makespan(times, places))} with {places} at a time{shared},", by_whom]


def arms_of(configs: Sequence[Config]) -> list[Arm]:
    """Group configurations into arms, told apart by the keys that differ; members are indices."""
    from accl.analysis.grouping import group_runs
    from accl.config import dump

    return group_runs([(config.recipe, config.train.seed, dump(config)) for config in configs])


def conclude(name: str, configs: Sequence[Config], runs: Sequence[RunDir], root: Path) -> None:
    """Print the arms by their mean best validation accuracy over the seeds, and what to type next.

    Args:
        configs, runs: of the members, in the same order; a run that cannot be read any more counts as not finished.
    """
    from statistics import mean, stdev  # here: nothing else on the way needs it

    rows: list[dict[str, Any]] = []
    finished = {i: state for i, run in enumerate(runs) if (state := _finished(run)) is not None}
    for arm in arms_of(configs):
        done = [i for i in arm.members if i in finished]
        best = [value for i in done if (value := finished[i].validated) is not None]
        tests = [value for i in done if (value := finished[i].latest.get("test/accuracy")) is not None]
        rows.append(
            {
                "arm": arm.label,
                "n": len(best),
                "validation": mean(best) if best else None,
                "sd": stdev(best) if best[1:] else None,
                "test": mean(tests) if tests and len(tests) == len(best) else None,
                "untested": [runs[i] for i in done if "test/accuracy" not in finished[i].latest],
            }
        )
    rows.sort(key=lambda row: (row["validation"] is None, -(row["validation"] or 0.0)))
    columns = [column for column in _CONCLUSION if column.key != "test" or any(row["test"] is not None for row in rows)]
    say("", err=True)
    emit(Table(f"{name}: best validation accuracy, mean over n seeds", columns, rows))
    where = runs_option(root)
    if left := len(runs) - len(finished):
        say(f"{left} of {len(runs)} runs have not finished: accl runs {typed_query(name)}{where}", err=True)
    _say_next(name, rows, where)


def _finished(run: RunDir) -> RunState | None:
    """Return the state of a finished run; None of any other."""
    with suppress(AcclError):
        state = observe(run)
        return state if state.state is State.FINISHED else None
    return None


def _say_next(name: str, rows: Sequence[Row], where: str) -> None:
    """Name the next command: a test of the best arm where it is untested, else a comparison of all arms."""
    best = rows[0]
    if best["validation"] is None:
        return
    if best["untested"]:
        ids = " ".join(run.typed for run in best["untested"])
        say(f"best on validation: {best['arm']}", f"to test it: accl test {ids}{where}", err=True)
    elif rows[1:]:
        say(f"to compare them on the test questions: accl compare {shlex.quote(name)}{where}", err=True)


def runs_option(root: Path) -> str:
    """Write the option that names the folder of the runs, for a command that is suggested; empty for the default."""
    default = os.path.abspath(os.path.expanduser(os.environ.get("ACCL_RUNS") or RUNS))
    return "" if os.path.abspath(root) == default else f" --runs {shlex.quote(str(root))}"
