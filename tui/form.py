"""The content of the form for new runs."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from accl.errors import ConfigError
from accl.store.rundir import RunDir


@dataclass(frozen=True)
class Form:
    """The values that were filled in.

    Attributes:
        recipe, profile: unused where the runs are ``like`` another one.
        seeds: numbers between commas; empty for the seed of recipe or run.
        changes: ``key=value`` between blanks, with quotes around values that have some.
        queued: whether a single run waits for its turn; several always do.
    """

    recipe: str = ""
    profile: str = ""
    seeds: str = ""
    changes: str = ""
    queued: bool = False
    like: RunDir | None = None

    @property
    def command(self) -> list[str]:
        """The command that does the same."""
        profile = ["--profile", self.profile] if self.profile else []
        base = ["--like", self.like.id] if self.like else [self.recipe, *profile]
        seeds = ["--seeds", self.seeds] if self.seeds else []
        return ["accl", "train", *base, *seeds, *(word for change in self.words for word in ("--set", change))]

    @property
    def words(self) -> list[str]:
        """The changes one by one.

        Raises:
            ConfigError: a quote is not closed.
        """
        try:
            return shlex.split(self.changes)
        except ValueError as error:
            raise ConfigError(f"The changes cannot be taken apart: {error}.", "Close the quote.") from error
