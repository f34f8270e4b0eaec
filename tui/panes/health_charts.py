"""The charts of one run: what tells its health on the first page, then one for each other metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from rich.style import Style

from accl.store.curve import Curve
from tui import theme
from tui.feed import RunView
from tui.scale import finite_range, short
from tui.widgets.chart import Chart, Line
from tui.widgets.charts import floor_lines, kind_of
from tui.widgets.rows import RowsChart, Series

TEST_SYMBOL = "★"


@dataclass(frozen=True)
class ChartSpec:
    """A chart of metrics.

    Attributes:
        lines: names of the lines by metric.
        shares: whether the values are shares.
        floors: split whose trivial baselines are drawn, or empty.
        first: whether it is on the first page, also while it has no values.
    """

    title: str
    lines: Mapping[str, str]
    shares: bool = False
    floors: str = ""
    first: bool = False


LOSS = ChartSpec(
    "loss",
    {
        "train/loss": "total",
        "train/classification": "classification",
        "train/contrastive": "contrastive",
        "validation/loss": "validation",
    },
    first=True,
)
ACCURACY = ChartSpec(
    "accuracy",
    {"train/accuracy": "training", "validation/accuracy": "validation", "test/accuracy": "test"},
    shares=True,
    floors="validation",
    first=True,
)
LATER = (
    ChartSpec("learning rate", {"train/lr": "rate"}),
    ChartSpec("gradient norm", {"train/grad_norm": "norm"}),
    ChartSpec("questions per second", {"train/questions_per_second": "questions"}),
)
# What the machine measures: name, unit, the size of the unit, and the least value of a full cell.
GPU = (("gpu_util", "GPU", "%", 1.0, 100.0), ("power", "power", "W", 1.0, 0.0), ("gpu_memory", "memory", "G", 1e9, 0.0))
CPU = (("cpu", "of a core", "%", 1.0, 100.0), ("rss", "memory", "G", 1e9, 0.0))
ORDERS = ("category", "weight")
# Which of the series' colours a metric has, by its name or split, else the first; none is that of a floor.
COLOURS = {"train/classification": 5, "train/contrastive": 7, "validation": 1, "test": 2}


def charts_of(view: RunView, details: Mapping[str, Curve], order: str) -> list[Chart]:
    """Make all charts of a run.

    Args:
        details: finer bins of a part of the curves, by metric.
        order: of the tasks, of `ORDERS`: by category, or by their newest weight.
    """
    curves = view.curves
    known = {metric for spec in (LOSS, ACCURACY, *LATER) for metric in spec.lines}
    others = [ChartSpec(m, {m: m.rsplit("/", 1)[-1]}, m.endswith("accuracy")) for m in sorted(set(curves) - known)]
    clock = max(curves.values(), key=lambda curve: int(curve.last[-1]) if len(curve) else -1, default=None)
    charts: list[Chart] = [_chart(LOSS, view, details), _chart(ACCURACY, view, details)]
    charts += [chart for chart in (_weights(view, clock, order), _machine(view, clock)) if chart.series]
    later = (_chart(spec, view, details) for spec in (*LATER, *others))
    return charts + [chart for chart in later if chart.lines]


def _chart(spec: ChartSpec, view: RunView, details: Mapping[str, Curve]) -> Chart:
    lines = tuple(
        Line(
            name,
            view.curves[metric],
            _style(metric),
            kind_of(metric),
            detail=details.get(metric),
            metric=metric,
            symbol=TEST_SYMBOL if metric.startswith("test/") else "•",
        )
        for metric, name in spec.lines.items()
        if metric in view.curves
    )
    floors = floor_lines(view.floors(spec.floors).items()) if spec.floors else ()
    return Chart(spec.title, lines, floors, spec.shares, tuple(spec.lines), first=spec.first)


def _style(metric: str) -> Style:
    """Return the style of a metric, which is that of its split: the same on all charts of a run."""
    return theme.series_style(COLOURS.get(metric, COLOURS.get(metric.partition("/")[0], 0)))


def _weights(view: RunView, clock: Curve | None, order: str) -> RowsChart:
    series: Sequence[Series] = ()
    if (curriculum := view.curriculum) is not None and view.tasks:
        steps = curriculum.steps_S.astype(float)
        ratios = curriculum.weights_SK.astype(float) * len(view.tasks)
        by_weight = sorted(view.tasks, key=lambda task: -ratios[-1, task.index])
        tasks = by_weight if order == "weight" else sorted(by_weight, key=lambda task: task.category)
        series = [
            Series(t.name, steps, ratios[:, t.index], t.category if order == "category" else "", format=_ratio)
            for t in tasks
        ]
    return RowsChart(
        "task weights",
        series=series,
        clock=clock,
        heat=True,
        otherwise="uniform",
        metrics=("curriculum",),
        first=True,
    )


def _machine(view: RunView, clock: Curve | None) -> RowsChart:
    series = []
    measured = {name: values for name, values in view.system.items() if len(values[0])}
    for i, (name, label, unit, size, least) in enumerate(GPU if "gpu_util" in measured else CPU):
        if name in measured:
            seconds, values = measured[name]
            _, highest = finite_range([values]) or (0.0, 0.0)
            top = max(least, highest / size)
            style = Style(color=theme.SERIES[i])
            series.append(
                Series(label, seconds, values / size, style=style, format=partial(_amount, unit=unit), top=top)
            )
    return RowsChart(
        "machine",
        series=series,
        clock=clock,
        unit="time",
        metrics=("system",),
        first=True,
        fixed_rows=len(series),
    )


def _ratio(value: float) -> str:
    return f"×{value:.2f}"


def _amount(value: float, unit: str) -> str:
    return f"{value:.1f}{unit}" if value < 10 else f"{short(round(value))}{unit}"
