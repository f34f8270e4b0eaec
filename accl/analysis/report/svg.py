"""Drawings of a report as SVG within HTML: they scale, print, and take their colours from the page's style sheet.

Every text goes through `escape`. Arms have the classes ``a0`` to ``a7``, which give them a colour, and dashes of their
own. Coordinates are in units of the view box, about one pixel each.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

import numpy as np

from accl.analysis.figures import ForestRow, Matrix, Panel, TaskRow, Weights
from accl.store.curve import Floats
from accl.text import printable, without_credentials

LONGEST = 400  # characters of a text on the page; a note or a message of a run may have more
LABEL = 34  # characters of a label within a drawing
WIDE_LABEL = 46  # beside an interval
ARM_COLOURS = 8
DASHES = ("", "7 3", "8 3 2 3", "2 3", "12 3", "5 2 1 2 1 2", "3 3", "10 3 4 3")
HEAVIEST = 5  # tasks with a line of their own among the weights
LEVELS = 11  # colours of a heat map
CELL = 6  # side of a cell of a heat map
FEW_TASKS = 240  # side of a heat map at least, so that the cells of few tasks are larger
WIDTH, HEIGHT = 470.0, 270.0  # of a chart over training
POINTS_WITH_VALUES = 30  # a line of no more points has a dot with its value at each


def escape(text: object, longest: int = LONGEST) -> str:
    """Return a text as HTML that shows it as it is: printable, without credentials, cut where it is too long."""
    plain = printable(without_credentials(str(text)))
    return html.escape(plain if len(plain) <= longest else f"{plain[: longest - 1]}…")


def label(text: object, longest: int = LABEL) -> str:
    """Return a text as short as there is room for within a drawing."""
    return escape(text, longest)


def task_name(name: str) -> str:
    """Return the name of a task in words, escaped."""
    return label(name.replace("_", " "))


def arm_class(index: int) -> str:
    """Return the class of the arm number ``index``."""
    return f"a{index % ARM_COLOURS}"


def dashes(index: int) -> str:
    """Return the attribute with the dashes of the arm number ``index``; arms of equal colour have others."""
    pattern = DASHES[(index + index // ARM_COLOURS) % len(DASHES)]
    return f' stroke-dasharray="{pattern}"' if pattern else ""


def svg(width: float, height: float, parts: Iterable[str], title: str, css: str = "chart") -> str:
    """Return a drawing; ``title``, already escaped, is read out in its place."""
    size = f'viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px"'
    return f'<svg class="{css}" {size} role="img" aria-label="{title}">{"".join(parts)}</svg>'


def key(labels: Sequence[str], first: int = 0, *, dots: bool = False) -> str:
    """Return the key of lines, whose classes count from ``first`` on, or that of a ring and ``dots``."""
    items = []
    for i, text in enumerate(labels, first):
        line = f'<path class="line {arm_class(i)}" d="M1 5H33"{dashes(i)}/>'
        dot = f'<circle class="{"dot" if i else "ring"} {arm_class(i)}" cx="28" cy="5" r="3.2"/>'
        items.append(f'<li><svg viewBox="0 0 34 10" class="swatch">{dot if dots else line}</svg>{escape(text)}</li>')
    return f'<ul class="key">{"".join(items)}</ul>'


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """Return about ``count`` round values between two ends: steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low] if math.isfinite(low) else []
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Write a number in few characters, with a true minus sign."""
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text.replace("-", "−")


class Frame:
    """A plot area with scales for both axes: draws its own axes, and places values."""

    def __init__(
        self, width: float, height: float, x: tuple[float, float], y: tuple[float, float], left: float = 48
    ) -> None:
        self.left, self.right, self.top, self.bottom = left, width - 10, 8.0, height - 38
        self.x_ends, self.y_ends = x, y

    def x(self, value: float) -> float:
        """Return the horizontal place of a value."""
        low, high = self.x_ends
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Return the vertical place of a value."""
        low, high = self.y_ends
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def path(self, x_P: Floats, y_P: Floats) -> str:
        """Return the commands of a line through points, broken where a value is not finite."""
        commands, drawing = [], False
        for x, y in zip(x_P.tolist(), y_P.tolist(), strict=True):
            if math.isfinite(x) and math.isfinite(y):
                commands.append(f"{'L' if drawing else 'M'}{self.x(x):.1f} {self.y(y):.1f}")
            drawing = math.isfinite(x) and math.isfinite(y)
        return "".join(commands)

    def axes(self, x_title: str, y_title: str) -> list[str]:
        """Return grid, numbers and titles, which are escaped already; without ``y_title`` only those of the x axis."""
        parts = []
        for tick in round_ticks(*self.y_ends, 5) if y_title else []:
            y = self.y(tick)
            parts.append(f'<path class="grid" d="M{self.left:g} {y:.1f}H{self.right:g}"/>')
            parts.append(f'<text x="{self.left - 5:g}" y="{y + 3.5:.1f}" class="end">{number(tick)}</text>')
        for tick in round_ticks(*self.x_ends, 6):
            x = self.x(tick)
            parts.append(f'<path class="grid" d="M{x:.1f} {self.top:g}V{self.bottom:g}"/>')
            parts.append(f'<text x="{x:.1f}" y="{self.bottom + 14:g}" class="mid">{number(tick)}</text>')
        middle = (self.left + self.right) / 2
        parts.append(f'<text x="{middle:.1f}" y="{self.bottom + 31:g}" class="mid">{x_title}</text>')
        if y_title:
            place = (self.top + self.bottom) / 2
            parts.append(f'<text transform="translate(11 {place:.1f}) rotate(-90)" class="mid">{y_title}</text>')
        return parts


def ends(values: Iterable[Floats], margin: float = 0.04) -> tuple[float, float]:
    """Return the ends of an axis for values, with a margin; around one value alone, and 0 to 1 without any."""
    known = np.concatenate([each[np.isfinite(each)] for each in values] or [np.zeros(0)])
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    room = (high - low) * margin if high > low else abs(high) * 0.5 or 0.5
    return low - room, high + room


def line_chart(panel: Panel, labels: Sequence[str]) -> str:
    """Draw a metric of all arms, whose labels in order give the classes: mean over seeds, and ± one sd as a band."""
    spread = [np.nan_to_num(band.sd_P) for band in panel.bands]
    heights = [band.mean_P + sign * sd for band, sd in zip(panel.bands, spread, strict=True) for sign in (-1, 1)]
    frame = Frame(WIDTH, HEIGHT, ends([band.x_P for band in panel.bands], 0.02), ends(heights))
    parts = frame.axes(escape(panel.x_title), escape(panel.title))
    for band in panel.bands:
        known = np.isfinite(band.sd_P)
        if known.any():
            x, mean, sd = band.x_P[known], band.mean_P[known], band.sd_P[known]
            outline = frame.path(np.concatenate([x, x[::-1]]), np.concatenate([mean + sd, (mean - sd)[::-1]]))
            parts.append(f'<path class="band {arm_class(labels.index(band.label))}" d="{outline}Z"/>')
    for band in panel.bands:
        index = labels.index(band.label)
        line = frame.path(band.x_P, band.mean_P)
        parts.append(f'<path class="line {arm_class(index)}" d="{line}"{dashes(index)}/>')
        if len(band.x_P) <= POINTS_WITH_VALUES:
            for x, y, sd in zip(band.x_P.tolist(), band.mean_P.tolist(), band.sd_P.tolist(), strict=True):
                said = f"{label(band.label)}, {number(x)}: {number(y)}" + (f" ± {number(sd)}" if sd >= 0 else "")
                place = f'cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}"'
                parts.append(f'<circle class="dot {arm_class(index)}" {place} r="2.6"><title>{said}</title></circle>')
    return svg(WIDTH, HEIGHT, parts, escape(panel.title))


def forest_chart(rows: Sequence[ForestRow], labels: Sequence[str], reference: str, width: float = 760) -> str:
    """Draw the difference of each arm to the reference with its 95 % interval, and every pair of seeds as a tick."""
    height = 52 + 34 * len(rows)
    values = [np.array([0.0, row.low, row.high, *row.per_seed]) for row in rows]
    left = 40 + 6.1 * min(WIDE_LABEL, max(len(row.label) for row in rows))
    frame = Frame(width - 200, height, ends(values), (len(rows) - 0.5, -0.5), left=left)
    parts = frame.axes(f"difference to {label(reference, WIDE_LABEL)} (points)", "")
    parts.append(f'<path class="zero" d="M{frame.x(0):.1f} {frame.top:g}V{frame.bottom:g}"/>')
    for place, row in enumerate(rows):
        y, css = frame.y(place), arm_class(labels.index(row.label))
        parts.append(f'<text x="{frame.left - 10:g}" y="{y + 4:.1f}" class="end">{label(row.label, WIDE_LABEL)}</text>')
        parts.append(f'<path class="interval {css}" d="M{frame.x(row.low):.1f} {y:.1f}H{frame.x(row.high):.1f}"/>')
        for value in row.per_seed:
            x = frame.x(value)
            said = f"<title>one pair of seeds: {value:+.2f} points</title>"
            parts.append(f'<path class="seed" d="M{x:.1f} {y + 5:.1f}v7">{said}</path>')
        x = frame.x(row.delta)
        parts.append(f'<path class="mark {css}" d="M{x - 4:.1f} {y - 4:.1f}h8v8h-8z"/>')
        says = f"{row.delta:+.2f} [{row.low:+.2f}, {row.high:+.2f}]".replace("-", "−")
        parts.append(f'<text x="{frame.right + 14:g}" y="{y + 4:.1f}">{says}</text>')
    return svg(width, height, parts, f"differences to {label(reference)}")


def weights_chart(weights: Weights, highest: float) -> str:
    """Draw the weight of every task over time, in per cent, and those that are heaviest in the end in colours."""
    frame = Frame(WIDTH, HEIGHT, ends([weights.steps_P], 0.02), (0.0, 105 * highest))
    k = weights.mean_PK.shape[1]
    parts = frame.axes("optimizer step", "task weight (%)")
    lines = "".join(frame.path(weights.steps_P, 100 * weights.mean_PK[:, task]) for task in range(k))
    parts.append(f'<path class="others" d="{lines}"/>')
    parts.append(f'<path class="zero" d="M{frame.left:g} {frame.y(100 / k):.1f}H{frame.right:g}"/>')
    for rank, task in enumerate(weights.heaviest[:HEAVIEST], 1):
        line = frame.path(weights.steps_P, 100 * weights.mean_PK[:, task])
        said = f"<title>{task_name(weights.tasks[task].name)}</title>"
        parts.append(f'<path class="line {arm_class(rank)}" d="{line}"{dashes(rank)}>{said}</path>')
    return svg(WIDTH, HEIGHT, parts, f"task weights of {label(weights.label)}")


def matrix_chart(matrix: Matrix, low: float, high: float) -> str:
    """Draw a matrix in `LEVELS` colours between two values, with lines between categories.

    All cells of a colour are one path: a matrix of 57 x 57 takes 50 kB.
    """
    k, left, top = len(matrix.tasks), 96, 4
    size = max(CELL, FEW_TASKS // k)
    share = (matrix.values_KK - low) / ((high - low) or 1.0)
    level = np.clip(np.nan_to_num(np.floor(share * LEVELS), nan=-1), 0, LEVELS - 1).astype(int)
    level[~np.isfinite(matrix.values_KK)] = -1
    prefix, parts = "d" if matrix.difference else "h", []
    for number_ in range(LEVELS):
        rows, columns = np.nonzero(level == number_)
        cells = "".join(
            f"M{left + size * column} {top + size * row}h{size}v{size}h-{size}z"
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        )
        if cells:
            parts.append(f'<path class="{prefix}{number_}" d="{cells}"/>')
    side, place = size * k, 0
    for name, n in matrix.categories:
        middle = top + size * (place + n / 2) + 4
        parts.append(f'<text x="{left - 6}" y="{middle:g}" class="end">{escape(name, 16)}</text>')
        place += n
        if place < k:
            at = size * place
            parts.append(f'<path class="rule" d="M{left} {top + at}h{side}M{left + at} {top}v{side}"/>')
    return svg(left + side + 4, top + side + 4, parts, f"confusion of {label(matrix.label)}", "heat")


def scale_bar(low: float, high: float, difference: bool) -> str:
    """Draw the colours of a matrix between their ends."""
    prefix, width = "d" if difference else "h", 22
    parts = [
        f'<path class="{prefix}{level}" d="M{60 + level * width} 2h{width}v10h-{width}z"/>' for level in range(LEVELS)
    ]
    end = 60 + LEVELS * width
    parts.append(
        f'<text x="54" y="11" class="end">{number(low)}</text><text x="{end + 6}" y="11">{number(high)}</text>'
    )
    return svg(end + 60, 15, parts, f"from {number(low)} to {number(high)}", "heat")


def tasks_chart(rows: Sequence[TaskRow], labels: Sequence[str], split: str, width: float = 760) -> str:
    """Draw the accuracy of every arm by task, a row per task: the reference as a ring, the others as dots."""
    height = 48 + 15 * len(rows)
    values = [np.array(list(row.accuracy.values())) for row in rows]
    frame = Frame(width, height, ends(values), (len(rows) - 0.5, -0.5), left=250)
    parts = frame.axes(f"{split} accuracy (%)", "")
    for place, row in enumerate(rows):
        y, known = frame.y(place), row.accuracy.values()
        parts.append(
            f'<text x="{frame.left - 10:g}" y="{y + 4:.1f}" class="end">{task_name(row.name)} ({row.n:,})</text>'
        )
        parts.append(f'<path class="others" d="M{frame.x(min(known)):.1f} {y:.1f}H{frame.x(max(known)):.1f}"/>')
        for index, name in [*enumerate(labels)][::-1]:
            if name in row.accuracy:
                # Arms of equal accuracy stand above each other.
                level = y + (index - (len(labels) - 1) / 2) * min(3.0, 9 / len(labels))
                said = f"<title>{label(name)}: {row.accuracy[name]:.1f} %</title>"
                css = "ring" if index == 0 else "dot"
                place_ = f'cx="{frame.x(row.accuracy[name]):.1f}" cy="{level:.1f}"'
                parts.append(f'<circle class="{css} {arm_class(index)}" {place_} r="3.2">{said}</circle>')
    return svg(width, height, parts, f"{split} accuracy by task")
