"""Comparisons as `accl compare` prints them."""

from __future__ import annotations

from pathlib import Path

from accl.analysis.ablation import Ablation
from accl.analysis.compare import Comparison
from accl.analysis.named import Chosen, break_down, compare_chosen
from accl.cli import compare_by, compare_screen, compare_tables
from accl.cli.compare_seeds import ablation_tables
from accl.cli.options import Split
from accl.cli.output import Format, emit
from accl.cli.questions import SHOWN, By
from accl.cli.table import Table


def print_comparison(root: Path, chosen: Chosen, split: Split, tasks: int, notes: bool, format: Format) -> None:
    """Print a comparison: its tables with ``tasks`` gains and losses of each arm, and what is to be said of them.

    Args:
        root: folder whose looks at the test split are counted.
        notes: whether to say in a table for people, too, how the numbers are made.
    """
    data = compare_chosen(chosen, split.value)
    said = [data.power]
    said += [f"Warning: {warning}" for warning in data.warnings]
    if format is not Format.TABLE or notes:
        said += [*data.notes, *_looks_notes(root, data, format)]
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


def print_breakdown(chosen: Chosen, by: By, split: Split, limit: int | None, format: Format) -> None:
    """Print a comparison part by part, or the questions that changed, at most ``limit`` of each arm."""
    for_people = format not in (Format.JSON, Format.CSV)
    found = break_down(chosen, by.value, split.value, SHOWN if limit is None and for_people else limit)
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
