"""How the user left the app: pane, axis, order, filter and colours, kept in a file for each folder of runs.

A file that cannot be read or written, or says what is no choice, costs nothing but the memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from accl.files import read_trusted, replace_file, state_folder

MAX_BYTES = 65536
MAX_TEXT = 200

# The choices of a setting; None stands for any text, TEXTS for a list of any texts.
TEXTS: type[list[str]] = list
Choices = Sequence[object] | type[list[str]] | None


class HasSettings(Protocol):
    """An object some of whose attributes are worth keeping."""

    @property
    def settings(self) -> Mapping[str, Choices]:
        """Names of the attributes, each with what it may be."""
        ...


def view_file(root: Path) -> Path:
    """Return the file for a folder of runs, in the user's folder for state."""
    name = hashlib.sha256(os.path.abspath(root).encode(errors="surrogateescape")).hexdigest()[:16]
    return state_folder() / "views" / f"{name}.json"


class ViewState:
    """Settings by name, which is the scope of an object, a dot, and the name of its attribute.

    An attached object gets its settings once; they are read from it again when it is detached and at each `save`.
    Without a ``file``, nothing outlasts the app.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._values = _read(file) if file else {}
        self._saved = dict(self._values)
        self._attached: dict[str, HasSettings] = {}

    def attach(self, scope: str, owner: HasSettings) -> None:
        """Set the attributes of the owner as they were left in this scope."""
        if before := self._attached.get(scope):
            self.detach(before)
        for name, choices in owner.settings.items():
            value = self._values.get(f"{scope}.{name}")
            if _is_choice(value, choices):
                setattr(owner, name, value)
        self._attached[scope] = owner

    def detach(self, owner: HasSettings) -> None:
        """Keep the settings of the owner, and forget the owner."""
        for scope in [scope for scope, attached in self._attached.items() if attached is owner]:
            self._collect(scope, self._attached.pop(scope))

    def _collect(self, scope: str, owner: HasSettings) -> None:
        self._values |= {f"{scope}.{name}": getattr(owner, name) for name in owner.settings}

    def save(self) -> None:
        """Write what has changed since the last time."""
        for scope, owner in self._attached.items():
            self._collect(scope, owner)
        if self._file and self._values != self._saved:
            self._saved = dict(self._values)
            with suppress(OSError):
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                replace_file(self._file, json.dumps(self._values, indent=1).encode(), mode=0o600)

    def reset(self) -> None:
        """Forget everything, also what is attached."""
        self._values, self._saved, self._attached = {}, {}, {}
        if self._file:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)


def _is_choice(value: object, choices: Choices) -> bool:
    if choices is None:
        return isinstance(value, str) and len(value) <= MAX_TEXT
    if isinstance(choices, type):
        return isinstance(value, list) and all(_is_choice(each, None) for each in value)
    return any(type(value) is type(choice) and value == choice for choice in choices)


def _read(file: Path) -> dict[str, Any]:
    """Read the settings of a file; what is damaged or somebody else's counts as none."""
    try:
        content = read_trusted(file)
        values = json.loads(content) if len(content) <= MAX_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
