"""The tables of `accl compare` in a terminal: arms side by side, units on the left, within 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean as mean
from typing import Any

from accl.analysis.ablation import Ablation, Mean, SeedArm
from accl.analysis.compare import TRIVIAL_BASELINES, Arm, Comparison
from accl.analysis.crossed import SeedDifference
from accl.analysis.efficiency import SampleEfficiency
from accl.analysis.stats import PairedDifference
from accl.cli import compare_tables
from accl.cli.compare_tables import letters
from accl.cli.table import MISSING, Column, Row, Table, fields, number, p_value, percent, points, score, span
from accl.text import duration, typed

NAMED_WIDTH = 14  # of an arm whose name stands in a header beside others
MANY_ARMS = 5  # which nobody reads side by side

EVALUATED = {"test": "tested", "validation": "validated"}

EFFICIENCY_NOTE = (
    "Steps to reach the reference: until the first validation that is as accurate as the reference's last one under "
    "the same seed. A run that never was counts with its last validation, which > marks."
)

Show = Callable[[Any], str]


def arms_table(comparison: Comparison) -> Table:
    """Put everything that was measured side by side."""
    first = comparison.arms[0]
    names = "/".join(first.gold_shares)
    columns = [
        *_accuracy_columns(percent),
        *(Column(f"category/{group.name}", group.name, "%", show=percent) for group in first.categories),
        *_floor_columns(),
        *_difference_columns(first.label),
        Column("p", "McNemar p", show=p_value),
        Column("p_holm", "Holm p", show=p_value),
        *(_hard_columns(percent, "McNemar p") if comparison.hard_pairs else ()),
        *_calibration_columns(),
        *_efficiency_columns(comparison),
        Column("predicted", f"answers {names}", "%", cell=lambda row: letters(row, "predicted", names)),
        Column("gold", f"right answers {names}", "%", cell=lambda row: letters(row, "gold", names)),
        Column("tested_step", f"{EVALUATED[comparison.split]} at step"),
        Column("training_seconds", "training time", show=duration),
        Column("questions_per_second", "questions/s", show=number(",.1f")),
    ]
    title = f"Accuracy on {comparison.n:,} {comparison.split} questions"
    return Table(title, [Column("arm"), *columns], [_arm_row(arm) for arm in comparison.arms], sideways=True)


def seed_arms_table(ablation: Ablation) -> Table:
    """Put the means over seeds side by side."""
    columns = [
        *_accuracy_columns(_plus_minus),
        *_floor_columns(),
        *_difference_columns(ablation.arms[0].label),
        Column("p_holm", "Holm p", show=p_value),
        *(_hard_columns(_plus_minus, "p") if ablation.hard_pairs else ()),
        *_calibration_columns(),
        *_efficiency_columns(ablation),
        Column("steps"),
        Column("seconds", "training time", show=duration),
    ]
    title = f"Accuracy on {ablation.n:,} {ablation.split} questions over {len(ablation.seeds)} seeds"
    rows = [
        {**_seed_arm_row(arm, len(ablation.seeds)), "seconds": _mean_seconds(runs)}
        for arm, runs in zip(ablation.arms, zip(*(c.arms for c in ablation.per_seed), strict=True), strict=True)
    ]
    return Table(title, [Column("arm"), *columns], rows, sideways=True)


def ranking_table(data: Comparison | Ablation) -> Table:
    """List many arms from the best to the worst, with their differences to the first one."""
    seeds = f" over {len(data.seeds)} seeds" if isinstance(data, Ablation) else ""
    rows = arms_table(data).rows if isinstance(data, Comparison) else seed_arms_table(data).rows
    columns = [
        Column("arm", wrap=True),
        Column("accuracy", unit="%", justify="right", show=_plus_minus, style=_floor_style),
        Column("delta", unit="points", justify="right", show=points),
        Column("interval", "95 % interval", "points", "right", lambda ends: span(*ends)),
        Column("p_holm", "Holm p", justify="right", show=p_value),
    ]
    title = f"Accuracy on {data.n:,} {data.split} questions{seeds}; differences to {data.arms[0].label}"
    return Table(title, columns, sorted(rows, key=lambda row: -row["accuracy"].mean))


def accuracies_table(ablation: Ablation) -> Table:
    """Put the accuracies of many arms under each seed side by side."""
    rows = [
        {"arm": arm.label} | {str(run.seed): run.accuracy for run in runs}
        for arm, runs in zip(ablation.arms, zip(*(c.arms for c in ablation.per_seed), strict=True), strict=True)
    ]
    seeds = [Column(str(seed), f"seed {seed}", "%", "right", percent) for seed in ablation.seeds]
    title = f"Accuracy by seed: profile {ablation.profile}, protocol {ablation.protocol}"
    return Table(title, [Column("arm", wrap=True), *seeds], rows)


def runs_table(comparison: Comparison) -> Table:
    """List the runs by the names that people gave them, or else their ids."""
    table = compare_tables.runs_table(comparison)
    pairs = zip(table.rows, comparison.arms, strict=True)
    return replace(table, rows=[{**row, "run": arm.name or arm.run_id} for row, arm in pairs])


def seed_runs_table(ablation: Ablation) -> Table:
    """List the runs of every arm, each with its difference to the first arm's run of the same seed."""
    columns = [
        Column("arm", wrap=True, cell=lambda row: row["arm"] if row["seed"] == ablation.seeds[0] else ""),
        Column("seed", justify="right", show=str),
        Column("run"),
        Column("accuracy", unit="%", justify="right", show=percent),
        Column("delta", unit="points", justify="right", show=points),
    ]
    rows = [
        {"arm": arm.label, "seed": seed, "run": run.name or run.run_id, "accuracy": run.accuracy}
        | fields(run.paired, "delta")
        for arm, runs in zip(ablation.arms, zip(*(c.arms for c in ablation.per_seed), strict=True), strict=True)
        for seed, run in zip(ablation.seeds, runs, strict=True)
    ]
    return Table(f"Runs: profile {ablation.profile}, protocol {ablation.protocol}", columns, rows)


def config_tables(data: Comparison | Ablation) -> list[Table]:
    """Put every other difference to the first arm's configuration side by side; no table where labels say it all."""
    arms: Sequence[Arm | SeedArm] = data.arms
    firsts = {key: first for arm in reversed(arms) for key, (first, _) in arm.config_difference.items()}
    keys = dict.fromkeys(key for arm in arms for key in arm.config_difference)
    rows = [
        {"arm": arm.label} | {key: arm.config_difference.get(key, (None, firsts[key]))[1] for key in keys}
        for arm in arms
    ]
    columns = [Column("arm", "key"), *(Column(key, key, show=typed) for key in keys)]
    told = all(f" {key.rpartition('.')[2]}=" in arm.label for key in keys for arm in arms)
    return [] if told else [Table("Configuration differences", columns, rows, sideways=True)]


def task_tables(comparison: Comparison, count: int) -> list[Table]:
    """List, for each arm but the first, the tasks with the largest gains and losses; titles say the long names."""
    return [
        replace(table, columns=short_headers(table.columns)) for table in compare_tables.task_tables(comparison, count)
    ]


def seed_task_tables(ablation: Ablation, count: int) -> list[Table]:
    """List, for each arm but the first, the tasks with the largest mean gains and losses; flips are summed up."""
    tables = []
    by_seed = [[arm.tasks for arm in comparison.arms] for comparison in ablation.per_seed]
    for i, arm in enumerate(ablation.arms[1:], start=1):
        firsts, others = (zip(*(arms[j] for arms in by_seed), strict=True) for j in (0, i))
        rows = [
            {
                "task": after[0].task.name,
                "n": after[0].n,
                "accuracy_first": mean(score.accuracy for score in before),
                "accuracy": mean(score.accuracy for score in after),
                "delta": mean(score.delta for score in after),
                "gains": sum(score.gains for score in after),
                "losses": sum(score.losses for score in after),
            }
            for before, after in zip(firsts, others, strict=True)
        ]
        rows.sort(key=lambda row: -row["delta"])
        table = compare_tables.changes_table(ablation.arms[0].label, arm.label, rows, count)
        tables += [replace(table, columns=short_headers(table.columns))] if table.rows else []
    return tables


def short_headers(columns: Sequence[Column]) -> list[Column]:
    """Return columns in which a name of an arm that is too long for a header is replaced."""
    names = {"before": "first arm", "accuracy_first": "first arm", "accuracy": "this arm"}
    return [
        replace(column, header=names[column.key])
        if column.key in names and len(column.header) > NAMED_WIDTH
        else column
        for column in columns
    ]


def _arm_row(arm: Arm) -> Row:
    return {
        **fields(arm, "p_holm", "loss", "ece", "brier", "efficiency", arm="label", macro="macro_accuracy"),
        **fields(arm, "tested_step", "training_seconds", "questions_per_second"),
        "accuracy": Mean(arm.accuracy, arm.standard_error),
        "beats": {True: "yes", False: "no", None: MISSING}[arm.above_trivial],
        **{f"category/{group.name}": group.accuracy for group in arm.categories},
        **arm.trivial_baselines,
        **_difference(arm.paired),
        **fields(arm.hard, hard="accuracy"),
        **_difference(arm.hard.paired if arm.hard else None, "hard_"),
        **{f"predicted/{letter}": share for letter, share in arm.predicted_shares.items()},
        **{f"gold/{letter}": share for letter, share in arm.gold_shares.items()},
    }


def _seed_arm_row(arm: SeedArm, seeds: int) -> Row:
    above = arm.above_trivial
    return {
        **fields(
            arm, "accuracy", "p_holm", "efficiency", "steps", arm="label", macro="macro_accuracy", hard="hard_accuracy"
        ),
        **{name: mean and mean.mean for name, mean in fields(arm, "loss", "ece", "brier").items()},
        "beats": MISSING if above is None else {0: "no", seeds: "yes"}.get(above, f"{above} of {seeds}"),
        **arm.trivial_baselines,
        **_difference(arm.difference),
        **_difference(arm.hard_difference, "hard_"),
    }


def _mean_seconds(runs: Sequence[Arm]) -> float | None:
    seconds = [run.training_seconds for run in runs if run.training_seconds is not None]
    return sum(seconds) / len(seconds) if len(seconds) == len(runs) else None


def _difference(difference: PairedDifference | SeedDifference | None, prefix: str = "") -> Row:
    found = fields(difference, "delta", "low", "high", "p")
    interval = found["low"], found["high"]
    return {f"{prefix}{key}": value for key, value in (found | {"interval": interval}).items()}


def _accuracy_columns(macro: Show) -> list[Column]:
    return [
        Column("accuracy", unit="%", show=_plus_minus, style=_floor_style),
        Column("macro", unit="%", show=macro),
    ]


def _floor_columns() -> list[Column]:
    return [
        *(Column(name, f"floor: {name}".replace("_", " "), "%", show=percent) for name in TRIVIAL_BASELINES),
        Column("beats", "beats its floor", style=_floor_style),
    ]


def _difference_columns(reference: str) -> list[Column]:
    to = reference if len(reference) <= NAMED_WIDTH else "first arm"
    return [
        Column("delta", f"delta to {to}", "points", show=points),
        Column("interval", "95 % interval", "points", show=lambda ends: span(*ends)),
    ]


def _hard_columns(accuracy: Show, p: str) -> list[Column]:
    return [
        Column("hard", "hard pairs", "%", show=accuracy),
        Column("hard_delta", "hard pairs, delta", "points", show=points),
        Column("hard_interval", "hard pairs, 95 %", "points", show=lambda ends: span(*ends)),
        Column("hard_p", f"hard pairs, {p}", show=p_value),
    ]


def _calibration_columns() -> list[Column]:
    return [Column(name.lower(), name, show=score) for name in ("loss", "ECE", "Brier")]


def _plus_minus(value: Mean | None) -> str:
    return MISSING if value is None else f"{percent(value.mean)} ± {percent(value.sd)}"


def _floor_style(row: Row) -> str:
    return "" if row["beats"] in ("yes", MISSING) else "bold red"


def _efficiency_columns(data: Comparison | Ablation) -> list[Column]:
    """Return the rows on how soon arms learned; none where no arm has validations."""
    found = [arm.efficiency for arm in data.arms if arm.efficiency]
    if not found:
        return []
    columns = [
        Column("efficiency", "steps to reach reference", cell=lambda row: _steps(row["efficiency"], found[0])),
        Column("efficiency", "questions to reach it", show=_questions),
        Column("efficiency", "difference", "steps", show=_steps_difference),
    ]
    intervals = [Column("efficiency", "95 % interval", "steps", show=_steps_interval)]
    return columns + (intervals if isinstance(data, Ablation) else [])


def _more(efficiency: SampleEfficiency) -> str:
    return "> " if efficiency.censored else ""


def _steps(efficiency: SampleEfficiency | None, other: SampleEfficiency) -> str:
    """Write the steps of an arm, or those of the reference as another arm has them."""
    if efficiency is None:
        return f"{other.reference_steps:,.0f}"
    runs = len(efficiency.arm)
    share = f" ({efficiency.reached} of {runs})" if efficiency.censored and runs > 1 else ""
    return f"{_more(efficiency)}{efficiency.steps:,.0f}{share}"


def _questions(efficiency: SampleEfficiency | None) -> str:
    return MISSING if efficiency is None else f"{_more(efficiency)}{efficiency.questions:,.0f}"


def _steps_difference(efficiency: SampleEfficiency | None) -> str:
    return MISSING if efficiency is None else f"{_more(efficiency)}{efficiency.delta:+,.0f}"


def _steps_interval(efficiency: SampleEfficiency | None) -> str:
    if efficiency is None or efficiency.low is None:
        return MISSING
    return f"{efficiency.low:+,.0f} to " + (MISSING if efficiency.high is None else f"{efficiency.high:+,.0f}")
