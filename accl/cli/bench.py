"""`accl bench`: measurements of accl on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accl.cli.completion import complete_profile, complete_recipe
from accl.cli.options import OverridesOption, output_file
from accl.cli.output import Format, FormatOption, emit, say
from accl.cli.table import Table
from accl.config import DEFAULT_PROFILE
from accl.errors import AcclError, TrainingError
from accl.text import counted

if TYPE_CHECKING:
    from accl.bench.report import Report

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Measure accl: its store, app, commands, statistics and training.",
)

_OUTPUT = typer.Option("--output", "-o", parser=output_file, metavar="FILE.json", help="Write the report as JSON too.")
OutputOption = Annotated[Path | None, _OUTPUT]


class Peer(StrEnum):
    """Values of ``--peer``."""

    EAGER = "eager"
    COMPILE = "compile"
    SENTENCE_TRANSFORMERS = "sentence-transformers"


_PROFILES = typer.Option(
    "--profile",
    "-p",
    help="Scale and data, as for accl train; may be repeated.  [default: paper]",
    autocompletion=complete_profile,
)
ProfilesOption = Annotated[list[str] | None, _PROFILES]
RepeatOption = Annotated[int, typer.Option("--repeat", min=1, help="Samples of each figure.")]


@app.command()
def store(
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of a run's history.")] = 5000,
    output: OutputOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Measure what recording and following a run cost, and count lost rows.

    Recording is measured alone, and while another process reads the database all the time.

    Example:

      accl bench store --steps 1000 --output store.json
    """
    from accl.bench.store import measure

    _report(measure, output, format, "store", steps=steps)


@app.command()
def soak(
    minutes: Annotated[float, typer.Option("--minutes", min=0, help="Of trainers and readers side by side.")] = 10,
    seeds: Annotated[int, typer.Option("--seeds", min=0, help="Each adds 100 kills, 334 races and 3,334 inputs.")] = 3,
    only: Annotated[
        str, typer.Option("--only", metavar="A,B", help="Parts: damages, inputs, races, kills, load; all if left out.")
    ] = "",
    output: OutputOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Inject faults into real runs, and count what survives: kills, races, damage, broken inputs, busy readers.

    The default takes more than an hour on two cores.

    Example:

      accl bench soak --minutes 1 --seeds 1 --only kills,load --output soak.json
    """
    from accl.bench.soak.measure import measure

    _report(measure, output, format, "soak", minutes=minutes, seeds=seeds, only=only)


@app.command()
def tui(
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of the runs on which keys are pressed.")] = 5000,
    runs: Annotated[
        int, typer.Option("--runs", min=1, help="Runs in the list; fewer make all parts smaller, without targets.")
    ] = 1000,
    repeat: RepeatOption = 3,
    only: Annotated[
        str,
        typer.Option("--only", metavar="A,B", help="Parts: list, idle, live, long, keys, compare; all if left out."),
    ] = "",
    output: OutputOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Measure what the app costs: CPU, memory, bytes to the terminal. Fails where a target is missed.

    The app runs on a terminal of 160x45, in a process of its own for each part.

    Example:

      accl bench tui --runs 50 --steps 1000 --repeat 1 --only list,keys --output tui.json
    """
    from accl.bench.app import measure_app

    report = _report(measure_app, output, format, "tui", steps=steps, runs=runs, repeat=repeat, only=only)
    _check_targets(report, "A busy machine needs more: look at its load.")


@app.command()
def cli(
    runs: Annotated[int, typer.Option("--runs", min=3, help="Runs in the runs folder.")] = 100,
    repeat: RepeatOption = 10,
    output: OutputOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Measure commands from their start to their exit.

    Example:

      accl bench cli --runs 1000 --repeat 3 --output cli.json --format md
    """
    from accl.bench.commands import measure_commands

    _report(measure_commands, output, format, "cli", runs=runs, repeat=repeat)


@app.command()
def statistics(
    experiments: Annotated[int, typer.Option("--experiments", min=1, help="Simulated experiments per setting.")] = 1000,
    questions: Annotated[
        int, typer.Option("--questions", min=100, help="Test questions of each; 14042 is official MMLU's number.")
    ] = 1589,
    output: OutputOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Simulate experiments whose truth is known, and count how often compare is right. Fails where a target is missed.

    Coverage is the share of 95 % intervals that hold the true difference,
    a false positive any significant difference where there is none, under
    2 to 10 seeds whose true difference varies with a standard deviation
    of 0 to 1.5 points. McNemar's test, Student's t and Wilson's interval
    are held against scipy where it is installed. It takes about two
    minutes of one core.

    Example:

      accl bench statistics --experiments 200 --questions 14042 --output statistics.json
    """
    from accl.bench.statistics import measure

    report = _report(measure, output, format, "statistics", experiments=experiments, questions=questions)
    _check_targets(report, "Fewer than 1,000 experiments miss targets by chance: look at the errors.")


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(help="What accl trains; the peers train baseline.", autocompletion=complete_recipe)
    ] = "baseline",
    profile: ProfilesOption = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Encoder, as model.name; may be repeated. The profile's own when left out.",
        ),
    ] = None,
    overrides: OverridesOption = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a timed window.")] = 200,
    warmup: Annotated[int, typer.Option(min=1, help="Untimed steps before the first window.")] = 30,
    rounds: Annotated[int, typer.Option(min=0, help="Timed windows of each candidate; 0 for whole runs alone.")] = 3,
    backends: Annotated[
        str, typer.Option("--backends", "--paths", metavar="A,B", help="Values of train.backend for accl.")
    ] = "auto",
    arms: Annotated[str, typer.Option(metavar="A,B", help="Recipes to time in turns, and what tracking costs.")] = "",
    peer: Annotated[
        list[Peer] | None,
        typer.Option(help="Trainer as it is or with torch_compile=True, sentence-transformers' one; may be repeated."),
    ] = None,
    compile_warmup: Annotated[
        int, typer.Option(min=1, metavar="STEPS", help="Untimed steps of a compiled peer, at least.")
    ] = 1,
    limit: Annotated[
        float, typer.Option(metavar="SECONDS", help="For building and warming up, for a window, and for a whole run.")
    ] = 300,
    min_tokens: Annotated[int, typer.Option(metavar="N", help="Leave shorter training questions out.")] = 0,
    together: Annotated[bool, typer.Option("--together", help="Time two processes of accl at once as well.")] = False,
    apart: Annotated[
        bool,
        typer.Option("--apart", help="One candidate after the other: no turns, but memory for one at a time."),
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Take whole runs of accl as well, from the command to its end.")
    ] = False,
    output: OutputOption = None,
) -> None:
    """Measure training steps, in turns with transformers' Trainer on the same questions, and whole runs.

    Every --model is measured under every --profile, one after the other. What fails is a row with its
    reason, and the command then fails when it has measured the others.

    Examples:

      accl bench train baseline --profile demo --peer eager --steps 100

      accl bench train -p demo --arms baseline,full --warmup 50 --rounds 5 --together --output train.json

      accl bench train -p demo --backends reference,cpu --set train.batch_size=32 --apart --limit 600

      accl bench train -p demo --peer compile --compile-warmup 100 --min-tokens 20

      accl bench train -p minilm --set data.path=mmlu --model random:bert-base --model all-MiniLM-L6-v2 --peer eager

      accl bench train -p demo --peer eager --peer sentence-transformers

      accl bench train full -p demo --rounds 0 --whole
    """
    given = {key: value for key, value in locals().items() if key not in ("model", "profile")}
    from accl.bench.train import Options, failures, measure
    from accl.cli.reports import report_tables

    if together and apart:
        raise typer.BadParameter("--together and --apart exclude each other.")
    if not (rounds or whole):
        raise typer.BadParameter("--rounds 0 measures nothing without --whole.")
    read = {
        "models": list(dict.fromkeys(model or [])),
        "profiles": list(dict.fromkeys(profile or [DEFAULT_PROFILE])),
        "overrides": overrides or [],
        "backends": _names(backends),
        "arms": _names(arms),
        "peer": [str(name) for name in peer or []],
        "output": None if output is None else str(output),
    }
    report = measure(Options(**{**given, **read}))
    _print(report, report_tables([report]), output)
    if failed := failures(report):
        raise TrainingError(f"{counted(len(failed), 'part')} could not be measured: {'; '.join(failed)}")


@app.command()
def table(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.json...", help="Reports written with --output.")],
) -> None:
    """Print reports as one Markdown table, with date, commit, device and versions.

    Example:

      accl bench table store.json cli.json
    """
    from accl.bench.report import Report
    from accl.cli.reports import origins, report_tables

    reports = [Report.read(file) for file in files]
    emit(report_tables(reports), Format.MD, notes=origins(reports))


def _report(
    measure: Callable[..., list[dict[str, Any]]],
    output: Path | None,
    format: Format,
    name: str,
    **settings: float | str,
) -> Report:
    """Measure in a temporary folder, report, and return the report."""
    from accl.bench.report import Report
    from accl.cli.reports import figure_columns

    say("measuring …", err=True)
    with tempfile.TemporaryDirectory(prefix="accl-bench-") as folder:
        report = Report.create(name, settings, measure(Path(folder), **settings))
    _print(report, [Table("", figure_columns(), report.rows, name=name)], output, format)
    return report


def _check_targets(report: Report, hint: str) -> None:
    """Fail where a figure is outside of its target.

    Raises:
        AcclError: one is.
    """
    from accl.bench.report import figure, missed

    if rows := missed(report.rows):
        worst = "; ".join(f"{row['what']}: {figure(row['value'], row['unit'])}" for row in rows)
        raise AcclError(f"{len(rows)} targets missed: {worst}.", hint)


def _print(report: Report, tables: Sequence[Table], output: Path | None, format: Format = Format.TABLE) -> None:
    """Write the report where asked, and print it."""
    from accl.bench.report import origin

    if output is not None:
        report.write(output)
    emit(tables, format, data=report, notes=[origin(report)])


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]
