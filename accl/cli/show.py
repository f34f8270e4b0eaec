"""`accl show`: one run as text."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accl.cli.options import RUNS, RunArgument, RunsOption, Split
from accl.cli.output import Format, FormatOption, emit
from accl.cli.questions import LimitOption, QuestionsOption, QuestionSplitOption, show_questions
from accl.cli.runrows import progress, run_row, state_words
from accl.cli.series import SeriesOption, raw_table, show_series
from accl.cli.table import MISSING, Column, Table, fields, moment, number, percent
from accl.errors import AbsentError, BusyError, ConfigError
from accl.store.deadline import within
from accl.store.files import RESTORE
from accl.store.rundir import find_run
from accl.store.schema import PHASE_SECONDS
from accl.store.state import State
from accl.store.summary import as_problem, numbers, summarize
from accl.text import counted, duration

if TYPE_CHECKING:
    from accl.store.measurements import Measurements

SHOW_DEADLINE_S = 15.0  # for each part of a run; a large database on a slow disk takes seconds
# Sums that the trainer records at the end of a run, or the beginnings of their names.
TOTALS = (
    *("training_seconds", "milliseconds_per_step", "questions_per_second", "peak_gpu_memory_bytes", "tested_step"),
    PHASE_SECONDS,
)
CATEGORY_COLUMNS = [
    Column("split"),
    Column("category"),
    Column("n", "questions", justify="right"),
    Column("accuracy", "", "%", "right", percent),
]
QuestionQueryArgument = Annotated[
    list[str] | None, typer.Argument(metavar="QUERY", help="With --questions: show only those that it finds.")
]
EVENT_COLUMNS = [Column("seconds", "at", "", "right", duration), Column("level"), Column("message", wrap=True)]


def show(
    run: RunArgument,
    query: QuestionQueryArgument = None,
    questions: QuestionsOption = False,
    split: QuestionSplitOption = None,
    limit: LimitOption = None,
    series: SeriesOption = None,
    format: FormatOption = Format.TABLE,
    runs: RunsOption = RUNS,
) -> None:
    """Show one run: state, figures, accuracy by category, events.

    With --questions it lists what was asked, and what the run answered:
    those that a QUERY finds, the most confident mistakes first. Keys are
    wrong, right, task, category, id, p, gold, predicted, flip:ARM and
    pair:TASK,TASK; other words are a part of the text.

    With --series it prints every recorded value of a metric. csv is one
    table of raw values: of the series, the questions, or all of the run.

    What cannot be read is said: with exit code 11 when it is busy, 12
    when it is damaged, and 13 when it is absent.

    Examples:

      accl show last --format json

      accl show last --series train/loss --series validation/accuracy -f csv

      accl show last --questions --split validation --limit 40

      accl show last --questions wrong task:physics "p>.5" flip:baseline
    """
    from accl.store.columns import RunReader
    from accl.store.follow import follow
    from accl.store.merge import merge_spool
    from accl.store.tested import count_looks

    chosen = find_run(runs, run)
    if series:
        if questions or split or limit is not None or query:
            raise ConfigError("--series is not for questions.", f"accl show {chosen.typed} --series {series[0]}")
        show_series(chosen, series, format)
        return
    if questions:
        show_questions(chosen, split or Split.TEST, " ".join(query or ()), limit, format)
        return
    if split or limit is not None or query:
        what = "A query, --split and --limit are for --questions."
        raise ConfigError(what, f"accl show {chosen.typed} --questions")
    (summary,) = summarize([chosen])
    problems = [summary.problem] if summary.problem else []

    def attempt(read: Callable[[], Any]) -> Any:
        if any(isinstance(problem, BusyError) for problem in problems):  # the folder does not answer
            return {}
        try:
            return within(SHOW_DEADLINE_S, read)
        except Exception as error:
            problems.append(as_problem(error, chosen.path))
            return {}

    reader = RunReader(chosen)
    attempt(lambda: merge_spool(chosen))
    attempt(lambda: follow(reader, summary.state, ("curves", "tasks", "events")))
    if reader.left_out:
        problems.append(reader.left_out)
    measured = reader.last
    metrics = dict(sorted(measured.newest.items()))
    categories = _categories(measured)
    events = [fields(event, "seconds", "level", "kind", "message") for event in measured.events]
    floors = attempt(lambda: numbers(measured.meta, ("floor/",)))
    totals = attempt(lambda: numbers(measured.meta, TOTALS))
    config = attempt(lambda: chosen.load_config().model_dump())
    provenance = attempt(lambda: chosen.read_json(chosen.provenance))
    if not (provenance or problems):
        problems.append(AbsentError(f"{chosen.provenance} is missing.", RESTORE))
    row = run_row(replace(summary, problem=problems[0] if problems else None))
    data = {key: value for key, value in row.items() if "/" not in key}
    data |= {"metrics": metrics, "floors": floors, "totals": totals, "categories": categories, "events": events}
    looks = count_looks(measured)
    data |= {"test_looks": looks, "config": config, "provenance": provenance}
    overview = [{"key": key, "value": value} for key, value in _overview(row, totals, floors).items()]
    if looks:
        overview.append({"key": "test split", "value": f"looked at {counted(looks, 'time')}"})
    elif row["state"] == State.FINISHED and not problems:
        overview.append({"key": "test split", "value": f"unread; read it with: accl test {chosen.typed}"})
    newest = [{"name": name, "value": value} for name, value in metrics.items()]
    tables = [
        Table(chosen.id, [Column("key", " "), Column("value", " ", wrap=True)], overview, name="run"),
        Table("Newest figures", [Column("name"), Column("value", justify="right", show=number(".5g"))], newest),
        *([Table("Accuracy by category", CATEGORY_COLUMNS, categories)] if categories else []),
        *([Table("Events", EVENT_COLUMNS, events)] if events else []),
    ]
    emit(raw_table(data) if format is Format.CSV else tables, format, data=data)
    if problems:
        raise problems[0]


def _overview(summary: dict[str, Any], totals: dict[str, float], floors: dict[str, float]) -> dict[str, Any]:
    """Return labels and texts that head the description of a run."""
    words = state_words({**summary, "phase": ""})
    speed, reason = summary["questions_per_second"], summary["reason"]
    overview: dict[str, Any] = {
        "state": words + (f": {reason}" if reason else ""),
        **{key: summary[key] for key in ("name", "experiment", "tags", "note") if summary[key]},
        **{key: summary[key] for key in ("recipe", "profile", "seed")},
        "step": progress(summary),
        **_process(summary),
        "started": moment(summary["started"]),
        "questions/s": f"{speed:,.0f}" if speed else MISSING,
    }
    if "training_seconds" in totals:
        step = totals.get("milliseconds_per_step")  # runs of earlier versions do not have it
        speed_words = "" if step is None else f", {step:.1f} ms/step"
        overview["training"] = duration(totals["training_seconds"]) + speed_words
    phases = {key.removeprefix(PHASE_SECONDS): totals[key] for key in totals if key.startswith(PHASE_SECONDS)}
    if phases:
        longest = sorted(phases, key=lambda name: -phases[name])
        overview["time by phase"] = ", ".join(f"{name} {duration(phases[name])}" for name in longest)
    if "peak_gpu_memory_bytes" in totals:
        overview["peak GPU memory"] = f"{totals['peak_gpu_memory_bytes'] / 2**30:.2f} GiB"
    for split in ("validation", "test"):
        start = f"floor/{split}/"
        names = {key: key.removeprefix(start).replace("_", " ") for key in floors if key.startswith(start)}
        beside = ", ".join(f"{name} {percent(floors[key])} %" for key, name in names.items())
        if (accuracy := summary[f"{split}/accuracy"]) is not None:
            overview[f"{split} accuracy"] = f"{percent(accuracy)} %" + (f"   (floors: {beside})" if beside else "")
    return overview


def _process(summary: dict[str, Any]) -> dict[str, str]:
    """Return the process of a run that trains on this machine, and whether it trains others too."""
    from accl.launch.process import shares_process

    pid = summary["pid"]
    if not (pid and summary["state"] and State(summary["state"]).trains and summary["host"] == socket.gethostname()):
        return {}
    return {"process": f"{pid}, shared with other runs" if shares_process(pid) else f"{pid}"}


def _categories(measured: Measurements) -> list[dict[str, Any]]:
    """Return the micro accuracy per category of the newest evaluation of each split."""
    categories: dict[str, list[int]] = {}
    for task in sorted(measured.tasks, key=lambda task: task.category):
        categories.setdefault(task.category, []).append(task.index)
    return [
        {"split": split, "step": step, "category": category, "n": int(n), "accuracy": float(correct_K[tasks].sum() / n)}
        for split, (step, n_K, correct_K) in sorted(measured.task_accuracy.items())
        for category, tasks in categories.items()
        if (n := n_K[tasks].sum())
    ]
