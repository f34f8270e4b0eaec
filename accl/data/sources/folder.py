"""Read a folder of this machine: Hendrycks CSV, parquet, or a ``save_to_disk`` folder.

``data.path`` is the folder, in one of these layouts:

- ``<split>/<subject>_<split>.csv`` in UTF-8 without header, quoted as RFC 4180 says: question, options, letter.
- ``all/<split>-*.parquet`` or ``<split>*.parquet`` with question and subject (text), choices (list of text) and answer
  (index from 0). Classes of ``datasets`` are read by their names.
- A folder of ``save_to_disk`` with these columns.

Splits are train, dev, val or validation, test, and auxiliary_train. Every row becomes a question or is refused by file
and row. All questions need the same number of options, none of them blank. Hidden files (names that begin with a dot or
a tilde) are no data. At most 512 MiB a file and a million questions of 2,000 subjects are read.

``data.revision`` is not used.
"""

from pathlib import Path

from accl.data.questions import Corpus
from accl.errors import DataError


def folder(path: str, _revision: str) -> Path:
    """Return the folder of a path; raises `DataError` where the home that it begins with is not known."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # ~name of nobody, or no home
        raise DataError(f"data.path={path}: {error}", "Write the folder's whole path.") from error


def read(folder: Path, _path: str, _revision: str) -> Corpus:
    """Return the corpus of a folder; raises `DataError` for one without questions, or with malformed ones."""
    from accl.data.folders import read_folder  # here: what was read before is loaded without the readers' libraries

    return read_folder(folder)


def load(path: str, revision: str) -> Corpus:
    """Return the corpus; raises as `folder` and `read`."""
    return read(folder(path, revision), path, revision)
