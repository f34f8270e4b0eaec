"""Services that the app gives to every screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textual.widget import Widget

from accl.store.rundir import RunDir
from tui.viewstate import ViewState
from tui.watch import Watcher


@dataclass(frozen=True)
class Undo:
    """Something that was done and can be undone.

    Attributes:
        what: in words, such as "the note".
        steps: what undoes it, by the run to which it was done.
    """

    what: str
    steps: Mapping[RunDir, Callable[[], Any]]


@dataclass(frozen=True)
class Services:
    """Services that all screens share.

    Attributes:
        root: folder of the run directories.
        watcher: reads the runs for all screens.
        view: how the user left the screens.
        done: what was done and can be undone, the newest last.
    """

    root: Path
    watcher: Watcher
    view: ViewState = field(default_factory=ViewState)
    done: list[Undo] = field(default_factory=list)


def services_of(widget: Widget) -> Services:
    """Return the services of the app that a widget belongs to."""
    services: Services = widget.app.services  # type: ignore[attr-defined]
    return services
