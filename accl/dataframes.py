"""The libraries whose frames `accl.api` returns: pandas and polars. Each is imported when it is first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from accl.errors import AcclError, ConfigError

if TYPE_CHECKING:
    import pyarrow
    from numpy.typing import NDArray

FrameT = TypeVar("FrameT")
LibraryName = Literal["pandas", "polars"]
LIBRARIES = ("pandas", "polars")


class Library(Generic[FrameT]):
    """A library of frames, by its name.

    Raises:
        ConfigError: there is no such library.
        AcclError: it is not installed.
    """

    def __init__(self, name: str) -> None:
        if name not in LIBRARIES:
            raise ConfigError(f"There are no frames of {name!r}.", f"Choose one of: {', '.join(LIBRARIES)}")
        self.name = name
        try:
            self._module: Any = import_module(name)
        except ImportError as error:
            raise AcclError(f"Frames need {name}, which is not installed.", f"pip install 'accl[{name}]'") from error

    def frame(self, table: pyarrow.Table) -> FrameT:
        """Return an Arrow table as a frame."""
        frame: FrameT = table.to_pandas() if self.name == "pandas" else self._module.from_arrow(table)
        return frame

    def matrix(self, names: Sequence[str], matrix_KK: NDArray[Any]) -> FrameT:
        """Return a K x K matrix with named rows and columns; a first column names rows where there is no index."""
        frame: FrameT
        if self.name == "pandas":
            frame = self._module.DataFrame(matrix_KK, self._module.Index(names, name="task"), list(names))
        else:
            columns = self._module.DataFrame(matrix_KK, schema=list(names))
            frame = columns.insert_column(0, self._module.Series("task", list(names)))
        return frame
