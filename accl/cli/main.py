"""The command `accl`: the table of its commands, and how their errors end.

Commands are imported when they run, not when they are listed, so that `accl --help` is instant.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from accl import __version__
from accl.errors import AcclError, ConfigError
from accl.store.deadline import ending
from accl.streams import guard_streams

# name -> (module, function, first line of its help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("accl.cli.demo", "demo", "Train three arms of the ablation side by side, and watch them."),
    "train": ("accl.cli.train", "train", "Train a recipe in a process of its own, and show how it goes."),
    "ablate": ("accl.cli.grids", "ablate", "Train baseline, contrastive and full with several seeds."),
    "sweep": (
        "accl.cli.grids",
        "sweep",
        "Train a recipe with all combinations of values and seeds.",
    ),
    "restart": ("accl.cli.train", "restart", "Train a run again from its first step, as a new run."),
    "tui": ("accl.cli.tui", "tui", "Watch, steer and compare runs in the terminal."),
    "compare": ("accl.cli.compare", "compare", "Compare finished runs on the test questions they all answered."),
    "claims": (
        "accl.cli.claims",
        "claims",
        "Judge the four claims of the method by what finished runs show.",
    ),
    "figure": ("accl.cli.figure", "app", "Draw figures for a paper: curves, weights, confusion and more."),
    "report": (
        "accl.cli.report",
        "report",
        "Write one HTML page: results, curves, confusion, tasks, claims.",
    ),
    "runs": ("accl.cli.runs", "runs", "List the runs and what each is doing."),
    "show": ("accl.cli.show", "show", "Show one run: state, figures, accuracy by category, events."),
    "sql": ("accl.cli.sql", "sql", "Query the tables of runs with SQL; nothing is changed."),
    "logs": ("accl.cli.logs", "logs", "Print the console log of a run."),
    "stop": ("accl.cli.control", "stop", "Stop runs after their current steps, with checkpoints."),
    "resume": ("accl.cli.control", "resume", "Go on with stopped runs from their last checkpoints."),
    "queue": ("accl.cli.queue", "app", "List what waits to be trained; move, pause, resume, cancel it."),
    "wait": ("accl.cli.waiting", "wait", "Wait for all that trains or waits, and show how each run goes."),
    "tag": ("accl.cli.labels", "tag", "Add tags to runs or take them away, and list them."),
    "note": ("accl.cli.labels", "note", "Write a note about a run, or print the one that it has."),
    "rename": ("accl.cli.labels", "rename", "Give a run a name, which is taken wherever a RUN is."),
    "rm": ("accl.cli.trash", "rm", "Move runs to the trash, after showing which and asking."),
    "restore": ("accl.cli.trash", "restore", "List the runs in the trash, or bring some of them back."),
    "purge": ("accl.cli.trash", "purge", "Delete what lies in the trash for ever, after asking."),
    "prune": ("accl.cli.prune", "prune", "Delete checkpoints and optimizer states that nothing needs."),
    "test": ("accl.cli.testing", "run_test", "Test finished runs whose test split is unread."),
    "ask": ("accl.cli.ask", "ask", "Ask the model of a run a question of your own."),
    "evaluate": ("accl.cli.evaluate", "evaluate", "Answer other labelled questions with the model of a run."),
    "export": (
        "accl.cli.export",
        "export",
        "Write the model of a run for transformers, or data as files.",
    ),
    "config": ("accl.cli.config", "app", "Show recipes, profiles, resolved configurations and all keys."),
    "bench": ("accl.cli.bench", "app", "Measure accl: its store, app, commands, statistics and training."),
    "doctor": ("accl.cli.doctor", "doctor", "Check that this machine has what training needs."),
}

# Names that other tools have for them.
COMMAND_SYNONYMS = {
    "list": "runs",
    "ls": "runs",
    "ps": "runs",
    "status": "runs",
    "info": "show",
    "log": "logs",
    "tail": "logs",
    "kill": "stop",
    "continue": "resume",
    "start": "train",
    "run": "train",
    "fit": "train",
    "ui": "tui",
    "watch": "tui",
    "dashboard": "tui",
    "check": "doctor",
    "diff": "compare",
    "benchmark": "bench",
}


class LazyCommands(TyperGroup):
    """The group of `COMMANDS`, of which only the one that is run is imported.

    Typer carries a click of its own, whose types are not public: hence `Any`.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name][2]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args[0] not in COMMANDS:
            raise unknown_command(args[0])
        name, command, rest = super().resolve_command(ctx, args)
        if name and command:
            command = load_command(name)
            if ctx.resilient_parsing:  # a shell completes the line, and nothing of it will be run
                from accl.cli.shell import leave_unread

                leave_unread(command)
        return name, command, rest


def unknown_command(name: str) -> ConfigError:
    """Make the error for a command that there is not, which suggests the one that was most likely meant."""
    import difflib

    from accl.yamlfile import shown

    near = COMMAND_SYNONYMS.get(name) or next(iter(difflib.get_close_matches(name, COMMANDS, n=1)), "")
    hint = f"Did you mean: accl {near}? " if near else ""
    return ConfigError(f"There is no command {shown(name)}.", f"{hint}All commands: accl --help")


def load_command(name: str) -> Any:
    """Import a command of `COMMANDS`."""
    module, attribute, _ = COMMANDS[name]
    group: Any = getattr(import_module(module), attribute)
    if not isinstance(group, typer.Typer):
        function, group = group, typer.Typer(add_completion=False, rich_markup_mode=None)
        group.command(name)(function)
    command = typer.main.get_command(group)
    command.name = name
    keep_examples(command)
    return command


def keep_examples(command: Any) -> None:
    """Let the help of a command and of its subcommands show each example in one line, which can be copied."""
    if found := re.search(r"^Examples?:\n(?=\n)", command.help or "", re.MULTILINE):
        lines = [line.strip() for line in command.help[found.end() :].splitlines() if line]
        # Below \b typer leaves lines as they are.
        command.help = "\n".join([command.help[: found.end()], "  \b", *lines])
    for inner in getattr(command, "commands", {}).values():
        keep_examples(inner)


app = typer.Typer(
    cls=LazyCommands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Adaptive Contrastive Curriculum Learning on MMLU: train, watch and compare from a terminal.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: typer's rich one takes longer to import than everything else
    epilog="Start with:  accl demo\n\nTo complete runs and keys with TAB:  accl --install-completion",
)


def _version(context: typer.Context, asked: bool) -> None:
    if asked and not context.resilient_parsing:  # which is a look at the line, such as that of completion
        from accl.cli.output import say

        say(f"accl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # noqa: ARG001 - its callback acts on it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ["ACCL_DEBUG"] = "1"


def run() -> None:
    """Run the command line; an `AcclError` becomes one line on stderr and its exit code."""
    guard_streams()
    if hasattr(signal, "SIGPIPE"):  # `accl runs | head` must not end in a traceback
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if "_ACCL_COMPLETE" in os.environ:
        from accl.cli.shell import answer_shell

        sys.exit(answer_shell(app))
    try:
        try:
            code = app(prog_name="accl", standalone_mode=False)
        finally:
            sys.stdout.flush()
    except typer.Abort:  # the end of what a prompt reads
        sys.exit(1)
    except Exception as error:
        from accl.cli.output import print_error
        from accl.cli.usage import UsageError, usage_error

        if isinstance(error, UsageError):
            if type(error).__name__ == "NoArgsIsHelpError":  # nothing was typed: the help is its message
                help_text: Any = error
                help_text.show()
                sys.exit(help_text.exit_code)
            error = usage_error(error)

        if os.environ.get("ACCL_DEBUG"):
            traceback.print_exc()
        if isinstance(error, AcclError):
            print_error(error)
            sys.exit(error.exit_code)
        what = f"accl failed in a way it should not have: {type(error).__name__}: {error}"
        print_error(AcclError(what, "Please report it with the output of the same command after: accl --debug"))
        sys.exit(1)
    if isinstance(code, int):
        sys.exit(code)


def main() -> None:
    """Be the process of one command."""
    with ending():
        run()


if __name__ == "__main__":
    main()
