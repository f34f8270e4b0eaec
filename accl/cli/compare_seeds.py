"""The tables of `accl compare --all-seeds`: one row per recipe, and one per run."""

from __future__ import annotations

from typing import Any

from accl.analysis.ablation import Ablation, SeedArm
from accl.cli.table import MISSING, Column, Row, Table, fields, p_value, percent, points, score, span
from accl.text import duration

CALIBRATION = [Column(name.lower(), name, "", "right", score) for name in ("loss", "ECE", "Brier")]
MEANS = ("accuracy", "macro_accuracy", "hard_accuracy", "loss", "ece", "brier")


def hard_delta(row: Row) -> str:
    """Write the difference on hard pairs as `interval` does."""
    return interval(row, "hard_")


def interval(row: Row, prefix: str = "") -> str:
    """Write the row's delta, delta_low and delta_high as ``+1.20 [+0.30, +2.10]``."""
    delta, low, high = (row[f"{prefix}{key}"] for key in ("delta", "delta_low", "delta_high"))
    return MISSING if delta is None else f"{points(delta)} [{points(low)}, {points(high)}]"


def low_to_high(row: Row) -> str:
    """Write the row's delta_low and delta_high as ``+0.30 to +2.10``."""
    return span(row["delta_low"], row["delta_high"])


def spread(row: Row, key: str, beside: str) -> str:
    """Write two values of a row as ``40.83 ± 1.50``, in per cent."""
    return MISSING if row[key] is None else f"{percent(row[key])} ± {percent(row[beside])}"


def ablation_tables(ablation: Ablation) -> list[Table]:
    """Make two tables with a row per recipe, the first narrow enough for a README, and one with a row per run."""
    first = ablation.arms[0].label
    arms = [
        Column("arm"),
        Column("seeds", justify="right", show=lambda seeds: str(len(seeds))),
        Column("steps", justify="right"),
        Column("accuracy", unit="%", justify="right", cell=lambda row: spread(row, "accuracy", "accuracy_sd")),
        Column("macro_accuracy", "macro", "%", "right", percent),
        Column("hard_accuracy", "hard pairs", "%", "right", percent),
        Column("delta", f"delta to {first} [95 %]", "points", "right", cell=interval),
        Column("p_holm", "Holm p", "", "right", p_value),
        Column("ece", "ECE", "", "right", score),
        Column("above_floor", "beats its floor", justify="right", cell=_floor, style=_floor_style),
    ]
    details = [
        Column("arm"),
        Column(
            "macro_accuracy", "macro", "%", "right", cell=lambda row: spread(row, "macro_accuracy", "macro_accuracy_sd")
        ),
        Column(
            "hard_accuracy",
            "hard pairs",
            "%",
            "right",
            cell=lambda row: spread(row, "hard_accuracy", "hard_accuracy_sd"),
        ),
        Column("hard_delta", "hard pairs, delta [95 %]", "points", "right", cell=hard_delta),
        Column("hard_p", "hard pairs, p", "", "right", p_value),
        *CALIBRATION,
    ]
    title = f"Accuracy on {ablation.n:,} {ablation.split} questions over {len(ablation.seeds)} seeds"
    rows = [_arm_row(arm, ablation) for arm in ablation.arms]
    return [Table(title, arms, rows), Table("Hard pairs and calibration", details, rows), _runs_table(ablation)]


def _runs_table(ablation: Ablation) -> Table:
    """Compare every run with the first arm's run of the same seed."""
    rows = [
        {"arm": arm.label, "seed": seed, "run": arm.run_id, "accuracy": arm.accuracy}
        | fields(arm.paired, "delta", "p")
        | {"training_seconds": arm.training_seconds}
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
    row: dict[str, Any] = {"arm": arm.label, "seeds": list(ablation.seeds)}
    row |= fields(ablation, "profile", "protocol") | fields(arm, "steps", "n")
    for name in MEANS:
        row |= fields(getattr(arm, name), **{name: "mean", f"{name}_sd": "sd"})
    row |= {f"floor/{name}": value for name, value in arm.trivial_baselines.items()}
    row["above_floor"] = arm.above_trivial
    names = {"delta": "delta", "delta_sd": "sd", "delta_low": "low", "delta_high": "high", "p": "p"}
    row |= fields(arm.difference, **names) | {"p_holm": arm.p_holm}
    return row | fields(arm.hard_difference, **{f"hard_{key}": name for key, name in names.items()})


def _floor(row: Row) -> str:
    above, seeds = row["above_floor"], len(row["seeds"])
    if above is None:
        return MISSING
    return {0: "no", seeds: "yes"}.get(above, f"{above} of {seeds}")


def _floor_style(row: Row) -> str:
    return "bold red" if row["above_floor"] not in (None, len(row["seeds"])) else ""
