"""`accl export --to`: what runs measured, for other programs."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from accl.analysis.exports.material import Material, read_material
from accl.analysis.exports.targets import EXPORTERS, Target, check_target, write_run, write_together
from accl.cli.model import progress
from accl.cli.output import Format, emit, print_notes
from accl.cli.table import Column, Table
from accl.errors import AbsentError, AcclError, RunError
from accl.text import counted


def export_to(target: Target, root: Path, names: Sequence[str], folder: Path, format: Format) -> None:
    """Export runs to a folder that is new or empty, and print what was written.

    Raises:
        RunError: a run that was named cannot be read, or none of those that a query found.
        AcclError: what the target needs is not installed, or the folder cannot be written.
    """
    from accl.store.selection import choose_runs

    check_target(target)
    found = choose_runs(root, names)
    exporter, written = EXPORTERS[target], list[Material]()
    counts: dict[str, int] = {}
    left_out: list[AcclError] = []
    with _whole_or_nothing(folder):
        for summary in found.summaries:
            with progress(summary.run) as phase:
                try:
                    phase("exporting")
                    material = read_material(summary, [other.folder for other in written])
                    if exporter.module:
                        counts[material.folder] = write_run(target, material, folder)
                except (AbsentError, RunError) as error:
                    if not found.by_query:
                        raise
                    left_out.append(error)
                    continue
            written.append(material)
            left_out += [material.read.left_out] if material.read.left_out else []
        if not written:
            raise left_out[0]
        if not exporter.module:
            counts = write_together(target, written, folder)
    print_notes([f"left out: {error}" for error in left_out])
    data = {"folder": str(folder), "to": target.value, "runs": [material.run.id for material in written]}
    if exporter.module:
        rows = [{"run": material.run.id, exporter.counts: counts[material.folder]} for material in written]
        columns = [Column("run"), Column(exporter.counts, justify="right")]
    else:
        rows = [{"file": f"{name}.{target}", "rows": count} for name, count in counts.items()]
        columns = [Column("file"), Column("rows", justify="right")]
    then = exporter.then.format(folder=shlex.quote(str(folder)))
    notes = [f"{counted(len(written), 'run')} in {folder}" + (f"; next: {then}" if then else "")]
    emit(Table("", columns, rows, name="written"), format, data={**data, "written": rows}, notes=notes)


@contextmanager
def _whole_or_nothing(folder: Path) -> Iterator[None]:
    """Make a folder for a block, and remove it with all that is in it if the block fails.

    Raises:
        RunError: the folder cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        yield
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            what = f"{folder} cannot be written ({error.strerror or error})."
            raise RunError(what, "Is there room, and may you write there?") from error
        raise
