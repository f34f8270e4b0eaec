"""What the panes of the run screen have in common."""

from __future__ import annotations

from textual.containers import Vertical

from tui.feed import RunView


class Pane(Vertical):
    """One view of one run: it is given everything known, and draws its part."""

    keys: tuple[str, ...] = ()

    def take(self, view: RunView) -> None:
        """Show this; called about once a second while the pane is in view."""
        raise NotImplementedError

    def enter(self) -> None:
        """The pane came into view: put the focus where its keys are."""
        raise NotImplementedError
