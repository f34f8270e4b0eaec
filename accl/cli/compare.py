"""`accl compare`: the ablation in one table."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from accl.analysis.ablation import Ablation, compare_seeds
from accl.analysis.compare import Comparison
from accl.analysis.compare import compare as compare_runs
from accl.analysis.select import select_runs, select_seeds
from accl.cli import compare_screen, compare_tables
from accl.cli.compare_seeds import ablation_tables
from accl.cli.options import RUNS, RunsOption, run_name
from accl.cli.output import Format, FormatOption, emit
from accl.cli.table import Table

DEFAULT_NAMES = ["baseline", "contrastive", "full"]


def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            parser=run_name,
            metavar="RECIPE|RUN",
            help="Recipes, run ids, parts of run ids or paths; the first is the reference. "
            f"Without any: {' '.join(DEFAULT_NAMES)}.",
        ),
    ] = None,
    profile: Annotated[str | None, typer.Option("--profile", "-p", help="Take only runs of this profile.")] = None,
    tasks: Annotated[
        int, typer.Option("--tasks", min=0, help="How many tasks with the largest gains, and losses, to list per arm.")
    ] = 5,
    format: FormatOption = Format.TABLE,
    all_seeds: Annotated[
        bool, typer.Option("--all-seeds", help="Average each recipe over every seed that all of them have.")
    ] = False,
    notes: Annotated[
        bool, typer.Option("--notes", help="Print below the tables how the numbers are made; other formats have it.")
    ] = False,
    runs: RunsOption = RUNS,
) -> None:
    """Compare finished runs on the test questions they all answered.

    A recipe stands for its newest finished run that shares profile,
    protocol and data (and the seed, where it can) with the others. Every
    arm is paired with the first one question by question: exact McNemar
    test, Holm-adjusted over the arms, and 95 % interval of the difference.
    Both floors, the accuracies of two rules that never read the question,
    are shown beside the accuracy.

    Hard pairs are the tenth of all task pairs that the first arm tells
    apart least; their accuracy is that on the questions of these tasks.

    With --all-seeds an arm is all runs of its recipe: the newest finished
    one of every seed that all recipes have, with equal profile, protocol,
    data and number of steps. Intervals and p values then cover the choice
    of the seeds as well as of the questions.

    csv holds one row per arm; json holds everything: all tasks,
    categories and subcategories, and every seed.

    Examples:

      accl compare baseline contrastive full

      accl compare baseline full --profile demo --tasks 10 --notes

      accl compare baseline contrastive full --all-seeds --format md

      accl compare 7f3a 91cc --format csv

      accl compare --format json
    """
    data: Comparison | Ablation
    if all_seeds:
        selection = select_seeds(runs, names or DEFAULT_NAMES, profile)
        if len(selection.seeds) > 1:
            data = compare_seeds(selection)
        else:
            data = compare_runs([seeds[0] for seeds in selection.runs])
            lone = f"Only seed {selection.seeds[0]} has a run of every recipe: there is nothing to average over."
            data = replace(data, warnings=(lone, *selection.gaps, *data.warnings))
    else:
        chosen = select_runs(runs, names or DEFAULT_NAMES, profile)
        data = compare_runs(chosen.runs)
        data = replace(data, warnings=(*chosen.gaps, *data.warnings))
    said = [f"Warning: {warning}" for warning in data.warnings]
    if format is not Format.TABLE or notes:
        said += data.notes
    elif data.notes:
        said.append("How these numbers are made: --notes")
    emit(_tables(data, format, tasks), format, data=data, notes=said)


def _tables(data: Comparison | Ablation, format: Format, tasks: int) -> list[Table]:
    """Return the tables of a format, with ``tasks`` gains, and as many losses, for each arm."""
    if isinstance(data, Ablation):
        if format is not Format.TABLE:
            return ablation_tables(data)[:1]
        screen = [compare_screen.seed_arms_table(data), compare_screen.seed_runs_table(data)]
        return [*screen, *compare_screen.config_tables(data)]
    if format is Format.CSV:
        return [compare_tables.arms_table(data)]
    by_task = compare_tables.task_tables(data, tasks)
    if format is not Format.TABLE:
        arms = [compare_tables.arms_table(data)]
        return [compare_tables.runs_table(data), *arms, *by_task, *compare_tables.config_tables(data)]
    arms = [compare_screen.arms_table(data)]
    return [compare_tables.runs_table(data), *arms, *by_task, *compare_screen.config_tables(data)]
