"""The table of runs, some of whose rows are groups that fold."""

from __future__ import annotations

from tui.commands import bindings
from tui.widgets.table import Table


class RunTable(Table):
    """A table whose keys for folding and grouping, which act on the screen, come before those of other lists."""

    BINDINGS = bindings("groups")
