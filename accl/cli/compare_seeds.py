"""The tables of `accl compare --all-seeds`: one row per recipe, and one per run."""

from __future__ import annotations

from typing import Any

from accl.analysis.ablation import Ablation, Mean, SeedArm
from accl.analysis.crossed import SeedDifference
from accl.cli.table import MISSING, Column, Row, Table, duration, fields, p_value, percent, points, score


def interval(row: Row, prefix: str = "") -> str:
    """``+1.20 [+0.30, +2.10]`` from the row's delta, delta_low and delta_high."""
    delta, low, high = (row[f"{prefix}{key}"] for key in ("delta", "delta_low", "delta_high"))
    return MISSING if delta is None else f"{points(delta)} [{points(low)}, {points(high)}]"


def arms_table(ablation: Ablation) -> Table:
    """One row per recipe, narrow enough for a README."""
    first = ablation.arms[0].label
    columns = [
        Column("arm"),
        Column("seeds", justify="right", show=lambda seeds: str(len(seeds))),
        Column("steps", justify="right"),
        Column("accuracy", unit="%", justify="right", cell=lambda row: _spread(row, "accuracy")),
        Column("macro_accuracy", "macro", "%", "right", percent),
        Column("hard_accuracy", "hard pairs", "%", "right", percent),
        Column("delta", f"delta to {first} [95 %]", "points", "right", cell=interval),
        Column("p_holm", "Holm p", "", "right", p_value),
        Column("ece", "ECE", "", "right", score),
        Column("above_floor", "beats its floor", justify="right", cell=_floor, style=_floor_style),
    ]
    title = f"Accuracy on {ablation.n:,} test questions over {len(ablation.seeds)} seeds"
    return Table(title, columns, [_arm_row(arm, ablation) for arm in ablation.arms])


def details_table(ablation: Ablation) -> Table:
    """One row per recipe with the figures that the table of arms leaves out."""
    columns = [
        Column("arm"),
        Column("macro_accuracy", "macro", "%", "right", cell=lambda row: _spread(row, "macro_accuracy")),
        Column("hard_accuracy", "hard pairs", "%", "right", cell=lambda row: _spread(row, "hard_accuracy")),
        Column("hard_delta", "hard pairs, delta [95 %]", "points", "right", cell=lambda row: interval(row, "hard_")),
        Column("hard_p", "hard pairs, p", "", "right", p_value),
        Column("loss", "loss", "", "right", score),
        Column("ece", "ECE", "", "right", score),
        Column("brier", "Brier", "", "right", score),
    ]
    return Table("Hard pairs and calibration", columns, [_arm_row(arm, ablation) for arm in ablation.arms])


def runs_table(ablation: Ablation) -> Table:
    """One row per run, with its difference to the first arm's run of the same seed."""
    rows = [
        {
            "arm": arm.recipe,
            "seed": seed,
            "run": arm.run_id,
            "accuracy": arm.accuracy,
            **fields(arm.paired, "delta", "p"),
            "training_seconds": arm.training_seconds,
        }
        for arms in zip(*(comparison.arms for comparison in ablation.per_seed), strict=True)
        for seed, arm in zip(ablation.seeds, arms, strict=True)
    ]
    columns = [
        Column("arm"),
        Column("seed", justify="right", show=str),
        Column("run"),
        Column("accuracy", "accuracy", "%", "right", percent),
        Column("delta", "delta", "points", "right", points),
        Column("p", "McNemar p", "", "right", p_value),
        Column("training_seconds", "training time", "", "right", duration),
    ]
    title = f"Runs: profile {ablation.profile}, protocol {ablation.protocol}"
    return Table(title, columns, rows)


def _arm_row(arm: SeedArm, ablation: Ablation) -> Row:
    means = ("accuracy", "macro_accuracy", "hard_accuracy", "loss", "ece", "brier")
    return {
        "arm": arm.label,
        "seeds": list(ablation.seeds),
        **fields(ablation, "profile", "protocol"),
        **fields(arm, "steps", "n"),
        **{key: value for name in means for key, value in _mean(name, getattr(arm, name)).items()},
        **{f"floor/{name}": value for name, value in arm.trivial_baselines.items()},
        "above_floor": arm.above_trivial,
        **_difference("", arm.difference),
        "p_holm": arm.p_holm,
        **_difference("hard_", arm.hard_difference),
    }


def _mean(name: str, mean: Mean | None) -> dict[str, Any]:
    return fields(mean, **{name: "mean", f"{name}_sd": "sd"})


def _difference(prefix: str, difference: SeedDifference | None) -> dict[str, Any]:
    names = {"delta": "delta", "delta_sd": "sd", "delta_low": "low", "delta_high": "high", "p": "p"}
    return fields(difference, **{f"{prefix}{key}": name for key, name in names.items()})


def _spread(row: Row, key: str) -> str:
    return MISSING if row[key] is None else f"{percent(row[key])} ± {percent(row[f'{key}_sd'])}"


def _floor(row: Row) -> str:
    above, seeds = row["above_floor"], len(row["seeds"])
    if above is None:
        return MISSING
    return {0: "no", seeds: "yes"}.get(above, f"{above} of {seeds}")


def _floor_style(row: Row) -> str:
    return "bold red" if row["above_floor"] not in (None, len(row["seeds"])) else ""
