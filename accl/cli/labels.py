"""`accl tag`, `accl note` and `accl rename`: what people say about runs."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from accl.cli.completion import complete_tag
from accl.cli.options import RUNS, ChosenArgument, RunArgument, RunsOption
from accl.cli.output import Format, FormatOption, emit, print_notes, raise_first, say
from accl.cli.table import MISSING, Column, Table
from accl.errors import ConfigError, RunError
from accl.store.labels import edit_labels, load_labels
from accl.store.rundir import LAST, find_run, given_name, is_id, list_runs
from accl.store.selection import choose_runs

COLUMNS = [Column("id", "run"), Column("tags", show=lambda tags: ", ".join(tags) or MISSING, wrap=True)]
AddOption = Annotated[
    list[str] | None,
    typer.Option("--add", "-a", metavar="TAG", help="Add a tag; may be repeated.", autocompletion=complete_tag),
]
RemoveOption = Annotated[
    list[str] | None,
    typer.Option(
        "--remove", "-r", metavar="TAG", help="Take a tag away; may be repeated.", autocompletion=complete_tag
    ),
]


def tag(
    chosen: ChosenArgument,
    add: AddOption = None,
    remove: RemoveOption = None,
    format: FormatOption = Format.TABLE,
    runs: RunsOption = RUNS,
) -> None:
    """Add tags to runs or take them away, and list them.

    Without --add and --remove it only lists them. A tag is one word. Runs with a tag are found by tag:WORD,
    in every query and in the app's filter.

    Examples:

      accl tag last --add paper

      accl tag experiment:lr "val>30%" --add candidate --remove old

      accl runs tag:paper
    """
    rows: list[dict[str, Any]] = []
    failed: list[RunError] = []
    try:
        found = choose_runs(runs, chosen).runs
    except RunError as error:
        if add or remove or not chosen[1:]:
            raise
        adds = " ".join(f"--add {shlex.quote(word)}" for word in chosen[1:])
        raise RunError(error.what, f"Did you mean: accl tag {shlex.quote(chosen[0])} {adds}") from error
    for run in found:
        try:
            labels = edit_labels(run, add=add or (), remove=remove or ()) if add or remove else load_labels(run)
            rows.append({"id": run.id, "tags": labels.tags})
        except RunError as error:
            failed.append(error)
    if rows:
        emit(Table("", COLUMNS, rows, name="runs"), format)
    raise_first(failed)


def note(
    run: RunArgument,
    text: Annotated[str | None, typer.Argument(help='The note; "" takes it away.', show_default=False)] = None,
    runs: RunsOption = RUNS,
) -> None:
    """Write a note about a run, or print the one that it has.

    A new note takes the place of the old one. Runs are found by words of their notes: accl runs note:bank.

    Examples:

      accl note last "with the new bank; the loss is smoother"

      accl note last
    """
    chosen = find_run(runs, run)
    if text is not None:
        edit_labels(chosen, note=text)
        say(f"The note about {chosen.id} is {'written' if text.strip() else 'gone'}.")
    elif words := load_labels(chosen).note:
        say(words)
    else:
        print_notes([f"{chosen.id} has no note"])


def rename(
    run: RunArgument,
    name: Annotated[str, typer.Argument(help='The name; "" takes it away.', show_default=False)],
    runs: RunsOption = RUNS,
) -> None:
    """Give a run a name, which is taken wherever a RUN is.

    Lists show the name in place of the id; id and folder stay as they are.

    Example:

      accl rename last "small bank"
    """
    chosen, name = find_run(runs, run), name.strip()
    if name == LAST:
        raise ConfigError(f"{name!r} always means the newest run.", "Give it another name.")
    if is_id(name) and name != chosen.id:
        raise ConfigError(f"{name!r} looks like the id of another run.", "Give it another name.")
    edit_labels(chosen, name=name)
    say(f"{chosen.id} is called {name}." if name else f"{chosen.id} has no name any more.")
    if name and (others := [other.id for other in list_runs(runs) if other != chosen and given_name(other) == name]):
        also = f"{others[0]} and {len(others) - 1} others have" if others[1:] else f"{others[0]} has"
        print_notes([f"{also} this name too, so that it means none of them"])
