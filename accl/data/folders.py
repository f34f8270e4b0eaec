"""Readers of local folders of questions, one for each layout that MMLU is distributed in.

- Hendrycks CSV: ``<split>/<subject>_<split>.csv`` (`accl.data.csv_folder`).
- Parquet, as on the Hub: ``all/<split>-*.parquet`` or ``<split>*.parquet`` (`accl.data.parquet`).
- A ``save_to_disk`` folder of the package ``datasets`` (`accl.data.saved`).

No row is ever dropped: a malformed one raises a `DataError` that names the file and the row. Hidden files (names that
begin with a dot or a tilde) are no data.
"""

from __future__ import annotations

from pathlib import Path

from accl.data import saved
from accl.data.builder import LAYOUTS
from accl.data.csv_folder import read_csv_folder, splits_of
from accl.data.files import named, visible
from accl.data.parquet import read_parquet
from accl.data.questions import Corpus
from accl.errors import DataError


def read_folder(folder: Path) -> Corpus:
    """Read the questions of a local folder in any known layout.

    Raises:
        DataError: no such folder, no known layout in it or more than one, or a malformed file.
    """
    names = {path.name for path in visible(folder)}
    parquet = [place for place in (folder / "all", folder) if named(place, ".parquet")]
    layouts = {
        "save_to_disk": [name for name in (saved.DICTIONARY, saved.STATE) if name in names],
        **{f"parquet in {place}": [place] for place in parquet},
        "CSV": splits_of(folder),
    }
    found = [layout for layout, evidence in layouts.items() if evidence]
    if not found:
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise DataError(f"The data folder {folder} {what}.", "Check data.path, or run with --profile demo.")
        raise DataError(f"No questions found in {folder}.", LAYOUTS)
    if len(found) > 1:
        raise DataError(f"{folder} holds questions in several layouts: {'; '.join(found)}.", "Keep one of them there.")
    if found == ["CSV"]:
        return read_csv_folder(folder)
    if found == ["save_to_disk"]:
        return saved.read_saved(folder)
    return read_parquet(parquet[0], f"folder {folder} (parquet)")
