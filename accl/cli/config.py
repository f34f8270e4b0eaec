"""`accl config`: what can be configured, and what a run would get."""

from __future__ import annotations

import sys
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accl.choices import Choice
from accl.cli.completion import complete_recipe, complete_topic
from accl.cli.options import OverridesOption, ProfileOption
from accl.cli.output import Format, FormatOption, emit, print_notes, say
from accl.cli.table import Column, Table, fields, text
from accl.config import available, configs_folder
from accl.text import printable, typed

if TYPE_CHECKING:
    from accl.config import Resolved

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Show recipes, profiles, resolved configurations and all keys.",
)


@app.command()
def show(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe's name, the path of a recipe file, or of the config.yaml of a run.",
            autocompletion=complete_recipe,
        ),
    ] = "full",
    profile: ProfileOption = None,
    overrides: OverridesOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Print every value that a run would get, and where it comes from.

    Example:

      accl config show full --profile paper --set train.batch_size=32
    """
    from accl.config import flat, resolve

    resolved = resolve(recipe, profile, overrides or ())
    print_notes(resolved.notes)
    if format is Format.TABLE:  # as YAML, so that it can be copied into a file of one's own
        say(*_commented_yaml(resolved))
        return
    values, origin = flat(resolved.config), resolved.origin
    rows = [{"key": key, "value": values[key], "origin": origin[key]} for key in values if key in origin]
    columns = [Column("key"), Column("value", show=typed), Column("origin")]
    emit(Table(f"{resolved.config.recipe} under {resolved.config.profile}", columns, rows), format)


@app.command(name="list")
def list_(format: FormatOption = Format.TABLE) -> None:
    """List the recipes and profiles that come with accl.

    Example:

      accl config list
    """
    rows = [
        {"kind": kind[:-1], "name": name, "about": _first_comment(kind, name)}
        for kind in ("recipes", "profiles")
        for name in available(kind)
    ]
    emit(Table("Recipes and profiles", [Column("kind"), Column("name"), Column("about", wrap=True)], rows), format)


@app.command(name="explain")
def explain_(
    key: Annotated[
        str | None,
        typer.Argument(
            help="A key such as curriculum.policy, a section, or metrics; all keys if left out.",
            autocompletion=complete_topic,
        ),
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Explain a key: type and range, meaning, default, values of the profiles, and the choices that there are.

    Examples:

      accl config explain

      accl config explain curriculum.policy
    """
    from accl.config.explain import explain, explain_all
    from accl.config.renamed import translate_key

    if key:
        key, notes = translate_key(key)
        print_notes(notes)
    found = explain(key) if key else explain_all()
    if len(found) > 1:
        columns = [Column("key"), Column("default", show=_short), Column("about", wrap=True)]
        rows = [fields(one, key="key", default="default", about="summary", type="type") for one in found]
        emit(Table(f"Keys of {key}" if key else "Keys", columns, rows), format)
        return
    (one,) = found
    choices = [_choice_row(choice) for choice in one.choices]
    values = {"about": one.description} | ({"type": one.type, "default": one.default} if one.type else {})
    values |= {f"under {profile}": value for profile, value in one.profiles}
    properties = [{"property": name, "value": value} for name, value in values.items()]
    tables = [Table(one.key, [Column("property"), Column("value", show=typed, wrap=True)], properties)]
    if choices:
        tables.append(Table("Choices", _choice_columns(choices), choices, name="choices"))
    data = fields(one, key="key", about="description", type="type", default="default")
    emit(tables, format, data=data | {"profiles": dict(one.profiles), "choices": choices})


def _choice_row(choice: Choice) -> dict[str, Any]:
    parameter, literals = choice.parameter, choice.literals
    number = f"{parameter.name}: {parameter.about}; {parameter.range}" if parameter else None
    default = parameter.default if parameter else None
    row = {"name": choice.name, "written": choice.form, "number": number, "default": default}
    row |= {"label": literals.get("LABEL"), "unit": literals.get("UNIT")}
    return row | {"about": choice.summary, "details": choice.details}


def _choice_columns(rows: list[dict[str, Any]]) -> list[Column]:
    """Name and meaning of each choice, and what else any of them has."""
    optional = [Column("number", wrap=True), Column("default", justify="right"), Column("label"), Column("unit")]
    shown = [column for column in optional if any(row[column.key] is not None for row in rows)]
    return [Column("written", header="name"), Column("about", wrap=True), *shown]


def _commented_yaml(resolved: Resolved) -> list[str]:
    import yaml

    from accl.config import flat

    lines = [f"# recipe {resolved.config.recipe} under profile {resolved.config.profile}"]
    values = {key: value for key, value in flat(resolved.config).items() if "." in key}
    for section, keys in groupby(values, key=lambda key: key.partition(".")[0]):
        lines.append(f"{section}:")
        for key in keys:
            leaf = {key.removeprefix(f"{section}."): values[key]}
            plain = text(values[key]) == printable(text(values[key]))
            style = None if plain else '"'  # in which YAML can escape what must not be printed
            entry = yaml.safe_dump(leaf, allow_unicode=plain, default_style=style, width=sys.maxsize).strip()
            lines.append(f"  {entry:<36}  # {resolved.origin[key]}")
    return lines


def _short(value: Any) -> str:
    """Cut a long value, such as a commit, to what a list of all keys has room for."""
    text = typed(value)
    return text if len(text) <= 16 else f"{text[:15]}…"


def _first_comment(kind: str, name: str) -> str:
    lines = (configs_folder() / kind / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return lines[0].removeprefix("# ") if lines and lines[0].startswith("#") else ""
