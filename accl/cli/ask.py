"""`accl ask`: a question of one's own to the model of a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from accl.cli.model import Checkpoint, CheckpointOption, progress
from accl.cli.options import RUNS, RunArgument, RunsOption
from accl.cli.output import Format, FormatOption, emit, prompt
from accl.cli.table import Column, Table, number, percent
from accl.data.questions import LETTERS, letter
from accl.errors import ConfigError

BAR = 30  # columns of a probability of 1
EIGHTHS = " ▏▎▍▌▋▊▉"
SPACES = {
    "contrastive": "the embedding of the contrastive head",
    "features": "the encoder's features (this run had no contrastive loss, so its contrastive head is untrained)",
}

QuestionArgument = Annotated[
    str | None, typer.Argument(metavar="QUESTION", help="Its text; read from standard input if left out.")
]
OptionsOption = Annotated[
    list[str] | None, typer.Option("--option", "-o", metavar="TEXT", help="An option; give it twice or more.")
]
TaskOption = Annotated[
    str,
    typer.Option("--task", metavar="NAME", help="Task that the head is told, or `none`.", show_default="nearest"),
]
NearOption = Annotated[bool, typer.Option("--near/--no-near", help="Show the nearest tasks and training questions.")]
OPTION_COLUMNS = [
    Column("option", cell=lambda row: letter(row["index"])),
    Column("p", "", "%", "right", percent),
    Column("bar", " ", cell=lambda row: bar(row["p"])),
    Column("text", " ", wrap=True),
]
TASK_COLUMNS = [Column("task"), Column("cosine", "", "", "right", number(".3f"))]
QUESTION_COLUMNS = [
    Column("cosine", "", "", "right", number(".3f")),
    Column("task", wrap=True),
    Column("text", "question", wrap=True),
    Column("answer", "right option", wrap=True, cell=lambda row: row["options"][row["answer"]]),
]


def ask(
    run: RunArgument,
    question: QuestionArgument = None,
    option: OptionsOption = None,
    task: TaskOption = "",
    near: NearOption = True,
    checkpoint: CheckpointOption = Checkpoint.BEST,
    format: FormatOption = Format.TABLE,
    runs: RunsOption = RUNS,
) -> None:
    """Ask the model of a run a question of your own.

    The question is the argument, or comes from standard input, or is asked for; without --option, the lines
    after the first are the options. Shown are the probability of each option, and what the question stands
    near to: tasks, by the mean of their training questions, and single training questions.

    Where the head of a run sees the task of a question, it is told the nearest one, or the one of --task.
    The first question to a run embeds its training questions, which takes a while and is kept.

    Examples:

      accl ask full-s1 "What do plants take in?" -o oxygen -o "carbon dioxide"

      accl ask last < question.txt

      accl ask last "2 + 2 = ?" -o 3 -o 4 --task elementary_mathematics --checkpoint last --no-near
    """
    from accl.launch.model import apply_model
    from accl.store.rundir import find_run

    chosen = find_run(runs, run)
    text, options = _complete(question, option or [])
    with progress(chosen) as phase:
        asked = {"text": text, "options": options, "task": task, "checkpoint": str(checkpoint), "near": near}
        done = apply_model("ask", chosen, phase, **asked)
    rows = [
        {"index": i, "text": t, "p": p} for i, (t, p) in enumerate(zip(options, done["probabilities"], strict=True))
    ]
    tables = [Table(text, OPTION_COLUMNS, rows, name="options")]
    if done["tasks"]:
        tables.append(Table("Nearest tasks", TASK_COLUMNS, done["tasks"], name="tasks"))
        tables.append(Table("Nearest training questions", QUESTION_COLUMNS, done["questions"], name="questions"))
    told = {key: done[key] for key in ("step", "task", "why", "space", "tasks", "questions")}
    emit(tables, format, data={"run": chosen.id, "question": text, "options": rows, **told}, notes=_notes(done))


def bar(p: float) -> str:
    """Draw a probability as a bar, to an eighth of a column."""
    whole, eighths = divmod(round(8 * BAR * p), 8)
    return "█" * whole + EIGHTHS[eighths].strip()


def _complete(question: str | None, options: Sequence[str]) -> tuple[str, list[str]]:
    """Return question and options; what is missing is read from standard input.

    Raises:
        ConfigError: there is no question, or there are fewer than two options or more than letters, or one is blank.
    """
    options = list(options)
    if question is None or not options:
        lines = _typed(question is None, not options) if sys.stdin.isatty() else _piped(question is None, not options)
        if question is None:
            question = lines.pop(0) if lines else ""
        if not options:
            options = lines
    if not question.strip():
        raise ConfigError("There is no question.", 'For example: accl ask last "Which?" --option this --option that')
    if not 2 <= len(options) <= len(LETTERS) or not all(map(str.strip, options)):
        what = f"A question needs 2 to {len(LETTERS)} options, none of them blank, and this one has {len(options)}."
        raise ConfigError(what, "Give each with --option TEXT, or as a line of its own on standard input.")
    return question, options


def _piped(question: bool, options: bool) -> list[str]:
    """Read from a pipe or a file: all of it is the question where options are given, or else a line is one of each."""
    text = sys.stdin.read().strip()
    if question and not options:
        return [text]
    return [line.strip() for line in text.splitlines() if line.strip()]


def _typed(question: bool, options: bool) -> list[str]:
    """Ask a person for what is missing; an empty line ends the options."""
    lines = [prompt("Question: ").strip()] if question else []
    for index in range(len(LETTERS) if options else 0):
        if not (line := prompt(f"Option {letter(index)}: ").strip()):
            break
        lines.append(line)
    return lines


def _notes(done: Mapping[str, Any]) -> list[str]:
    told = f"told the task {done['task']}, {done['why']}" if done["task"] != "none" else f"told no task: {done['why']}"
    notes = [f"Weights of step {done['step']:,}. The head was {told}."]
    if done["tasks"]:
        notes.append(f"Nearness is the cosine of {SPACES[done['space']]}; a task stands at the mean of its questions.")
    if done["no_neighbours"]:
        notes.append(f"The nearest tasks and training questions are not known: {done['no_neighbours']}")
    if done["truncated"]:
        notes.append(f"The question was cut to the {done['truncated']} tokens that the run reads.")
    return [*notes, *done["warnings"]]
