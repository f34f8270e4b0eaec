"""Styles of the app, whose colours have names that the palette in use translates when a line is made.

Widgets draw with the styles of this module, whatever the palette is: `painted` translates them, in `tui.text.strip`
alone. Another palette is therefore no more than a repaint, and what is drawn does not know of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.style import Style
from textual.theme import BUILTIN_THEMES, Theme

from accl.store.state import State
from tui.palettes import PALETTES, Palette

DEFAULT = "dark"
RAMP = " ░▒▓█"
DIVERGING_RAMP = "=- +#"
SERIES_COUNT = 8
SHADES = ("", "*78", "*60")
FULL_COLOUR_TERMS = ("256color", "direct", "kitty", "alacritty", "ghostty")


@lru_cache(1024)
def _named(name: str) -> Color:
    """Return a colour that `painted` translates by its name; untranslated, it is that of the dark palette."""
    return PALETTES[DEFAULT].colour(name)._replace(name=name)


BACKGROUND, SURFACE, PANEL = _named("background"), _named("surface"), _named("panel")
TEXT, GREY, DARK_GREY, DARKEST_GREY = _named("text"), _named("grey"), _named("dim"), _named("rule")
ACCENT, GOOD, WARN, BAD, INFO = _named("accent"), _named("good"), _named("warn"), _named("bad"), _named("info")
SERIES = tuple(_named(f"s{i + 1}") for i in range(SERIES_COUNT))

PLAIN, DIM, VERY_DIM, RULE = Style(color=TEXT), Style(color=GREY), Style(color=DARK_GREY), Style(color=DARKEST_GREY)
BOLD = Style(color=TEXT, bold=True)
TITLE = Style(color=ACCENT, bold=True)
CURSOR, CURSOR_UNFOCUSED = Style(bgcolor=_named("cursor")), Style(bgcolor=_named("unfocused"))
MARK = Style(color=WARN, bold=True)
ERROR = Style(color=BAD, bold=True)
LESS, MORE = Style(color=_named("blue")), Style(color=_named("orange"))

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
_ARM_COLOUR = {"baseline": "baseline", "contrastive": "orange", "full": "blue"}

_current = PALETTES[DEFAULT]


def use(name: str) -> None:
    """Use a palette from now on; what is on screen has to be drawn again."""
    global _current
    _current = PALETTES[name]


def current() -> Palette:
    """Return the palette in use."""
    return _current


def forced_palette(environment: Mapping[str, str]) -> str | None:
    """Return the palette that a terminal's limits ask for: NO_COLOR, or 16 colours; None if it can show all."""
    if environment.get("NO_COLOR"):
        return "no-colours"
    terminal = environment.get("TERM", "")
    if environment.get("COLORTERM") in ("truecolor", "24bit") or any(part in terminal for part in FULL_COLOUR_TERMS):
        return None
    return "16-colours"


def painted(style: Style) -> Style:
    """Return the style in the colours of the palette in use."""
    return _painted(style, _current.name)


@lru_cache(16384)
def _painted(style: Style, palette_name: str) -> Style:
    palette = PALETTES[palette_name]
    result = style + Style(color=_translated(style.color, palette), bgcolor=_translated(style.bgcolor, palette))
    # Where the terminal decides about colours, a background might hide the text: the cursor is told by attributes.
    if palette.ansi and style.bgcolor == CURSOR.bgcolor:
        return result + Style(reverse=True)
    if palette.ansi and style.bgcolor == CURSOR_UNFOCUSED.bgcolor:
        return result + Style(underline=True)
    return result


def _translated(colour: Color | None, palette: Palette) -> Color | None:
    """Return the palette's colour, or None for one that has no name in it."""
    if colour is None or colour.name.partition("*")[0] not in palette.colours:
        return None
    return palette.colour(colour.name)


def textual_theme(palette: Palette) -> Theme:
    """Return the theme of Textual's style sheets that belongs to a palette."""
    colours = {name: f"ansi_{colour}" if palette.ansi else colour for name, colour in palette.colours.items()}
    return Theme(
        name=f"accl-{palette.name}",
        primary=colours["accent"],
        secondary=colours["info"],
        accent=colours["accent"],
        warning=colours["warn"],
        error=colours["bad"],
        success=colours["good"],
        foreground=colours["text"],
        background=colours["background"],
        surface=colours["surface"],
        panel=colours["panel"],
        dark=palette.dark,
        ansi=palette.ansi,
        variables={
            **(BUILTIN_THEMES["ansi-dark"].variables if palette.ansi else {}),
            "scrollbar": colours["rule"],
            "scrollbar-background": colours["background"],
            "scrollbar-hover": colours["dim"],
        },
    )


@cache
def state_style(state: State) -> Style:
    """Return the style of a state; colour only repeats what the icon and the word say."""
    return Style(color=_STATE_COLOUR[state], bold=state.active or state in (State.CRASHED, State.FAILED))


def series_style(index: int) -> Style:
    """Return the style of the series with this index; colours repeat after `SERIES`."""
    return Style(color=SERIES[index % len(SERIES)])


def arm_style(recipe: str, seed: int | None = None) -> Style:
    """Return the style of an arm, the same on every screen and in every run; a seed has a shade of it.

    Baseline is grey, contrastive orange, full blue; any other has one of `SERIES` by a hash of its name.
    """
    name = _ARM_COLOUR.get(recipe) or f"s{zlib.crc32(recipe.encode(errors='replace')) % SERIES_COUNT + 1}"
    return Style(color=_named(name + ("" if seed is None else SHADES[seed % len(SHADES)])))


def faded(style: Style, share: float = 0.35) -> Style:
    """Blend the colour into the background: for what stands behind a line."""
    if style.color is None:
        return style
    name, _, before = style.color.name.partition("*")
    if name not in _current.colours:
        return style
    return Style(color=_named(f"{name}*{round(share * (int(before) if before else 100))}"))


def viridis(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Map shares in [0, 1] to the RGB colours of the palette's heat maps, in a new last axis of 3."""
    return _mixed(_current.heat, shares)


def diverging(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Map shares in [0, 1] to RGB as `viridis` does: from `LESS` over neutral at 0.5 to `MORE`."""
    return _mixed(_current.diverging, shares)


def _mixed(heat: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Interpolate between N colours that are as far from each other on [0, 1]."""
    position = np.clip(shares, 0.0, 1.0) * (len(heat) - 1)
    below = np.clip(np.floor(position).astype(np.int64), 0, len(heat) - 2)
    part = (position - below)[..., None]
    mixed: NDArray[np.uint8] = np.rint(heat[below] * (1 - part) + heat[below + 1] * part).astype(np.uint8)
    return mixed


def ramp(share: float) -> str:
    """Map a share in [0, 1] to a character, for heat maps without colours of their own."""
    return RAMP[round(min(max(share, 0.0), 1.0) * (len(RAMP) - 1))]


def diverging_ramp(share: float) -> str:
    """Map a share in [0, 1] to a character as `ramp` does: of less, of nothing at 0.5, or of more."""
    return DIVERGING_RAMP[round(min(max(share, 0.0), 1.0) * (len(DIVERGING_RAMP) - 1))]
