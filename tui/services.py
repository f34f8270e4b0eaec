"""Services that the app gives to every screen."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tui.viewstate import ViewState
from tui.watch import Watcher


@dataclass(frozen=True)
class Services:
    """Services that all screens share.

    Attributes:
        root: folder of the run directories.
        watcher: reads the runs for all screens.
        view: how the user left the screens.
    """

    root: Path
    watcher: Watcher
    view: ViewState = field(default_factory=ViewState)
