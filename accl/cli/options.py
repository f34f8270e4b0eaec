"""Arguments and options that several commands share; `accl.cli.output` has that of the format."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from accl.cli.completion import (
    complete_arm,
    complete_override,
    complete_profile,
    complete_query,
    complete_recipe,
    complete_run,
    complete_runs_or_query,
)
from accl.errors import AcclError, ConfigError
from accl.text import listed


def local_folder(text: str | Path) -> Path:
    """Return the absolute path of a folder on this machine, which nothing can read as anything else.

    Raises:
        ConfigError: the text is blank or a URL, or is relative to a folder that is gone.
    """
    if not str(text).strip():
        raise ConfigError("--runs is empty.", "Give the folder of the runs, or leave the option out for ./runs.")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(text)):
        raise ConfigError(
            f"--runs {text} is a URL, and runs lie in a folder of this machine.", "For example: --runs runs"
        )
    try:
        return Path(os.path.abspath(os.path.expanduser(text)))
    except FileNotFoundError as error:
        what = "The current folder has been removed."
        raise ConfigError(what, "Change to one that exists, or give --runs a path from /.") from error


def output_file(text: str | Path) -> Path:
    """Return the path of a file that is to be written, so that what cannot be written is refused before the work.

    Raises:
        ConfigError: it is a folder, or lies in none, or in one that may not be written.
    """
    path = Path(text).expanduser()
    folder = path.parent
    if path.is_dir() or not path.name:
        why = "it is a folder"
    elif not folder.is_dir():
        why = f"there is no folder {folder}"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        why = "you may not write there"
    else:
        return path
    raise ConfigError(f"{path} cannot be written: {why}.", "Name a file in a folder that exists and is yours.")


def checked_suffix(path: Path, suffixes: Sequence[str]) -> Path:
    """Return a path whose suffix names a format that can be written.

    Raises:
        ConfigError: it has another suffix.
    """
    if path.suffix.lower() in suffixes:
        return path
    what = f"{path} has the suffix {path.suffix!r}, which names no format that can be written."
    raise ConfigError(what, f"Let the name end in {listed(list(suffixes), 'or')}.")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the system met while a file is written, such as a full disk, into one of accl.

    Raises:
        AcclError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise AcclError(f"{path} cannot be written ({error.strerror}).", "Is there room?") from error


def run_name(text: str) -> str:
    """Return what is typed for a run.

    Raises:
        ConfigError: it is blank, and so a part of every id.
    """
    if not text.strip():
        raise ConfigError(
            "The name of the run is empty.", "Type its id or name, a part of the id, a path, or `last`; see: accl runs"
        )
    return text


_RUN = typer.Argument(
    parser=run_name,
    metavar="RUN",
    help="Id or a part of it, name, path or `last`.",
    show_default=False,
    autocompletion=complete_run,
)
RunArgument = Annotated[str, _RUN]
_CHOSEN = "Runs, each as its id or a part of it, name, path or `last`; or a query, as for accl runs."
ChosenArgument = Annotated[
    list[str],
    typer.Argument(parser=run_name, metavar="RUN...|QUERY", help=_CHOSEN, autocompletion=complete_runs_or_query),
]
_ALL = f"{_CHOSEN[:-1]}; all when left out."
ChosenOrAllArgument = Annotated[
    list[str] | None,
    typer.Argument(parser=run_name, metavar="RUN...|QUERY", help=_ALL, autocompletion=complete_runs_or_query),
]
_QUERY = typer.Argument(
    metavar="QUERY",
    help="Only the runs that it matches; its keys: accl runs --help",
    autocompletion=complete_query,
)
QueryArgument = Annotated[list[str] | None, _QUERY]
NeededQueryArgument = Annotated[list[str], _QUERY]
_RECIPE = typer.Argument(
    help="baseline, contrastive, full, the path of a recipe file or of a run's config.yaml.",
    autocompletion=complete_recipe,
)
RecipeArgument = Annotated[str | None, _RECIPE]
NeededRecipeArgument = Annotated[str, _RECIPE]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
_RUNS = typer.Option("--runs", envvar="ACCL_RUNS", parser=local_folder, metavar="DIR", help="The folder of the runs.")
RunsOption = Annotated[Path, _RUNS]
RUNS = Path("runs")  # the default of `RunsOption`
_OVERRIDES = typer.Option(
    "--set", metavar="KEY=VALUE", help="Override one value; may be repeated.", autocompletion=complete_override
)
OverridesOption = Annotated[list[str] | None, _OVERRIDES]
# None lets the profile of a run's own configuration stand; the default has to be written out, as help imports nothing.
_PROFILE = typer.Option(
    "--profile",
    "-p",
    help="Scale and data: demo, minilm, paper, or the path of a file.  [default: paper]",
    autocompletion=complete_profile,
)
ProfileOption = Annotated[str | None, _PROFILE]
# Of runs that have been trained, in contrast to `ProfileOption`.
_ONE_PROFILE = typer.Option("--profile", "-p", help="Take only runs of this profile.", autocompletion=complete_profile)
OneProfileOption = Annotated[str | None, _ONE_PROFILE]
_REFERENCE = typer.Option(
    "--reference",
    "-r",
    metavar="ARM",
    help="Arm that the others are compared with.",
    autocompletion=complete_arm,
)
ReferenceOption = Annotated[str | None, _REFERENCE]
_DETACH = typer.Option(
    "--detach", "-d", help="Print the run's id, or the experiment's name, and return; training goes on by itself."
)
DetachOption = Annotated[bool, _DETACH]
_JOBS = typer.Option("--jobs", "-j", min=1, help="Train N runs at a time; by default one on each GPU, or on a CPU one.")
JobsOption = Annotated[int | None, _JOBS]
PerGpuOption = Annotated[int, typer.Option("--per-gpu", min=1, help="Let N runs share a GPU, up to five in a process.")]


class Split(StrEnum):
    """Values of ``--split``."""

    TEST = "test"
    VALIDATION = "validation"


SPLIT_HELP = "Questions of the test, or of the best validation."
SplitOption = Annotated[Split, typer.Option("--split", help=SPLIT_HELP)]
