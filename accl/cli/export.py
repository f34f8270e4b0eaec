"""`accl export`: a run for other programs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from accl.analysis.exports.targets import Target
from accl.cli.completion import complete_runs_or_query
from accl.cli.model import Checkpoint, progress
from accl.cli.options import RUNS, RunsOption, run_name
from accl.cli.output import Format, FormatOption, emit
from accl.cli.table import Column, Table, size
from accl.errors import ConfigError

RunsArgument = Annotated[
    list[str],
    typer.Argument(
        parser=run_name,
        metavar="RUN...",
        help="Run, as its id or a part of it, name, path or `last`; with --to several, or a query, as for accl runs.",
        autocompletion=complete_runs_or_query,
    ),
]
ToOption = Annotated[
    Target | None, typer.Option("--to", help="Write measurements for another program, instead of the model.")
]
CheckpointOption = Annotated[
    Checkpoint | None,
    typer.Option("--checkpoint", help="Weights that validation chose, or the last ones.  [default: best]"),
]
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="New folder, or an empty one.")]
COLUMNS = [Column("file"), Column("size", "", "", "right", size), Column("holds", wrap=True)]
FILES = {
    "README.md": "the model card: results, how to use the heads",
    "config.json": "encoder: AutoModel.from_pretrained(DIR)",
    "heads.json": "what the heads are, and the names of the tasks",
    "heads.safetensors": "the heads and the task embeddings",
    "model.safetensors": "weights of the encoder",
    "tokenizer.json": "tokenizer: AutoTokenizer.from_pretrained(DIR)",
    "tokenizer_config.json": "its special tokens",
}


def export(
    names: RunsArgument,
    folder: FolderArgument,
    to: ToOption = None,
    checkpoint: CheckpointOption = None,
    format: FormatOption = Format.TABLE,
    runs: RunsOption = RUNS,
) -> None:
    """Write the model of a run for transformers, or data as files.

    AutoModel and AutoTokenizer load encoder and tokenizer without accl; the heads lie beside them, and the
    model card has the results of the run and the lines of code that use the heads. A licence is left to
    you. A folder that has something in it is refused.

    With --to it writes what runs measured: event files for tensorboard,
    offline runs for wandb (both need the extra of that name), results and
    samples as lm-eval (lm-evaluation-harness) has them, or csv or parquet
    files, one for each table of accl sql.

    Examples:

      accl export full-s1 my-model

      accl export last my-model --checkpoint last

      accl export --to parquet state:finished tables

      accl export --to lm-eval full-s1 full-s2 results
    """
    from accl.launch.model import apply_model
    from accl.store.rundir import find_run

    if to is not None:
        from accl.cli.export_to import export_to

        if checkpoint is not None:
            raise ConfigError("--checkpoint is for the model, which --to does not write.", "Leave one of them out.")
        export_to(to, runs, names, checked_folder(folder), format)
        return
    if len(names) > 1:
        raise ConfigError(f"{len(names)} runs have {len(names)} models.", "Name one run and one folder.")
    checkpoint = checkpoint or Checkpoint.BEST
    chosen, target = find_run(runs, names[0]), checked_folder(folder)
    with progress(chosen) as phase:
        done = apply_model("export", chosen, phase, folder=str(target), checkpoint=str(checkpoint))
    rows = [{"file": name, "size": bytes_, "holds": FILES.get(name, "")} for name, bytes_ in done["files"].items()]
    notes = [f"Weights of step {done['step']:,}. To be loaded with: AutoModel.from_pretrained({str(folder)!r})"]
    if done["equal"] < done["sampled"]:
        different = done["sampled"] - done["equal"]
        notes.append(
            f"{different:,} of {done['sampled']:,} sampled questions get other ids from AutoTokenizer than in training:"
            " their texts hold names of special tokens, or blanks between options that its tokens take in."
        )
    emit(Table(str(target), COLUMNS, rows, name="files"), format, data={"folder": str(target), **done}, notes=notes)


def checked_folder(folder: Path) -> Path:
    """Return the absolute path of a folder that is to be written.

    Raises:
        ConfigError: it has something in it, or the folder that it is to be in is missing.
    """
    target = Path(os.path.abspath(folder.expanduser()))
    try:
        there = os.path.lexists(target)
        taken = there and (target.is_symlink() or not target.is_dir() or any(target.iterdir()))
        if not target.parent.is_dir():
            raise ConfigError(f"{target.parent} does not exist.", f"Make it: mkdir -p {target.parent}")
    except OSError as error:
        raise ConfigError(f"{target} cannot be written ({error.strerror}).", "Choose another folder.") from error
    if taken:
        raise ConfigError(f"{target} is there, and not an empty folder.", "Choose the name of a new one.")
    return target
