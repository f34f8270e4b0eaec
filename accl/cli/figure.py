"""`accl figure`: figures for a paper, in PDF, SVG or PNG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accl.cli.completion import complete_arm
from accl.cli.options import (
    RUNS,
    OneProfileOption,
    ReferenceOption,
    RunsOption,
    Split,
    SplitOption,
    checked_suffix,
    output_file,
    run_name,
    writing,
)
from accl.cli.output import emit, print_notes, say
from accl.cli.table import Column, Table, text
from accl.text import listed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from accl.analysis.armset import ArmSet

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Draw figures for a paper: curves, weights, confusion and more.",
)
METRICS = ("train/loss", "validation/accuracy")


class Axis(StrEnum):
    """Values of ``--x``."""

    STEP = "step"
    EPOCH = "epoch"
    QUESTIONS = "questions"
    TIME = "time"


_NAMES = typer.Argument(
    parser=run_name,
    metavar="RUN",
    help="Recipes, experiments, run ids or paths; the first is the reference.",
    autocompletion=complete_arm,
)
NamesArgument = Annotated[list[str], _NAMES]
_OUTPUT = typer.Option(
    "--output", "-o", parser=output_file, metavar="FILE", help="Where to write: FILE.pdf, FILE.svg or FILE.png."
)
OutputOption = Annotated[Path, _OUTPUT]
_COLUMNS = typer.Option("--columns", min=1, max=2, help="How many columns of a page it is wide: 3.25 or 6.75 inches.")
ColumnsOption = Annotated[int, _COLUMNS]


@app.command()
def curves(
    names: NamesArgument,
    output: OutputOption,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="What to draw; may be repeated.", show_default=" ".join(METRICS)),
    ] = None,
    x: Annotated[Axis, typer.Option("--x", help="The horizontal axis.")] = Axis.STEP,
    columns: ColumnsOption = 1,
    profile: OneProfileOption = None,
    runs: RunsOption = RUNS,
) -> None:
    """Draw metrics over training, with seed bands.

    Every arm has a line, the mean over its seeds, and a band of one
    standard deviation on each side. A recipe or an experiment means all
    its finished runs; a run named by its id need not be finished.
    accl show RUN lists the metrics.

    Examples:

      accl figure curves baseline full -o curves.pdf

      accl figure curves full -o loss.svg --metric train/loss --x epoch --columns 2
    """

    def drawing(chosen: ArmSet) -> Callable[[Figure], None]:
        from accl.analysis.figures import CURVES_NEED, curve_panels, measure
        from accl.analysis.plots import draw_curves

        panels = curve_panels(chosen, measure(chosen, CURVES_NEED), metric or METRICS, x)
        return lambda figure: draw_curves(figure, panels, columns)

    _draw(runs, names, output, drawing, profile)


@app.command()
def weights(
    names: NamesArgument,
    output: OutputOption,
    columns: ColumnsOption = 1,
    profile: OneProfileOption = None,
    runs: RunsOption = RUNS,
) -> None:
    """Draw the weight of every task over training.

    Every arm with a curriculum has a panel. Weights are means over the seeds; the five tasks that are heaviest in
    the end have names, and a dotted line shows the uniform weight.

    Examples:

      accl figure weights full -o weights.pdf

      accl figure weights full -o weights.png --columns 2
    """

    def drawing(chosen: ArmSet) -> Callable[[Figure], None]:
        from accl.analysis.figures import WEIGHTS_NEED, measure, task_weights
        from accl.analysis.plots import draw_weights

        found = task_weights(chosen, measure(chosen, WEIGHTS_NEED))
        return lambda figure: draw_weights(figure, found, columns)

    _draw(runs, names, output, drawing, profile)


@app.command()
def confusion(
    names: NamesArgument,
    output: OutputOption,
    kind: Annotated[
        str, typer.Option("--kind", help="Matrix to draw: similarity, prototype or literal; /test for the test's.")
    ] = "similarity/test",
    differences: Annotated[
        bool, typer.Option("--differences", help="Draw what the other arms differ in from the first.")
    ] = False,
    columns: ColumnsOption = 1,
    profile: OneProfileOption = None,
    reference: ReferenceOption = None,
    runs: RunsOption = RUNS,
) -> None:
    """Draw the confusion between tasks as a matrix per arm.

    Cells are means over the seeds, and all matrices have one scale. Tasks are ordered by category, which
    white lines separate, and the scale ends at the 1 % and 99 % quantile.

    Examples:

      accl figure confusion full -o confusion.pdf --kind similarity --columns 2

      accl figure confusion weights --differences --reference baseline -o change.png
    """

    def drawing(chosen: ArmSet) -> Callable[[Figure], None]:
        from accl.analysis.figures import CONFUSION_NEED, confusion_matrices, measure
        from accl.analysis.plots import draw_confusion

        matrices = confusion_matrices(chosen, measure(chosen, CONFUSION_NEED), kind, differences=differences)
        return lambda figure: draw_confusion(figure, matrices, columns)

    _draw(runs, names, output, drawing, profile, reference)


@app.command()
def forest(
    names: NamesArgument,
    output: OutputOption,
    split: SplitOption = Split.TEST,
    columns: ColumnsOption = 1,
    profile: OneProfileOption = None,
    reference: ReferenceOption = None,
    runs: RunsOption = RUNS,
) -> None:
    """Draw differences to the reference with intervals.

    Intervals (95 %) and p values (Holm-adjusted) are those of accl compare
    over the seeds that both arms have; a tick stands for a pair of seeds.

    Examples:

      accl figure forest baseline contrastive full -o forest.pdf

      accl figure forest weights --reference baseline --split validation --columns 2 -o forest.svg
    """

    def drawing(chosen: ArmSet) -> Callable[[Figure], None]:
        from accl.analysis.figures import compare_armset, forest_rows, warnings_of
        from accl.analysis.plots import draw_forest

        comparison = compare_armset(chosen, split.value)
        print_notes([comparison.notes[0], *warnings_of(comparison, split.value)])
        rows = forest_rows(comparison)
        return lambda figure: draw_forest(figure, rows, comparison.reference, columns)

    _draw(runs, names, output, drawing, profile, reference)


@app.command()
def tasks(
    names: NamesArgument,
    output: OutputOption,
    top: Annotated[
        int, typer.Option("--top", min=0, help="How many tasks with the largest gains, and losses; 0 for all tasks.")
    ] = 0,
    split: SplitOption = Split.TEST,
    columns: ColumnsOption = 1,
    profile: OneProfileOption = None,
    reference: ReferenceOption = None,
    runs: RunsOption = RUNS,
) -> None:
    """Draw the accuracy of every arm by task.

    Tasks go from the largest gain to the largest loss. Accuracies are means over the seeds that an arm shares with the
    reference. A number in brackets is that of the task's questions.

    Examples:

      accl figure tasks baseline full --top 10 -o tasks.pdf

      accl figure tasks weights --reference baseline --split validation --columns 2 -o tasks.svg
    """

    def drawing(chosen: ArmSet) -> Callable[[Figure], None]:
        from accl.analysis.figures import compare_armset, task_rows, warnings_of
        from accl.analysis.plots import draw_tasks

        comparison = compare_armset(chosen, split.value)
        print_notes([comparison.notes[0], *warnings_of(comparison, split.value)])
        rows = task_rows(comparison, top=top)
        return lambda figure: draw_tasks(figure, rows, list(comparison.scores), split, columns)

    _draw(runs, names, output, drawing, profile, reference)


def _draw(
    root: Path,
    names: Sequence[str],
    output: Path,
    drawing: Callable[[ArmSet], Callable[[Figure], None]],
    profile: str | None,
    reference: str | None = None,
) -> None:
    """Choose runs, draw them and say what was drawn; what can be refused is refused before anything is read."""
    from accl.analysis.plots import SUFFIXES, check_matplotlib, save

    path = checked_suffix(output, SUFFIXES)
    check_matplotlib()
    from accl.analysis.armset import choose_armsets, only_one

    chosen = only_one(choose_armsets(root, names, profile=profile, reference=reference))
    with writing(path):
        notes = save(path, drawing(chosen))
    emit(arms_table(chosen))
    print_notes([*chosen.notes, *notes])
    say(f"Wrote {path}")


def arms_table(chosen: ArmSet) -> Table:
    """Return the arms that a figure or a report is about, with their runs."""
    rows = [
        {
            "arm": arm.label,
            "seeds": chosen.seeds(arm),
            "runs": [chosen.setups[i].run.id for i in arm.members],
            "reference": arm is chosen.arms[0],
        }
        for arm in chosen.arms
    ]
    columns = [
        Column("arm", cell=lambda row: row["arm"] + " (reference)" * (row["reference"] and len(rows) > 1)),
        Column("seeds", justify="right", show=lambda seeds: listed([*map(str, seeds)], "and")),
        Column("runs", wrap=True, show=lambda ids: text([run_id.rsplit("-", 1)[-1] for run_id in ids])),
    ]
    return Table(f"Arms: {chosen.terms}", columns, rows, name="arms")
