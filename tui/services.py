"""Services that the app gives to every screen."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from textual.widget import Widget

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


def services_of(widget: Widget) -> Services:
    """Return the services of the app that a widget belongs to."""
    services: Services = widget.app.services  # type: ignore[attr-defined]
    return services
