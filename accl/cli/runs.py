"""`accl runs`, `accl show` and `accl logs`: runs as text."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accl.cli.options import RUNS, RunArgument, RunsOption
from accl.cli.output import Format, FormatOption, SafeConsole, emit, print_notes, say
from accl.cli.questions import LimitOption, QuestionsOption, Split, SplitOption, show_questions
from accl.cli.series import SeriesOption, raw_table, show_series
from accl.cli.table import MISSING, Column, Row, Table, duration, fields, moment, number, percent
from accl.errors import AbsentError, BusyError, ConfigError, RunError
from accl.store.deadline import DEADLINE_S, within
from accl.store.files import RESTORE, open_run_file
from accl.store.query import parse
from accl.store.run_subject import RunSubject
from accl.store.rundir import find_run, run_folders
from accl.store.state import State, observe
from accl.store.summary import Summary, SummaryReader, as_problem, numbers, read_summaries
from accl.text import printable_lines, shortened

if TYPE_CHECKING:
    from accl.store.measurements import Measurements

FOLLOW_EVERY_S = 0.3
LOG_BYTES = 4 * 2**20  # at most, from the end of a console log
SHOW_DEADLINE_S = 15.0  # for each part of a run; a large database on a slow disk takes seconds
LATEST = ("questions_per_second", "train/loss", "validation/accuracy", "test/accuracy")
# Sums that the trainer records at the end of a run.
TOTALS = ("training_seconds", "milliseconds_per_step", "questions_per_second", "peak_gpu_memory_bytes", "tested_step")
# Columns of the terminal from which a table of runs has room for all its columns beside the ids.
WIDE = 110
WIDE_ONLY = ("profile", "eta_seconds", "train/loss")
COLUMNS = [
    Column("id", "run"),
    Column("state", cell=lambda row: _state_words(row)),
    Column("profile"),
    Column("step", justify="right", cell=lambda row: _progress(row)),
    Column("eta_seconds", "ETA", "", "right", duration),
    Column("train/loss", "loss", "", "right", number(".3f")),
    Column("validation/accuracy", "val", "%", "right", percent),
    Column("test/accuracy", "test", "%", "right", percent),
]
CATEGORY_COLUMNS = [
    Column("split"),
    Column("category"),
    Column("n", "questions", justify="right"),
    Column("accuracy", "", "%", "right", percent),
]
QueryArgument = Annotated[list[str] | None, typer.Argument(metavar="QUERY", help="Show only the runs that it matches.")]
QuestionQueryArgument = Annotated[
    list[str] | None, typer.Argument(metavar="QUERY", help="With --questions: show only those that it finds.")
]
EVENT_COLUMNS = [Column("seconds", "at", "", "right", duration), Column("level"), Column("message", wrap=True)]


def runs(query: QueryArgument = None, format: FormatOption = Format.TABLE, runs: RunsOption = RUNS) -> None:
    """List the runs and what each is doing.

    The newest run comes first. States come from a look at the process: one that was killed shows as crashed.

    A QUERY shows only some: words that are a part of state, recipe,
    profile, seed or id, and comparisons, joined by blanks (and), OR, NOT
    and round brackets. Keys are state, recipe, profile, seed, id, name,
    tag, note, experiment, step, progress, age, loss, val, test and cfg.KEY
    of the configuration, of which the last part will do (lr); a colon means
    contains. Quote what the shell would take.

    Examples:

      accl runs full s42

      accl runs state:finished "cfg.optim.lr>=1e-4"

      accl runs "(val>30% OR age<2d)" NOT recipe:baseline,contrastive

      accl runs --format json
    """
    text, now = " ".join(query or ()), time.time()
    wanted = parse(text)
    summaries = read_summaries([SummaryReader(run) for run in run_folders(runs)], now)
    matching = [summary for summary in summaries if wanted.matches(RunSubject(summary, now))]
    rows = [_row(summary) for summary in sorted(matching, key=lambda summary: summary.age_key, reverse=True)]
    if summaries and not rows:
        print_notes([f"no run of {len(summaries):,} in {runs} matches: {text}"])
    if not rows and format is Format.TABLE:
        if not summaries:
            say(f"No runs in {runs} yet. Start one:  accl train full --profile demo")
        return
    narrow = format is Format.TABLE and SafeConsole().width < WIDE
    columns = [column for column in COLUMNS if not (narrow and column.key in WIDE_ONLY)]
    emit(Table("", columns, rows, name="runs"), format)
    if format is Format.TABLE:
        for row in rows:
            if row["problem"] or (row["reason"] and row["state"] in (State.CRASHED, State.FAILED, State.STALLED)):
                say(shortened(f"{row['id']}: {row['reason']}"), style="dim")


def show(
    run: RunArgument,
    query: QuestionQueryArgument = None,
    questions: QuestionsOption = False,
    split: SplitOption = None,
    limit: LimitOption = None,
    series: SeriesOption = None,
    format: FormatOption = Format.TABLE,
    runs: RunsOption = RUNS,
) -> None:
    """Show one run: state, newest figures, accuracy by category, events.

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

      accl show last --questions --split validation

      accl show last --questions wrong task:logic "p>.8" flip:baseline
    """
    from accl.store.columns import RunReader
    from accl.store.follow import follow
    from accl.store.merge import merge_spool

    chosen = find_run(runs, run)
    if series:
        if questions or split or limit is not None or query:
            raise ConfigError(
                "--series prints values, not questions.", f"accl show {chosen.typed} --series {series[0]}"
            )
        show_series(chosen, series, format)
        return
    if questions:
        show_questions(chosen, split or Split.TEST, " ".join(query or ()), limit, format)
        return
    if split or limit is not None or query:
        what = "A query, --split and --limit are for --questions."
        raise ConfigError(what, f"accl show {chosen.typed} --questions")
    (summary,) = read_summaries([SummaryReader(chosen)], time.time())
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
    row = _row(replace(summary, problem=problems[0] if problems else None))
    data = {key: value for key, value in row.items() if "/" not in key}
    data |= {"metrics": metrics, "floors": floors, "totals": totals, "categories": categories, "events": events}
    data |= {"config": config, "provenance": provenance}
    overview = [{"key": key, "value": value} for key, value in _overview(row, totals, floors).items()]
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


def logs(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing until the run ends.")] = False,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=0, help="Only the last N lines.")] = None,
    runs: RunsOption = RUNS,
) -> None:
    """Print the console log of a run.

    Example:

      accl logs last --lines 20 --follow
    """
    chosen = find_run(runs, run)
    try:
        descriptor = within(DEADLINE_S, lambda: open_run_file(chosen.console))
    except FileNotFoundError as error:
        raise AbsentError(f"{chosen.id} has no console.log.", f"See: accl show {chosen.typed}") from error
    with open(descriptor, "rb") as file:
        if (size := os.fstat(descriptor).st_size) > LOG_BYTES:
            file.seek(size - LOG_BYTES)
            print_notes([f"only the last {LOG_BYTES // 2**20} MiB of {chosen.console}"])
        *printed, rest = file.read(LOG_BYTES).decode(errors="replace").split("\n")
        say(*map(printable_lines, printed if lines is None else printed[max(0, len(printed) + bool(rest) - lines) :]))
        unknown: RunError | None = None  # why nothing tells whether the run goes on
        while follow:
            # Look first and read second, so that nothing printed before the end is missed.
            try:
                active = observe(chosen).state.active
            except RunError as error:
                active, unknown = False, error
            *printed, rest = (rest + file.read(LOG_BYTES).decode(errors="replace")).split("\n")
            say(*map(printable_lines, printed))
            if not active:
                break
            time.sleep(FOLLOW_EVERY_S)
        if rest and lines != 0:
            say(printable_lines(rest))
        if unknown is not None:
            raise unknown


def _row(summary: Summary) -> dict[str, Any]:
    """Describe a run in one row of raw values, None where they are not known."""
    state, problem = summary.state, summary.problem
    return {
        "id": summary.run.id,
        **fields(state, "state"),
        "reason": problem.what if problem else state.reason if state else "",
        "problem": problem and {"kind": problem.kind, "message": str(problem)},
        **fields(state, "phase"),
        **fields(summary.setup, "recipe", "profile", "seed"),
        **fields(state, "step", "total_steps", eta_seconds="left_seconds"),
        "started": state and (state.started or None),
        "ended": state and (state.ended or None),
        **fields(state, "host", "pid"),
        **{name: state and state.latest.get(name) for name in LATEST},
    }


def _state_words(row: Row) -> str:
    if row["state"] is None:
        return f"? {row['problem']['kind']}"
    state = State(row["state"])
    busy = row["phase"] if state.active and row["phase"] not in ("", "training") else ""
    return f"{state.icon} {busy or state.value}"


def _progress(row: Row) -> str:
    return MISSING if row["step"] is None else f"{row['step']:,}/{row['total_steps']:,}"


def _overview(summary: dict[str, Any], totals: dict[str, float], floors: dict[str, float]) -> dict[str, Any]:
    """Return labels and texts that head the description of a run."""
    words = _state_words({**summary, "phase": ""})
    speed, reason = summary["questions_per_second"], summary["reason"]
    overview: dict[str, Any] = {
        "state": words + (f": {reason}" if reason else ""),
        **{key: summary[key] for key in ("recipe", "profile", "seed")},
        "step": _progress(summary),
        "started": moment(summary["started"]),
        "questions/s": f"{speed:,.0f}" if speed else MISSING,
    }
    if "training_seconds" in totals:
        step = totals.get("milliseconds_per_step")  # runs of earlier versions do not have it
        speed_words = "" if step is None else f", {step:.1f} ms/step"
        overview["training"] = duration(totals["training_seconds"]) + speed_words
    if "peak_gpu_memory_bytes" in totals:
        overview["peak GPU memory"] = f"{totals['peak_gpu_memory_bytes'] / 2**30:.2f} GiB"
    for split in ("validation", "test"):
        start = f"floor/{split}/"
        names = {key: key.removeprefix(start).replace("_", " ") for key in floors if key.startswith(start)}
        beside = ", ".join(f"{name} {percent(floors[key])} %" for key, name in names.items())
        if (accuracy := summary[f"{split}/accuracy"]) is not None:
            overview[f"{split} accuracy"] = f"{percent(accuracy)} %" + (f"   (floors: {beside})" if beside else "")
    return overview


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
