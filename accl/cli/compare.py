"""`accl compare`: the ablation in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accl.analysis.ablation import Ablation
from accl.analysis.compare import Comparison
from accl.analysis.named import Chosen, break_down, choose, compare_chosen
from accl.cli import compare_by, compare_screen, compare_tables
from accl.cli.compare_by import By
from accl.cli.compare_seeds import ablation_tables
from accl.cli.options import RUNS, OfProfileOption, ReferenceOption, RunsOption, Split, SplitOption, run_name
from accl.cli.output import Format, FormatOption, emit
from accl.cli.table import Table
from accl.errors import ConfigError

DEFAULT_NAMES = ["baseline", "contrastive", "full"]


def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            parser=run_name,
            metavar="EXPERIMENT|ARM|RECIPE|RUN",
            help="Experiments, arms of one, recipes, or runs by id, a part of it, name or path; the first is the "
            f"reference. Without any: {' '.join(DEFAULT_NAMES)}.",
        ),
    ] = None,
    reference: ReferenceOption = None,
    profile: OfProfileOption = None,
    split: SplitOption = Split.TEST,
    all_seeds: Annotated[
        bool | None,
        typer.Option(
            "--all-seeds/--one-seed",
            help="Average over every seed of a recipe, also under other settings; or compare the newest run of each. "
            "Without either: every seed of the newest settings.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        By | None, typer.Option("--by", help="Compare part by part instead, or list the questions that changed.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            min=1,
            help="With --by question: at most N of each arm.",
            show_default=f"{compare_by.SHOWN}; all in json and csv",
        ),
    ] = None,
    tasks: Annotated[
        int, typer.Option("--tasks", min=0, help="How many tasks with the largest gains, and losses, to list per arm.")
    ] = 5,
    notes: Annotated[
        bool, typer.Option("--notes", help="Print below the tables how the numbers are made; other formats have it.")
    ] = False,
    format: FormatOption = Format.TABLE,
    runs: RunsOption = RUNS,
) -> None:
    """Compare finished runs on the test questions they all answered.

    A recipe stands for its newest finished run that shares profile,
    protocol and data with the others, and for all runs that differ from
    it in nothing but the seed, as far as every arm has that seed. An
    experiment stands for all its arms, named by what tells them apart.

    Every arm is paired with the first one, seed by seed and question by
    question: 95 % interval of the difference, p Holm-adjusted over the
    arms. From two seeds on both cover the choice of seeds as well as of
    questions; with one it is the exact McNemar test. Both floors, the
    accuracies of two rules that never read the question, are shown
    beside the accuracy.

    Hard pairs are the tenth of all task pairs that the first arm tells
    apart least; their accuracy is that on the questions of these tasks.

    Settings are chosen by --split validation, whose numbers are too high
    for having been chosen by, and reported on the test.

    csv holds one row per arm; json holds everything: all tasks,
    categories and subcategories, and every seed.

    Examples:

      accl compare baseline contrastive full

      accl compare baseline full --profile demo --tasks 10 --notes

      accl compare weights --split validation --reference baseline

      accl compare baseline full --by task

      accl compare baseline full --by question --limit 40

      accl compare baseline contrastive full --all-seeds --format md

      accl compare 7f3a 91cc --format csv

      accl compare --one-seed --format json
    """
    if limit is not None and by is not By.QUESTION:
        raise ConfigError("--limit is for --by question.", "How many tasks are listed is said with --tasks.")
    chosen = choose(
        runs, names or DEFAULT_NAMES, profile=profile, all_seeds=all_seeds, reference=reference, split=split.value
    )
    if by is not None:
        _emit_by(chosen, by, split, limit, format)
        return
    data = compare_chosen(chosen, split.value)
    said = [data.power]
    said += [f"Warning: {warning}" for warning in data.warnings]
    if format is not Format.TABLE or notes:
        said += [*data.notes, *_looks_notes(runs, data, format)]
        if format is Format.TABLE and any(arm.efficiency for arm in data.arms):
            said.append(compare_screen.EFFICIENCY_NOTE)
    elif data.notes:
        said.append("How these numbers are made: --notes")
    emit(_tables(data, format, tasks), format, data=data, notes=said)


def _looks_notes(root: Path, data: Comparison | Ablation, format: Format) -> list[str]:
    """Note how often runs of the folder looked at this test split, where that is more than once for each compared."""
    if data.split != "test" or format in (Format.JSON, Format.CSV):
        return []
    from accl.store.tested import looks_in

    compared = len(data.arms) * (len(data.seeds) if isinstance(data, Ablation) else 1)
    found = looks_in(root, data.fingerprint)
    return [f"{str(found)[:-1]}; {compared} are compared here."] if found.looks > compared else []


def _emit_by(chosen: Chosen, by: By, split: Split, limit: int | None, format: Format) -> None:
    for_people = format not in (Format.JSON, Format.CSV)
    found = break_down(chosen, by.value, split.value, compare_by.SHOWN if limit is None and for_people else limit)
    tables = compare_by.tables_by_arm(found, by) if for_people else [compare_by.whole_table(found, by)]
    emit(tables, format, notes=[*(f"Warning: {warning}" for warning in found.warnings), *compare_by.notes(found, by)])


def _tables(data: Comparison | Ablation, format: Format, tasks: int) -> list[Table]:
    """Return the tables of a format, with ``tasks`` gains, and as many losses, for each arm."""
    if format is Format.TABLE:
        return _screen_tables(data, tasks)
    if isinstance(data, Ablation):
        return ablation_tables(data)[:1]
    if format is Format.CSV:
        return [compare_tables.arms_table(data)]
    arms = [compare_tables.runs_table(data), compare_tables.arms_table(data)]
    return [*arms, *compare_tables.task_tables(data, tasks), *compare_tables.config_tables(data)]


def _screen_tables(data: Comparison | Ablation, tasks: int) -> list[Table]:
    many = len(data.arms) >= compare_screen.MANY_ARMS
    if isinstance(data, Comparison):
        arms = compare_screen.ranking_table(data) if many else compare_screen.arms_table(data)
        by_task = [] if many else compare_screen.task_tables(data, tasks)
        return [compare_screen.runs_table(data), arms, *by_task, *compare_screen.config_tables(data)]
    arms = compare_screen.ranking_table(data) if many else compare_screen.seed_arms_table(data)
    runs = compare_screen.accuracies_table(data) if many else compare_screen.seed_runs_table(data)
    by_task = [] if many else compare_screen.seed_task_tables(data, tasks)
    return [arms, runs, *by_task, *compare_screen.config_tables(data)]
