"""Names of arms, by which the list of runs tells apart what has one recipe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from accl.analysis.grouping import group_runs
from accl.store.rundir import RunDir, Setup


class ArmNames:
    """Names of the arms of runs by their configurations, which are compared again only where one is new."""

    def __init__(self) -> None:
        self._of: Mapping[RunDir, tuple[Setup, str]] = {}
        self._names: dict[RunDir, str] = {}

    def names(self, runs: Mapping[RunDir, tuple[Setup, str]]) -> Mapping[RunDir, str]:
        """Return the name of the arm of each run: its recipe, with the keys that differ where it has several.

        Args:
            runs: setup and text of the configuration of each.
        """
        if runs != self._of:
            self._of, self._names = runs, {}
            profiles: dict[str, list[RunDir]] = defaultdict(list)
            for run, (setup, _) in runs.items():
                profiles[setup.profile].append(run)
            for alike in profiles.values():
                arms = group_runs([(runs[run][0].recipe, runs[run][0].seed, runs[run][1]) for run in alike])
                self._names |= {alike[i]: arm.label for arm in arms for i in arm.members}
        return self._names
