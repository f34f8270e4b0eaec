"""The tables of `accl compare` for single runs, as csv, Markdown and TeX have them."""

from __future__ import annotations

from collections.abc import Sequence

from accl.analysis.compare import TRIVIAL_BASELINES, Arm, Comparison
from accl.cli.compare_seeds import CALIBRATION, hard_delta, low_to_high, spread
from accl.cli.table import Column, Row, Table, fields, moment, number, p_value, percent, points
from accl.text import duration, typed


def runs_table(comparison: Comparison) -> Table:
    columns = [
        Column("arm", wrap=True),
        Column("run"),
        Column("finished", show=moment, wrap=True),
        Column("seed", justify="right", show=str),
        Column("steps", justify="right"),
    ]
    rows = [fields(arm, "finished", "seed", "steps", arm="label", run="run_id") for arm in comparison.arms]
    return Table(f"Runs: profile {comparison.profile}, protocol {comparison.protocol}", columns, rows)


def arms_table(comparison: Comparison) -> Table:
    first = comparison.arms[0]
    names = "/".join(first.gold_shares)

    def accuracy(row: Row) -> str:
        return spread(row, "accuracy", "standard_error")

    columns = [
        Column("arm"),
        Column("accuracy", "", "%", "right", cell=accuracy, style=floor_style),
        Column("macro_accuracy", "macro", "%", "right", percent),
        *(Column(f"category/{group.name}", group.name, "%", "right", percent) for group in first.categories),
        *(
            Column(f"floor/{name}", f"floor: {name}".replace("_", " "), "%", "right", percent)
            for name in TRIVIAL_BASELINES
        ),
        Column("above_floor", "beats its floor", justify="right", style=floor_style),
        Column("delta", f"delta to {first.label}", "points", "right", points),
        Column("delta_low", "95 % interval", "points", "right", cell=low_to_high),
        Column("p", "McNemar p", "", "right", p_value),
        Column("p_holm", "Holm p", "", "right", p_value),
        Column("hard_accuracy", "hard pairs", "%", "right", percent),
        Column("hard_delta", "hard pairs, delta [95 %]", "points", "right", cell=hard_delta),
        Column("hard_p", "hard pairs, McNemar p", "", "right", p_value),
        *CALIBRATION,
        Column("predicted", f"answers {names}", "%", "right", cell=lambda row: letters(row, "predicted", names)),
        Column("gold", f"right answers {names}", "%", "right", cell=lambda row: letters(row, "gold", names)),
        Column("tested_step", "tested at step", justify="right"),
        Column("training_seconds", "training time", "", "right", duration),
        Column("questions_per_second", "questions/s", "", "right", number(",.1f")),
    ]
    rows = [_arm_row(arm, comparison) for arm in comparison.arms]
    return Table(f"Accuracy on {comparison.n:,} {comparison.split} questions", columns, rows)


def _arm_row(arm: Arm, comparison: Comparison) -> Row:
    hard = arm.hard
    names = {"delta": "delta", "delta_low": "low", "delta_high": "high", "p": "p"}
    return {
        **fields(arm, arm="label", recipe="recipe", run="run_id", seed="seed"),
        **fields(comparison, "profile", "protocol"),
        **fields(arm, "steps", "tested_step", "n", "correct", "accuracy", "standard_error", "macro_accuracy"),
        **{f"category/{group.name}": group.accuracy for group in arm.categories},
        **{f"floor/{name}": arm.trivial_baselines.get(name) for name in TRIVIAL_BASELINES},
        "above_floor": arm.above_trivial,
        **fields(arm.paired, "gains", "losses", **names),
        "p_holm": arm.p_holm,
        **fields(hard, hard_n="n", hard_accuracy="accuracy"),
        **fields(hard and hard.paired, **{f"hard_{key}": name for key, name in names.items()}),
        **fields(arm, "loss", "ece", "brier"),
        **{f"predicted/{letter}": share for letter, share in arm.predicted_shares.items()},
        **{f"gold/{letter}": share for letter, share in arm.gold_shares.items()},
        **fields(arm, "training_seconds", "questions_per_second"),
    }


def task_tables(comparison: Comparison, count: int) -> list[Table]:
    """For each arm but the first, the tasks with the largest gains, then those with the largest losses."""
    first = comparison.arms[0]
    reference = {task.task.index: task.accuracy for task in first.tasks}
    found = [
        changes_table(
            first.label,
            arm.label,
            [
                {"task": task.task.name, "n": task.n, "accuracy_first": reference[task.task.index]}
                | fields(task, "accuracy", "delta", "gains", "losses")
                for task in arm.tasks_by_delta
            ],
            count,
        )
        for arm in comparison.arms[1:]
    ]
    return [table for table in found if table.rows]


def changes_table(first: str, arm: str, rows: Sequence[Row], count: int) -> Table:
    """Return a table of the first ``count`` rows that gain, and the last that lose; rows come by their ``delta``."""
    gained = [row for row in rows if row["delta"] > 0][:count]
    lost = [row for row in reversed(rows) if row["delta"] < 0][:count]
    columns = [
        Column("task", show=lambda name: str(name).replace("_", " "), wrap=True),
        Column("n", justify="right"),
        Column("accuracy_first", first, "%", "right", percent),
        Column("accuracy", arm, "%", "right", percent),
        Column("delta", "delta", "points", "right", points),
        Column("gains", justify="right"),
        Column("losses", justify="right"),
    ]
    return Table(f"Largest gains and losses of {arm} against {first}", columns, [*gained, *reversed(lost)])


def config_tables(comparison: Comparison) -> list[Table]:
    """Every other difference to the first arm: one row per key, one column per arm."""
    arms = comparison.arms
    firsts = {key: first for arm in reversed(arms) for key, (first, _) in arm.config_difference.items()}
    keys = dict.fromkeys(key for arm in arms for key in arm.config_difference)
    rows = [
        {"key": key} | {arm.label: arm.config_difference.get(key, (None, firsts[key]))[1] for arm in arms}
        for key in keys
    ]
    columns = [Column("key"), *(Column(arm.label, arm.label, "", "right", typed) for arm in arms)]
    return [Table("Configuration differences", columns, rows)] if rows else []


def letters(row: Row, kind: str, names: str) -> str:
    """Percentage of each letter, as ``27/24/26/23``."""
    return "/".join(f"{100 * row[f'{kind}/{letter}']:.0f}" for letter in names.split("/"))


def floor_style(row: Row) -> str:
    return "bold red" if row["above_floor"] is False else ""
