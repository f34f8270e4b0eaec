"""Partial repaints that send the terminal no more than the changed cells.

Textual 8 crops a repainted span at its end only: it sends each line from the left edge of its widget on, so that a
column of cells costs as much as everything to the left of it, once for every span of the line.
"""

from __future__ import annotations

from rich.console import Console
from textual._compositor import ChopsUpdate


def _render_segments(self: ChopsUpdate, console: Console) -> str:
    """Return the escape sequences that write the spans, and nothing else."""
    parts = []
    for y, first, last in self.spans:
        for end, (start, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
            if strip is not None and start < last and end > first:
                left = max(start, first)
                parts.append(f"\x1b[{y + 1};{left + 1}H")
                parts.append(strip.crop(left - start, min(end, last) - start).render(console))
    return "".join(parts)


def install() -> None:
    """Make all partial repaints narrow."""
    ChopsUpdate.render_segments = _render_segments  # type: ignore[method-assign]
