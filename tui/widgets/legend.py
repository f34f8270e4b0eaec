"""The colour scales of a heatmap."""

from __future__ import annotations

import numpy as np
from rich.color import Color
from rich.style import Style
from textual.strip import Strip

from tui import theme
from tui.matrix import Scale, compact
from tui.text import Piece, strip
from tui.widgets.heatmap import Heatmap
from tui.widgets.strip import StripWidget

MAX_CELLS = 24  # of a scale


class Legend(StripWidget):
    """The colour scales of a heatmap, with values at some of the colours."""

    def __init__(self, heatmap: Heatmap, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.heatmap = heatmap
        self.titles = ("", "")

    def draw(self, width: int, height: int) -> list[Strip]:
        grid = self.heatmap
        if not len(grid.matrix):
            return []
        both = grid.lower is not None
        cells = max(6, min(MAX_CELLS, (width - 24) // (6 if both else 3)))
        pieces = self._scale(self.titles[0], grid.scale, cells)
        if both:
            pieces += [("  ", theme.PLAIN), *self._scale(self.titles[1], grid.lower_scale, cells)]
        return [strip([*pieces, (f"  {grid.scale.kind}", theme.VERY_DIM)], width)]

    def _scale(self, title: str, scale: Scale, cells: int) -> list[Piece]:
        """Draw the lower, the middle and the upper end of a scale with their values, and the colours between them."""
        shares = np.linspace(0.0, 1.0, cells)
        colours = theme.diverging(shares) if scale.diverging else theme.viridis(shares)
        ramp = theme.diverging_ramp if scale.diverging else theme.ramp
        if theme.current().ramp:
            blocks: list[Piece] = [(ramp(float(share)), theme.PLAIN) for share in shares]
        else:
            blocks = [(" ", Style(bgcolor=Color.from_rgb(*rgb))) for rgb in colours.tolist()]
        low, middle, high = (compact(scale.at(share)) for share in (0.0, 0.5, 1.0))
        half = cells // 2
        return [
            (f"{title} " if title else "", theme.DIM),
            (f"{low} ", theme.DIM),
            *blocks[:half],
            (f" {middle} ", theme.DIM),
            *blocks[half:],
            (f" {high}", theme.DIM),
        ]
