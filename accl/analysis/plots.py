"""Figures for a paper, drawn by matplotlib: readable without colours, and the same bytes from the same numbers.

Arms differ by line style and marker as well as by colour, and the colour maps grow lighter from low to high, so that a
print in grey says the same. matplotlib (the extra ``paper``) is imported when a figure is drawn.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accl.analysis.figures import ForestRow, Matrix, Panel, TaskRow, Weights, limits
from accl.errors import AcclError
from accl.files import replace_file
from accl.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".pdf", ".svg", ".png")
WIDTHS = {1: 3.25, 2: 6.75}  # inches: one column of a page with two, and both
PANEL_HEIGHT = 2.1  # inches
DPI = 300
LABELLED = 5  # tasks with a line of their own among the weights
SMALL = 6  # points
BESIDE = {1: 16, 2: 44}  # characters of a label for which there is room beside an interval, by columns
LEAST_ROW = 5  # points; a lower row of a matrix has no room for a name
LONGEST = 48  # characters of a label
# The colours of Okabe and Ito, in an order in which neighbours differ in lightness.
COLOURS = ("#333333", "#d55e00", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (3, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "lines.markersize": 3,
    "grid.linewidth": 0.3,
    "grid.alpha": 0.5,
    "text.parse_math": False,  # the names of runs are text: a dollar sign is one
    "text.usetex": False,
    "pdf.fonttype": 42,  # TrueType fonts, embedded: publishers refuse Type 3
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "accl",  # ids of parts are random without it
}
# Without the time of the day, which would make two equal figures differ.
METADATA: dict[str, dict[str, Any]] = {
    ".pdf": {"CreationDate": None, "Creator": "accl", "Producer": None},
    ".svg": {"Date": None, "Creator": "accl"},
    ".png": {"Software": "accl"},
}


def check_matplotlib() -> None:
    """Make sure that matplotlib can be imported.

    Raises:
        AcclError: it is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        what = f"Figures are drawn by matplotlib, which cannot be imported ({error})."
        raise AcclError(what, "Install it:  pip install 'accl[paper]'") from error


def save(path: Path, draw: Callable[[Figure], None]) -> list[str]:
    """Draw a figure and write it in one step, in the format of the file's suffix.

    Returns:
        What matplotlib warned of, such as letters that the font lacks; each once.

    Raises:
        OSError: it cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    suffix, content = path.suffix.lower(), io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        matplotlib.rcdefaults()  # a user's own settings would make the figure another one elsewhere
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(layout="constrained")
        draw(figure)
        figure.savefig(content, format=suffix[1:], dpi=DPI, metadata=METADATA[suffix])
    replace_file(path, content.getvalue())
    return list(dict.fromkeys(printable(str(warning.message)) for warning in caught))


def draw_curves(figure: Figure, panels: Sequence[Panel], columns: int) -> None:
    """Draw each metric with a line per arm: the mean over seeds, and one standard deviation on each side as a band."""
    across = min(columns, len(panels))
    down = math.ceil(len(panels) / across)
    labels = list(dict.fromkeys(band.label for panel in panels for band in panel.bands))
    figure.set_size_inches(WIDTHS[columns], PANEL_HEIGHT * down + _legend_height(labels, columns))
    handles: dict[str, Any] = {}
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(down, across, place + 1)
        for band in panel.bands:
            style = _style(labels.index(band.label))
            every = max(1, len(band.x_P) // 8)
            (line,) = axes.plot(band.x_P, band.mean_P, label=_label(band.label), markevery=every, **style)
            handles.setdefault(band.label, line)
            if np.isfinite(band.sd_P).any():
                low, high = band.mean_P - band.sd_P, band.mean_P + band.sd_P
                axes.fill_between(band.x_P, low, high, color=style["color"], alpha=0.18, linewidth=0)
        _titles(axes, panel.x_title, panel.title)
    _legend(figure, [handles[label] for label in labels], labels, columns)


def draw_weights(figure: Figure, found: Sequence[Weights], columns: int) -> None:
    """Draw the weight of every task over time for each arm, the heaviest at the end with a name."""
    across = min(columns, len(found))
    down = math.ceil(len(found) / across)
    figure.set_size_inches(WIDTHS[columns], (PANEL_HEIGHT + 0.8) * down)
    highest = max(float(weights.mean_PK.max()) for weights in found)
    for place, weights in enumerate(found):
        axes = figure.add_subplot(down, across, place + 1)
        k = weights.mean_PK.shape[1]
        axes.plot(weights.steps_P, 100 * weights.mean_PK, color="#b0b0b0", linewidth=0.4)
        axes.axhline(100 / k, color="black", linewidth=0.8, linestyle=(0, (1, 1)), label="uniform")
        for rank, task in enumerate(weights.heaviest[:LABELLED]):
            label = _task_name(weights.tasks[task].name)
            every = max(1, len(weights.steps_P) // 8)
            axes.plot(weights.steps_P, 100 * weights.mean_PK[:, task], label=label, markevery=every, **_style(rank + 1))
        axes.set_ylim(0, 105 * highest)
        axes.set_title(_label(weights.label))
        _titles(axes, "optimizer step", "task weight (%)")
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.22), ncols=2, handlelength=3)


def draw_confusion(figure: Figure, matrices: Sequence[Matrix], columns: int) -> None:
    """Draw matrices on one scale; task names stand beside the rows where there is room, else those of categories."""
    across = min(1 if columns == 1 else 3, len(matrices))
    down = math.ceil(len(matrices) / across)
    k = len(matrices[0].tasks)
    width = WIDTHS[columns]
    side = (width - (0.9 if across == 1 else 0.7)) / across
    named = 72 * (side - 1.2) / k >= LEAST_ROW and across == 1
    figure.set_size_inches(width, down * (side + 0.25))
    low, high = limits(matrices)
    for place, matrix in enumerate(matrices):
        axes = figure.add_subplot(down, across, place + 1)
        image = axes.imshow(
            matrix.values_KK, cmap="cividis", vmin=low, vmax=high, interpolation="nearest", aspect="equal"
        )
        axes.set_title(_label(matrix.label))
        axes.spines[:].set_visible(False)
        edges = np.cumsum([n for _, n in matrix.categories])
        for edge in edges[:-1]:
            axes.axhline(edge - 0.5, color="white", linewidth=0.6)
            axes.axvline(edge - 0.5, color="white", linewidth=0.6)
        axes.set_xticks([])
        if named:
            axes.set_yticks(range(k), [_task_name(task.name) for task in matrix.tasks], fontsize=5)
        else:
            middles = edges - np.array([n for _, n in matrix.categories]) / 2 - 0.5
            names = [_label(name) for name, _ in matrix.categories]
            first = place % across == 0
            axes.set_yticks(middles, names if first else [""] * len(names), rotation=90, va="center")
        axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=figure.axes, shrink=0.8 if down == 1 else 0.5, pad=0.02, aspect=25)
    bar.outline.set_visible(False)
    bar.set_label(_label(("difference in " if matrices[0].difference else "") + matrices[0].title))


def draw_forest(figure: Figure, rows: Sequence[ForestRow], reference: str, columns: int) -> None:
    """Draw the difference of each arm to the reference with its 95 % interval, and every pair of seeds as a tick.

    Labels stand beside the intervals, and above them where they are long, as those of a sweep's arms.
    """
    above = max(len(_label(row.label)) for row in rows) > BESIDE[columns]
    figure.set_size_inches(WIDTHS[columns], 0.85 + (0.42 if above else 0.32) * len(rows))
    axes = figure.add_subplot()
    axes.axvline(0, color="black", linewidth=0.6, linestyle=(0, (1, 1)))
    for place, row in enumerate(rows):
        axes.plot([row.low, row.high], [place, place], color="black", linewidth=1)
        axes.plot(row.per_seed, [place + 0.22] * len(row.per_seed), "|", color="#707070", markersize=4)
        axes.plot([row.delta], [place], "s", color="black", markersize=4)
        p = "p < 0.001" if row.p_holm < 0.001 else f"p = {row.p_holm:.3f}"
        says = f"{row.delta:+.2f} [{row.low:+.2f}, {row.high:+.2f}]  {p}".replace("-", "−")
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "fontsize": SMALL, "va": "center"}
        if above:
            where["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # above the line at 0
            axes.annotate(_label(row.label), (0, place - 0.36), **where)
            axes.annotate(says, (1, place - 0.36), ha="right", **where)
        else:
            axes.annotate(says, (1.02, place), **where)
    axes.set_yticks(range(len(rows)), ["" if above else _label(row.label) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.7 if above else -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"difference (points) to{chr(10) if above else ' '}{_label(reference)}")
    axes.grid(axis="x")


def draw_tasks(figure: Figure, rows: Sequence[TaskRow], labels: Sequence[str], split: str, columns: int) -> None:
    """Draw the accuracy of every arm by task, a row per task: the reference first, the others where they moved to."""
    figure.set_size_inches(WIDTHS[columns], 0.45 + 0.125 * len(rows) + _legend_height(labels, columns))
    axes = figure.add_subplot()
    places = range(len(rows))
    for place, row in enumerate(rows):
        known = list(row.accuracy.values())
        axes.plot([min(known), max(known)], [place, place], color="#c0c0c0", linewidth=0.8, zorder=1)
    handles = []
    for index, label in enumerate(labels):
        style = _style(index) | {"linestyle": "none", "zorder": 2}
        if index == 0:
            style |= {"markerfacecolor": "none", "zorder": 3}  # seen also where another one is
        values = [row.accuracy.get(label, math.nan) for row in rows]
        handles += axes.plot(values, places, **style)
    axes.set_yticks(places, [f"{_task_name(row.name)} ({row.n:,})" for row in rows], fontsize=5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{split} accuracy (%)")
    axes.grid(axis="x")
    _legend(figure, handles, labels, columns)


def _style(index: int) -> dict[str, Any]:
    """Return colour, dashes and marker number ``index``; beyond the first seven, other pairs of the two."""
    turn = index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[(index + turn) % len(DASHES)],
        "marker": MARKERS[(index + 2 * turn) % len(MARKERS)],
    }


def _titles(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(_label(x))
    axes.set_ylabel(_label(y))
    axes.grid()
    axes.margins(x=0.02)


def _legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str], columns: int) -> None:
    """Put a legend above all panels."""
    names, across = [_label(label) for label in labels], _legend_columns(labels, columns)
    figure.legend(handles, names, loc="outside upper center", ncols=across, handlelength=3)


def _legend_columns(labels: Sequence[str], columns: int) -> int:
    """Return in how many columns a legend fits, by the longest label."""
    longest = max(len(_label(label)) for label in labels)
    fits = int(WIDTHS[columns] * 72 / (SMALL * (0.6 * longest + 5)))
    return min(len(labels), max(1, fits))


def _legend_height(labels: Sequence[str], columns: int) -> float:
    """Return the height of a legend in inches."""
    return 0.12 + 0.13 * math.ceil(len(labels) / _legend_columns(labels, columns))


def _label(text: str) -> str:
    """Return a text of a run as it can stand beside a line: printable, and no longer than there is room for."""
    text = printable(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _task_name(name: str) -> str:
    return _label(name).replace("_", " ")
