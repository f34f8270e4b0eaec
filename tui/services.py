"""Services that the app gives to every screen."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tui.viewstate import ViewState


@dataclass(frozen=True)
class Services:
    """Services that all screens share.

    Attributes:
        root: folder of the run directories.
        interval: seconds between two looks at them.
        view: how the user left the screens.
    """

    root: Path
    interval: float
    view: ViewState = field(default_factory=ViewState)
