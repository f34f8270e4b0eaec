"""The tables of `accl compare --all-seeds`: one row per recipe, and one per run."""

from __future__ import annotations

from typing import Any

from accl.analysis.ablation import Ablation, Mean, SeedArm
from accl.analysis.crossed import SeedDifference
from accl.cli.output import Column, Row, Table, duration, p_value, percent, points


def score(value: float | None) -> str:
    """A score that is no share, such as a calibration error, with four digits behind the point."""
    return "–" if value is None else f"{value:.4f}"


def interval(row: Row, prefix: str = "") -> str:
    """``+1.20 [+0.30, +2.10]`` from the row's delta, delta_low and delta_high."""
    delta, low, high = (row[f"{prefix}{key}"] for key in ("delta", "delta_low", "delta_high"))
    return "–" if delta is None else f"{points(delta)} [{points(low)}, {points(high)}]"


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
    """What the table of arms leaves out, for reading in a terminal."""
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
            "arm": comparison.arms[index].recipe,
            "seed": seed,
            "run": comparison.arms[index].run_id,
            "accuracy": comparison.arms[index].accuracy,
            "delta": paired.delta if (paired := comparison.arms[index].paired) else None,
            "p": paired.p if paired else None,
            "training_seconds": comparison.arms[index].training_seconds,
        }
        for index in range(len(ablation.arms))
        for seed, comparison in zip(ablation.seeds, ablation.per_seed, strict=True)
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


def _arm_row(arm: SeedArm, ablation: Ablation) -> dict[str, Any]:
    return {
        "arm": arm.label,
        "seeds": list(ablation.seeds),
        "profile": ablation.profile,
        "protocol": ablation.protocol,
        "steps": arm.steps,
        "n": arm.n,
        **_mean("accuracy", arm.accuracy),
        **_mean("macro_accuracy", arm.macro_accuracy),
        **_mean("hard_accuracy", arm.hard_accuracy),
        **_mean("loss", arm.loss),
        **_mean("ece", arm.ece),
        **_mean("brier", arm.brier),
        **{f"floor/{name}": value for name, value in arm.trivial_baselines.items()},
        "above_floor": arm.above_trivial,
        **_difference("", arm.difference),
        "p_holm": arm.p_holm,
        **_difference("hard_", arm.hard_difference),
    }


def _mean(name: str, value: Mean | None) -> dict[str, float | None]:
    return {name: value.mean if value else None, f"{name}_sd": value.sd if value else None}


def _difference(prefix: str, found: SeedDifference | None) -> dict[str, float | None]:
    return {
        f"{prefix}delta": found.delta if found else None,
        f"{prefix}delta_sd": found.sd if found else None,
        f"{prefix}delta_low": found.low if found else None,
        f"{prefix}delta_high": found.high if found else None,
        f"{prefix}p": found.p if found else None,
    }


def _spread(row: Row, key: str) -> str:
    return "–" if row[key] is None else f"{percent(row[key])} ± {percent(row[f'{key}_sd'])}"


def _floor(row: Row) -> str:
    above, seeds = row["above_floor"], len(row["seeds"])
    if above is None:
        return "–"
    return {0: "no", seeds: "yes"}.get(above, f"{above} of {seeds}")


def _floor_style(row: Row) -> str:
    return "bold red" if row["above_floor"] not in (None, len(row["seeds"])) else ""
