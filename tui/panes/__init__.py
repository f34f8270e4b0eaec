"""The four panes of the run screen."""
