"""`accl runs`, `accl show` and `accl logs`: what the app shows, as text."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from accl.cli.output import Column, Format, Row, Table, duration, emit, moment, percent
from accl.errors import AcclError
from accl.store.rundir import RunDir, Setup, find_run, list_runs
from accl.store.state import RunState, State, observe

RunsOption = Annotated[Path, typer.Option("--runs", envvar="ACCL_RUNS", help="The folder of the runs.")]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How to print; csv and json hold raw values.")]
RunArgument = Annotated[str, typer.Argument(help="Id, a part of it, a path, or `last`.", show_default=False)]

FOLLOW_EVERY_S = 0.3
# What the trainer sums up at the end of a run.
TOTALS = ("training_seconds", "milliseconds_per_step", "questions_per_second", "peak_gpu_memory_bytes", "tested_step")
# Columns from which a table of runs has room for all its columns beside the ids.
WIDE = 110


def runs(
    format: FormatOption = Format.TABLE,
    runs: RunsOption = Path("runs"),
) -> None:
    """List the runs and what each is doing.

    Newest first. States come from a look at the process: one that was killed shows as crashed.
    """
    rows = [_summary(run) for run in reversed(list_runs(runs))]
    if not rows and format is Format.TABLE:
        Console().print(f"No runs in {runs} yet. Start one:  accl train full --profile demo", highlight=False)
        return
    wide = Console().width >= WIDE or format is not Format.TABLE
    columns = [
        Column("id", "run"),
        Column("state", cell=_state_words),
        *([Column("profile")] if wide else []),
        Column("step", justify="right", cell=lambda row: f"{row['step']:,}/{row['total_steps']:,}"),
        *([Column("eta_seconds", "ETA", justify="right", show=duration)] if wide else []),
        *([Column("train/loss", "loss", justify="right", show=_loss)] if wide else []),
        Column("validation/accuracy", "val", unit="%", justify="right", show=percent),
        Column("test/accuracy", "test", unit="%", justify="right", show=percent),
    ]
    emit(Table("", columns, rows, name="runs"), format)
    if format is Format.TABLE:
        for row in rows:
            if row["reason"] and row["state"] in (State.CRASHED, State.FAILED, State.STALLED):
                Console().print(f"{row['id']}: {row['reason']}", highlight=False, markup=False, style="dim")


def show(run: RunArgument, format: FormatOption = Format.TABLE, runs: RunsOption = Path("runs")) -> None:
    """Show one run: state, newest figures, accuracy by category, events.

    Example:

      accl show last --format json
    """
    from accl.config import load
    from accl.store.reader import Follower

    found = find_run(runs, run)
    summary = _summary(found)
    follower = Follower(found)
    follower.refresh()
    metrics = {name: series.values[-1] for name, series in sorted(follower.series.items()) if series.values}
    categories = _categories(follower)
    events = [{"seconds": e.seconds, "level": e.level, "kind": e.kind, "message": e.message} for e in follower.events]
    floors = {key: float(value) for key, value in follower.meta.items() if key.startswith("floor/")}
    totals = {key: float(follower.meta[key]) for key in TOTALS if key in follower.meta}
    data = {
        **{key: value for key, value in summary.items() if "/" not in key},
        "metrics": metrics,
        "floors": floors,
        "totals": totals,
        "categories": categories,
        "events": events,
        "config": load(found.config).model_dump(),
        "provenance": found.read_json(found.provenance),
    }
    facts = [{"key": key, "value": value} for key, value in _facts(summary, totals, floors).items()]
    tables = [
        Table(found.id, [Column("key", " "), Column("value", " ", wrap=True)], facts, name="run"),
        Table(
            "Newest figures",
            [Column("name"), Column("value", justify="right", show=lambda v: f"{v:.5g}")],
            [{"name": name, "value": value} for name, value in metrics.items()],
        ),
    ]
    if categories:
        columns = [
            Column("split"),
            Column("category"),
            Column("n", "questions", justify="right"),
            Column("accuracy", unit="%", justify="right", show=percent),
        ]
        tables.append(Table("Accuracy by category", columns, categories))
    if events:
        columns = [
            Column("seconds", "at", justify="right", show=duration),
            Column("level"),
            Column("message", wrap=True),
        ]
        tables.append(Table("Events", columns, events))
    emit(tables, format, data=data)


def logs(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing until the run ends.")] = False,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=0, help="Only the last N lines.", show_default=False)
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Print the console log of a run."""
    found = find_run(runs, run)
    if not found.console.exists():
        return
    with open(found.console, encoding="utf-8", errors="replace") as file:
        text = file.read()
        if lines is not None:
            text = "".join(text.splitlines(keepends=True)[len(text.splitlines()) - lines :]) if lines else ""
        typer.echo(text, nl=False)
        while follow:
            # Look first and read second: what was printed before the end is then never missed.
            active = observe(found).state.active
            typer.echo(file.read(), nl=False)
            if not active:
                return
            time.sleep(FOLLOW_EVERY_S)


def _summary(run: RunDir) -> dict[str, Any]:
    """One row about a run; a run that cannot be read says so instead of hiding the others."""
    try:
        setup: Setup | None = run.setup()
        state, problem = observe(run), ""
    except AcclError as error:
        setup, state, problem = None, RunState(State.CRASHED), error.what
    return {
        "id": run.id,
        "state": state.state,
        "reason": problem or state.reason,
        "phase": state.phase,
        "recipe": setup.recipe if setup else None,
        "profile": setup.profile if setup else None,
        "seed": setup.seed if setup else None,
        "step": state.step,
        "total_steps": state.total_steps,
        "eta_seconds": state.left_seconds,
        "started": state.started or None,
        "ended": state.ended or None,
        "host": state.host,
        "pid": state.pid,
        "questions_per_second": state.latest.get("questions_per_second"),
        "train/loss": state.latest.get("train/loss"),
        "validation/accuracy": state.latest.get("validation/accuracy"),
        "test/accuracy": state.latest.get("test/accuracy"),
    }


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _state_words(row: Row) -> str:
    state = State(row["state"])
    busy = row["phase"] if state.active and row["phase"] not in ("", "training") else ""
    return f"{state.icon} {busy or state.value}"


def _facts(summary: dict[str, Any], totals: dict[str, float], floors: dict[str, float]) -> dict[str, Any]:
    state = State(summary["state"])
    facts: dict[str, Any] = {
        "state": f"{state.icon} {state}" + (f": {summary['reason']}" if summary["reason"] else ""),
        "recipe": summary["recipe"],
        "profile": summary["profile"],
        "seed": summary["seed"],
        "step": f"{summary['step']:,}/{summary['total_steps']:,}",
        "started": moment(summary["started"]),
        "questions/s": f"{summary['questions_per_second']:,.0f}" if summary["questions_per_second"] else "–",
    }
    if "training_seconds" in totals:
        facts["training"] = duration(totals["training_seconds"])
        if "milliseconds_per_step" in totals:  # runs of earlier versions do not have it
            facts["training"] += f", {totals['milliseconds_per_step']:.1f} ms/step"
    if "peak_gpu_memory_bytes" in totals:
        facts["peak GPU memory"] = f"{totals['peak_gpu_memory_bytes'] / 2**30:.2f} GiB"
    for split in ("validation", "test"):
        accuracy = summary.get(f"{split}/accuracy")
        if accuracy is not None:
            beside = ", ".join(
                f"{key.rsplit('/', 1)[-1].replace('_', ' ')} {percent(value)} %"
                for key, value in floors.items()
                if key.startswith(f"floor/{split}/")
            )
            facts[f"{split} accuracy"] = f"{percent(accuracy)} %   (floors: {beside})"
    return facts


def _categories(follower: Any) -> list[dict[str, Any]]:
    """Micro accuracy per category of the newest evaluation of each split."""
    rows = []
    for split, (step, n_K, correct_K) in sorted(follower.task_accuracy.items()):
        for category in sorted({task.category for task in follower.tasks}):
            members = [task.index for task in follower.tasks if task.category == category]
            n = int(n_K[members].sum())
            if n:
                accuracy = float(correct_K[members].sum() / n)
                rows.append({"split": split, "step": step, "category": category, "n": n, "accuracy": accuracy})
    return rows
