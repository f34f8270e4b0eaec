"""Base of the panes of the run screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from textual.containers import Vertical
from textual.widget import Widget

from accl.store.columns import RunReader
from tui.commands import next_choice
from tui.feed import RunView
from tui.viewstate import Choices
from tui.widgets.keybar import redraw_keys


class Pane(Vertical):
    """A view of one run.

    Attributes:
        needs: what of a run it shows, as in `RunFeed.fetch`.
        scope: scope of the key table that is in force in the pane.
        main_widget: type of the widget that gets the focus.
        settings: see `tui.viewstate`.
        orders: sort keys by the name of the order; `action_order` cycles among them.
        order: current sort order.
        view: data of the run, once they were fetched.
        reader: reads on demand what no view holds.
        cursor_step: step at the cursor that all charts of the screen share, None without one.
        pending: words for that which the pane still waits for once it has its view.
    """

    needs: ClassVar[frozenset[str]]
    scope: ClassVar[str]
    main_widget: ClassVar[type[Widget]]
    settings: ClassVar[Mapping[str, Choices]] = {}
    orders: ClassVar[Mapping[str, Callable[[Any], Any]]] = {"": str}
    order = ""
    view: RunView | None = None
    reader: RunReader
    cursor_step: float | None = None

    @property
    def pending(self) -> str:
        """Words for that which the pane waits for, beside the view of the run; see `PollingScreen.pending`."""
        return ""

    def update_view(self, view: RunView) -> None:
        """Show new data; called about once a second while the pane is visible."""
        self.view = view
        self.show_view(view)

    def show(self) -> None:
        """Draw the pane again, after a change of its settings."""
        if self.view is not None:
            self.show_view(self.view)
            redraw_keys(self)

    def show_view(self, view: RunView) -> None:
        """Draw the pane."""
        raise NotImplementedError

    def focus_main_widget(self) -> None:
        self.query_one(self.main_widget).focus()

    def peel(self) -> bool:
        """Undo one thing that escape undoes in the pane; return whether there was one."""
        return False

    def action_order(self) -> None:
        self.order = next_choice(list(self.orders), self.order)
        self.show()
