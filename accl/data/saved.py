"""Reader of folders that ``save_to_disk`` of the package ``datasets`` has written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from accl.data.builder import PART_OF, CorpusBuilder
from accl.data.files import open_data, read_bytes
from accl.data.questions import PARTS, Corpus
from accl.data.typed_rows import COLUMNS, add_rows, check_names, class_names, hardened
from accl.errors import DataError, first_line

_END = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow stream
DICTIONARY, STATE = "dataset_dict.json", "state.json"


def read_saved(folder: Path) -> Corpus:
    """Read a saved ``DatasetDict``, or a single ``Dataset`` under the name of its split.

    Raises:
        DataError: a file is missing or damaged, a split has no known name, or a row is malformed.
    """
    if (folder / DICTIONARY).exists():
        splits = [(str(name), folder / str(name)) for name in _list(folder / DICTIONARY, "splits")]
    else:
        splits = [(str(_read_json(folder / STATE).get("_split")), folder)]
    builder = CorpusBuilder()
    by_part: dict[str, Path] = {}
    for name, place in splits:
        part = PART_OF.get(name)
        if part is None or part in by_part:
            what = "has no known name" if part is None else "is there twice"
            raise DataError(f"{folder}: split {name!r} {what}.", f"Splits are: {', '.join(PART_OF)}.")
        by_part[part] = place
    for part, place in sorted(by_part.items(), key=lambda item: PARTS.index(item[0])):
        for file in _list(place / STATE, "_data_files"):
            shard = file.get("filename") if isinstance(file, dict) else None
            if not isinstance(shard, str) or Path(shard).name != shard:
                raise DataError(f"{place / STATE} names {shard!r}, which is no file beside it.", "Save it again.")
            _add_file(place / shard, part, builder)
    return builder.corpus(folder, f"folder {folder} (save_to_disk)")


def _add_file(path: Path, part: str, builder: CorpusBuilder) -> None:
    from datasets import Dataset  # seconds to import, and needed by nothing else

    with open_data(path) as descriptor:
        size = os.fstat(descriptor).st_size
        # Without its end mark, a file that was cut between two batches would be read as a shorter one.
        if os.pread(descriptor, len(_END), max(size - len(_END), 0)) != _END:
            raise DataError(f"{path} is cut off, or no Arrow stream.", "Save it again.")
        # Whatever is wrong with a file, pyarrow and datasets say it with errors of many kinds.
        try:
            table = Dataset.from_file(f"/dev/fd/{descriptor}").data.table
            table.validate(full=True)
            classes = class_names((table.schema.metadata or {}).get(b"huggingface"))
        except Exception as error:
            what = f"{path} cannot be read as a save_to_disk folder: {first_line(error)}"
            raise DataError(what, "Save it again.") from error
        check_names(path, table.column_names)
        table = table.select([name for name in table.column_names if name in COLUMNS])
        with hardened(path) as connection:
            connection.register("saved", table)
            add_rows(builder, connection, "saved", path, part, classes)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}).", "Save it again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not what save_to_disk writes.", "Save it again.")
    return content


def _list(path: Path, key: str) -> list[Any]:
    found = _read_json(path).get(key)
    if not isinstance(found, list) or not found:
        raise DataError(f"{path} has no {key}.", "Save it again.")
    return found
