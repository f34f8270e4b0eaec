"""Palettes: how each colour of the app looks, on which background, and where colours cannot be told apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rich.color import Color

# Colours of the app by name. A palette lists them in the order of `NAMES`.
BACKGROUNDS = ("background", "surface", "panel", "cursor", "unfocused")
TEXTS = ("text", "grey", "dim", "accent", "good", "warn", "bad", "info")
ARMS = ("baseline", "orange", "blue", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8")
NAMES = (*BACKGROUNDS, "rule", *TEXTS, *ARMS)


@dataclass(frozen=True)
class Palette:
    """A colour for each name, as ``#rrggbb`` or as one of the terminal's own.

    Attributes:
        dark: whether text is lighter than its background.
        ansi: whether the colours are the terminal's own, which then decides about background and contrast.
        plain: whether there are no colours: heat maps use a ramp of characters, lines differ by their pattern.
        heat: colours of a heat map from low to high, N x 3 in RGB.
    """

    name: str
    colours: Mapping[str, str]
    heat: NDArray[np.float64]
    dark: bool = True
    ansi: bool = False
    plain: bool = False

    @property
    def ramp(self) -> bool:
        """Whether heat maps are drawn as a ramp of characters."""
        return self.ansi

    @cached_property
    def diverging(self) -> NDArray[np.float64]:
        """Colours for less, as much and more, 3 x 3 in RGB: blue and orange, which colour-blind eyes tell apart."""
        return np.array([self.colour(name).get_truecolor() for name in ("blue", "panel", "orange")], np.float64)

    def colour(self, name: str) -> Color:
        """Return the colour of a name, or of ``NAME*SHARE``: so many percent of it, the rest background."""
        name, _, share = name.partition("*")
        colour = Color.parse(self.colours[name])
        if not share or self.ansi:
            return colour
        foreground, background = colour.get_truecolor(), Color.parse(self.colours["background"]).get_truecolor()
        part = int(share) / 100
        return Color.from_rgb(*(round(a * part + b * (1 - part)) for a, b in zip(foreground, background, strict=True)))


def _palette(
    name: str, colours: str, heat: str, *, dark: bool = True, ansi: bool = False, plain: bool = False
) -> Palette:
    rgb = np.array([[int(text[i : i + 2], 16) for i in (0, 2, 4)] for text in heat.split()], dtype=np.float64)
    return Palette(name, dict(zip(NAMES, colours.split(), strict=True)), rgb, dark, ansi, plain)


# 16 of the 256 steps of viridis (Smith and van der Walt) and 9 of cividis (Nunez, Anderton and Renslow), which are
# close to linear between them.
_VIRIDIS = """440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e 1f988b 22a884 35b779 54c568 7ad151
    a5db36 d2e21b fde725"""
_CIVIDIS = "00224e 123570 3b496c 575d6d 707173 8a8678 a59c74 c3b369 fee838"

# Text has a contrast of at least 4.5 : 1 on every background (7 : 1 with high contrast), series too. The colour-blind
# palette uses the colours of Okabe and Ito, and tells good from bad as blue from orange.
_DARK = """
    #0f1218 #161b24 #1d2430 #15303f #1d2430 #3d4856 #d5dbe5 #9aa5b6 #8b95a6 #5cb8e6 #35bd94 #ecc94b #f0795b #8aa7ff
    #a9b1bd #f2a93b #5cb8e6 #35bd94 #dd8fbd #f2e863 #f0795b #8aa7ff #b58ce8 #7fd8d0 #b5cf6b"""
_LIGHT = """
    #fcfcfb #f1f2f4 #e4e7ec #cfe3f3 #e4e7ec #b9c1cc #1c232d #4a5564 #596474 #0b68a0 #0c7151 #825c00 #ad3c1d #3758cf
    #5a636f #945300 #0b68a0 #0c7151 #9f4079 #726300 #ad3c1d #3758cf #7440b5 #0a6b77 #4f6b18"""
_HIGH_CONTRAST = """
    #000000 #0a0a0a #1a1a1a #003a66 #262626 #8a8a8a #ffffff #e0e0e0 #c9c9c9 #71d5ff #4be3a5 #ffd83a #ffb9a6 #b6c8ff
    #c9c9c9 #ffbc5e #71d5ff #4be3a5 #ffb3df #fff36b #ffb9a6 #b6c8ff #dcbcff #8ff0e6 #cfe97a"""
_COLOUR_BLIND = """
    #0f1218 #161b24 #1d2430 #15303f #1d2430 #3d4856 #d5dbe5 #9aa5b6 #8b95a6 #56b4e9 #56b4e9 #f0e442 #e69f00 #cd7ba8
    #a9b1bd #e69f00 #56b4e9 #00ab7c #cd7ba8 #f0e442 #f46c00 #009bf2 #f5c7e0 #7fe0c0 #ffffff"""
_ANSI = """default default default default default bright_black default default default
    bright_cyan bright_green bright_yellow bright_red bright_blue
    default bright_yellow bright_blue bright_green bright_magenta bright_cyan bright_red green magenta cyan red"""

PALETTES = {
    palette.name: palette
    for palette in (
        _palette("dark", _DARK, _VIRIDIS),
        _palette("light", _LIGHT, _VIRIDIS, dark=False),
        _palette("high-contrast", _HIGH_CONTRAST, _VIRIDIS),
        _palette("colour-blind", _COLOUR_BLIND, _CIVIDIS),
        _palette("16-colours", _ANSI, _VIRIDIS, ansi=True),
        _palette("no-colours", " ".join(["default"] * len(NAMES)), _VIRIDIS, ansi=True, plain=True),
    )
}
