"""`accl config`: what can be configured, and what a run would get."""

from __future__ import annotations

from typing import Annotated, Any

import typer
import yaml

from accl.choices import Choice
from accl.cli.output import Format, FormatOption, emit, print_notes
from accl.cli.table import Column, Table
from accl.config import DEFAULT_PROFILE, Resolved, available, configs_folder, flat, resolve
from accl.config.explain import Explained, explain, explain_all
from accl.config.renamed import translate_key

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Show recipes, profiles, resolved configurations and all keys."
)


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or the path of a recipe file.")] = "full",
    profile: Annotated[str, typer.Option("--profile", "-p", help="A profile's name or path.")] = DEFAULT_PROFILE,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one value; may be repeated.")
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Print every value that a run would get, and where it comes from.

    Example:

      accl config show full --profile paper --set train.batch_size=32
    """
    resolved = resolve(recipe, profile, overrides or ())
    print_notes(resolved.notes)
    rows = [
        {"key": key, "value": value, "origin": resolved.origin[key]}
        for key, value in flat(resolved.config).items()
        if key in resolved.origin
    ]
    if format is Format.TABLE:  # as YAML, so that it can be copied into a file of one's own
        typer.echo(_commented_yaml(resolved), nl=False)
        return
    columns = [Column("key"), Column("value", show=_value), Column("origin")]
    emit(Table(f"{resolved.config.recipe} under {resolved.config.profile}", columns, rows), format)


@app.command(name="list")
def list_(format: FormatOption = Format.TABLE) -> None:
    """List the recipes and profiles that come with accl."""
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
        typer.Argument(help="A key such as curriculum.policy, a section, or metrics; all keys if left out."),
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Explain a key: type and range, meaning, default, values of the profiles, and the choices that there are.

    Examples:

      accl config explain

      accl config explain curriculum.policy
    """
    if key:
        key, notes = translate_key(key)
        print_notes(notes)
    found = explain(key) if key else explain_all()
    if len(found) > 1:
        columns = [Column("key"), Column("default", show=_short), Column("about", wrap=True)]
        rows = [{"key": one.key, "default": one.default, "about": one.summary, "type": one.type} for one in found]
        emit(Table(f"Keys of {key}" if key else "Keys", columns, rows), format)
        return
    (one,) = found
    choices = [_choice_row(choice) for choice in one.choices]
    tables = [Table(one.key, [Column("property"), Column("value", show=_value, wrap=True)], _properties(one))]
    if choices:
        tables.append(Table("Choices", _choice_columns(choices), choices, name="choices"))
    data = {
        "key": one.key,
        "about": one.description,
        "type": one.type,
        "default": one.default,
        "profiles": dict(one.profiles),
        "choices": choices,
    }
    emit(tables, format, data=data)


def _properties(one: Explained) -> list[dict[str, Any]]:
    rows = [{"property": "about", "value": one.description}]
    if one.type:
        rows += [{"property": "type", "value": one.type}, {"property": "default", "value": one.default}]
    return [*rows, *({"property": f"under {profile}", "value": value} for profile, value in one.profiles)]


def _choice_row(choice: Choice) -> dict[str, Any]:
    parameter = choice.parameter
    number = f"{parameter.name}: {parameter.about}; {parameter.range}" if parameter else None
    return {
        "name": choice.name,
        "written": choice.form,
        "number": number,
        "default": parameter.default if parameter else None,
        "label": choice.literals.get("LABEL"),
        "unit": choice.literals.get("UNIT"),
        "about": choice.summary,
        "details": choice.details,
    }


def _choice_columns(rows: list[dict[str, Any]]) -> list[Column]:
    """Name and meaning of each choice, and what else any of them has."""
    optional = [Column("number", wrap=True), Column("default", justify="right"), Column("label"), Column("unit")]
    shown = [column for column in optional if any(row[column.key] is not None for row in rows)]
    return [Column("written", header="name"), Column("about", wrap=True), *shown]


def _commented_yaml(resolved: Resolved) -> str:
    lines = [f"# recipe {resolved.config.recipe} under profile {resolved.config.profile}"]
    section = ""
    for key, value in flat(resolved.config).items():
        head, _, leaf = key.partition(".")
        if not leaf:
            continue
        if head != section:
            lines.append(f"{head}:")
            section = head
        entry = yaml.safe_dump({leaf: value}, allow_unicode=True, width=1000).strip()
        lines.append(f"  {entry:<36}  # {resolved.origin[key]}")
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """Write a value as it would be typed after --set."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _short(value: Any) -> str:
    """Cut a long value, such as a commit, to what a list of all keys has room for."""
    text = _value(value)
    return text if len(text) <= 16 else f"{text[:15]}…"


def _first_comment(kind: str, name: str) -> str:
    lines = (configs_folder() / kind / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return lines[0].removeprefix("# ") if lines and lines[0].startswith("#") else ""
