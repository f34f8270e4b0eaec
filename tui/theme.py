"""The dark theme, with colours that do not rely on telling red from green."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.style import Style
from textual.theme import Theme

from accl.store.state import State

BACKGROUND, SURFACE, PANEL = "#0f1218", "#161b24", "#212936"
TEXT, GREY, DARK_GREY, DARKEST_GREY = "#d5dbe5", "#8f9bad", "#5b6779", "#38424f"
ACCENT, GOOD, WARN, BAD, INFO = "#5cb8e6", "#35bd94", "#ecc94b", "#f0795b", "#8aa7ff"

THEME = Theme(
    name="accl",
    primary=ACCENT,
    secondary=INFO,
    accent=ACCENT,
    warning=WARN,
    error=BAD,
    success=GOOD,
    foreground=TEXT,
    background=BACKGROUND,
    surface=SURFACE,
    panel=PANEL,
    dark=True,
    variables={"scrollbar": PANEL, "scrollbar-background": BACKGROUND, "scrollbar-hover": DARKEST_GREY},
)

# After Okabe and Ito: distinct for colour-blind readers as well; lightened for a dark background.
SERIES = ("#5cb8e6", "#f2a93b", "#35bd94", "#dd8fbd", "#f2e863", "#f0795b", "#8aa7ff", "#c3c9d3")

PLAIN, DIM, VERY_DIM, RULE = Style(color=TEXT), Style(color=GREY), Style(color=DARK_GREY), Style(color=DARKEST_GREY)
BOLD = Style(color=TEXT, bold=True)
TITLE = Style(color=ACCENT, bold=True)
CURSOR, CURSOR_UNFOCUSED = Style(bgcolor="#234a63"), Style(bgcolor=PANEL)
MARK = Style(color=WARN, bold=True)
ERROR = Style(color=BAD, bold=True)

_STATE_COLOUR = {
    State.QUEUED: GREY,
    State.STARTING: INFO,
    State.RUNNING: GOOD,
    State.STALLED: WARN,
    State.FINISHED: ACCENT,
    State.FAILED: BAD,
    State.STOPPED: GREY,
    State.CRASHED: BAD,
}


def state_style(state: State) -> Style:
    """Return the style of a state; colour only repeats what the icon and the word say."""
    return Style(color=_STATE_COLOUR[state], bold=state.active or state in (State.CRASHED, State.FAILED))


def series_style(index: int) -> Style:
    """Return the style of the series with this index; colours repeat after `SERIES`."""
    return Style(color=SERIES[index % len(SERIES)])


def faded(style: Style, share: float = 0.35) -> Style:
    """Blend the colour into the background: for raw values behind a smoothed line."""
    if style.color is None:
        return style
    foreground, background = style.color.get_truecolor(), [int(BACKGROUND[i : i + 2], 16) for i in (1, 3, 5)]
    mixed = [round(a * share + b * (1 - share)) for a, b in zip(foreground, background, strict=True)]
    return Style(color="#{:02x}{:02x}{:02x}".format(*mixed))


# 16 of the 256 steps of viridis (Smith and van der Walt), which is close to linear between them.
_VIRIDIS = np.array(
    [
        (68, 1, 84), (72, 26, 108), (71, 47, 125), (65, 68, 135), (57, 86, 140), (49, 104, 142), (42, 120, 142),
        (35, 136, 142), (31, 152, 139), (34, 168, 132), (53, 183, 121), (84, 197, 104), (122, 209, 81),
        (165, 219, 54), (210, 226, 27), (253, 231, 37),
    ],
    dtype=np.float64,
)  # fmt: skip


def viridis(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Map shares in [0, 1] to RGB colours, in a new last axis of 3."""
    position = np.clip(shares, 0.0, 1.0) * (len(_VIRIDIS) - 1)
    below = np.clip(np.floor(position).astype(np.int64), 0, len(_VIRIDIS) - 2)
    part = (position - below)[..., None]
    mixed: NDArray[np.uint8] = np.rint(_VIRIDIS[below] * (1 - part) + _VIRIDIS[below + 1] * part).astype(np.uint8)
    return mixed
