"""The page of a report: HTML that needs nothing but itself, neither a network nor scripts.

Numbers stand in cells whose ``data-value`` holds them unrounded. Every text of a run goes through `escape`.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from accl import __version__
from accl.analysis.arms import Change, Scores
from accl.analysis.figures import Matrix, forest_rows, limits, task_rows
from accl.analysis.grouping import Arm, differing_keys
from accl.analysis.report.cells import MISSING, cell, details, figure, number_cell, spread_cell, table
from accl.analysis.report.claims import claims_section
from accl.analysis.report.gather import Part, Report, mean_and_sd
from accl.analysis.report.style import STYLE
from accl.analysis.report.svg import (
    HEAVIEST,
    escape,
    forest_chart,
    key,
    line_chart,
    matrix_chart,
    scale_bar,
    tasks_chart,
    weights_chart,
)
from accl.text import counted, duration, listed, printable_lines, without_credentials

# Nothing is loaded from anywhere, and no script runs, whatever the text of a run says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
DRAWN = 6  # matrices of either kind, and weights: a sweep may have a hundred arms, and one matrix takes 50 kB
PAIRS = 8  # of tasks, below the matrices
CONFIG_SHOWN = 20_000  # characters


def page(report: Report) -> str:
    """Return the report as an HTML document; equal reports are equal texts."""
    parts = [_part(part, f"p{number_}" * (len(report.parts) > 1)) for number_, part in enumerate(report.parts, 1)]
    title = escape(report.title, 200)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>\n<header><h1>{title}</h1></header>\n"
        + "\n".join(parts)
        + f"\n<footer>accl {__version__}. Where all arms have the same seeds, numbers are those of "
        "<code>accl compare</code>. An arm with other seeds is averaged over its own, and compared over those that it "
        "shares with the reference. Cells are rounded; their attribute <code>data-value</code> is not.</footer>"
        "</body></html>\n"
    )


def _part(part: Part, prefix: str) -> str:
    chosen = part.chosen
    sections: list[tuple[str, str, str]] = [
        ("results", "Results", _results(part)),
        ("claims", "Claims of the method", claims_section(part.claims) if part.claims else ""),
        ("curves", "Curves", _curves(part)),
        ("weights", "Task weights", _weights(part)),
        ("confusion", "Confusion between tasks", _confusion(part)),
        ("tasks", "Tasks and categories", _tasks(part)),
        ("configuration", "Configuration", _configuration(part)),
        ("provenance", "Provenance", _provenance(part)),
    ]
    there = [(f"{prefix}{name}", title, body) for name, title, body in sections if body]
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title, _ in there)
    runs = sum(len(arm.members) for arm in chosen.arms)
    seeds = sorted({seed for arm in chosen.arms for seed in chosen.seeds(arm)})
    of = f"seed{'s' * (len(seeds) > 1)} {listed([*map(str, seeds)], 'and')}"
    lead = f"{counted(len(chosen.arms), 'arm')}, {counted(runs, 'run')}, {of}"
    lead += f"; {part.comparison.n:,} {part.split} questions" if part.comparison.n else "; not tested"
    body = "".join(f'\n<section id="{name}"><h3>{title}</h3>{text}</section>' for name, title, text in there)
    missing = "".join(f'<p class="warn">{escape(problem)}</p>' for problem in (*chosen.notes, *part.problems))
    return f"<main><h2>{escape(chosen.terms)}</h2><p class=lead>{lead}.</p><nav>{links}</nav>{missing}{body}</main>"


def _results(part: Part) -> str:
    comparison, chosen = part.comparison, part.chosen
    labels = [arm.label for arm in chosen.arms]
    head = [
        "arm",
        "seeds",
        "steps",
        *(["best validation (%)"] * (part.split == "test")),
        f"{part.split} (%)",
        "floor (%)",
    ]
    head += ["difference (points) [95 %]", "Holm p", "seeds for ±1 point", "training"]
    rows = [
        [cell(arm.label), *_facts(part, arm), *_score_cells(comparison.scores.get(arm.label)), _training(part, arm)]
        for arm in chosen.arms
    ]
    text = table(head, rows, [f' data-arm="{escape(label)}"' for label in labels], numbers_from=1)
    text += "<figcaption>Mean ± standard deviation over seeds. Best validation is that of the weights that are tested. "
    text += "The floor is an accuracy that needs no reading of the question.</figcaption>"
    if rows_ := forest_rows(comparison):
        caption = "Bar: 95 % interval. Ticks: the difference of each pair of seeds."
        text += figure(forest_chart(rows_, labels, chosen.reference), caption)
    text += "".join(f'<p class="warn">{escape(warning)}</p>' for warning in part.warnings)
    return text + f'<div class="notes">{"".join(f"<p>{escape(note)}</p>" for note in part.notes)}</div>'


def _facts(part: Part, arm: Arm) -> list[str]:
    """Cells of an arm that need no test: seeds, steps and validation."""
    steps = sorted({state.step for i in arm.members if (state := part.states[i]) is not None})
    cells = [
        cell(listed([*map(str, part.chosen.seeds(arm))], "and"), css="num"),
        cell(listed([f"{step:,}" for step in steps], "and") or MISSING, css="num"),
    ]
    if part.split == "test":
        cells.append(spread_cell("validation", *mean_and_sd(part.validation(arm))))
    return cells


def _score_cells(scores: Scores | None) -> list[str]:
    if scores is None:
        return [cell(MISSING, css="num")] * 5
    difference = scores.difference
    cells = [spread_cell("accuracy", scores.mean, scores.sd), number_cell("floor", scores.floor, 100, ".2f")]
    if difference is None:
        return [*cells, *[cell("reference", css="num"), cell("", css="num"), cell("", css="num")]]
    shown = f"{100 * difference.delta:+.2f} [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]".replace(
        "-", "−"
    )
    values = f' data-low="{difference.low!r}" data-high="{difference.high!r}"'
    cells.append(cell(shown, "delta", difference.delta, css="num", more=values))
    p = math.nan if scores.p_holm is None else scores.p_holm
    cells.append(cell("&lt; 0.001" if p < 0.001 else f"{p:.3f}", "p_holm", p, css="num", escaped=True))
    needed = {None: MISSING, 0: "no number"}.get(scores.seeds_needed, str(scores.seeds_needed))
    return [*cells, cell(needed, css="num")]


def _training(part: Part, arm: Arm) -> str:
    seconds, _ = mean_and_sd(part.totals(arm, "training_seconds"))
    return cell(duration(seconds), "training_seconds", seconds, css="num")


def _curves(part: Part) -> str:
    if not part.panels:
        return ""
    labels = [arm.label for arm in part.chosen.arms]
    charts = "".join(figure(line_chart(panel, labels)) for panel in part.panels)
    caption = "Line: mean over seeds. Band: ± one standard deviation. A point has its values as a tooltip."
    return f'{key(labels)}<div class="grid-of">{charts}</div><figcaption>{caption}</figcaption>'


def _weights(part: Part) -> str:
    if not part.weights:
        return ""
    highest = max(float(weights.mean_PK.max()) for weights in part.weights)
    charts = ""
    for weights in part.weights[:DRAWN]:
        names = [weights.tasks[task].name.replace("_", " ") for task in weights.heaviest[:HEAVIEST]]
        named = key(names, first=1)
        charts += f"<div><h4>{escape(weights.label)}</h4>{weights_chart(weights, highest)}{named}</div>"
    rows = [
        [cell(task.name.replace("_", " ")), cell(task.category)]
        + [number_cell("weight", float(weights.mean_PK[-1, i]), 100, ".2f") for weights in part.weights]
        for i, task in enumerate(part.weights[0].tasks)
    ]
    head = ["task", "category", *(f"{weights.label} (%)" for weights in part.weights)]
    at_end = details("Weights at the end", table(head, rows, numbers_from=2))
    caption = "Means over seeds; dotted: uniform."
    if others := len(part.weights[DRAWN:]):
        caption += f" {counted(others, 'arm')} more: accl figure weights draws any."
    return f'<div class="grid-of">{charts}</div><figcaption>{caption}</figcaption>{at_end}'


def _confusion(part: Part) -> str:
    text = ""
    for matrices in (part.matrices, part.differences):
        if not matrices:
            continue
        matrices, others = matrices[:DRAWN], len(matrices[DRAWN:])
        low, high = limits(matrices)
        drawn = "".join(f"<div><h4>{escape(m.label)}</h4>{matrix_chart(m, low, high)}</div>" for m in matrices)
        title = matrices[0].title
        said = f"Difference in {title}" if matrices[0].difference else title.capitalize()
        bar = scale_bar(low, high, matrices[0].difference)
        caption = f"{escape(said)}; means over seeds, tasks by category."
        caption += f" {counted(others, 'arm')} more: accl figure confusion draws any." if others else ""
        text += f'<div class="grid-of">{drawn}</div>{bar}<figcaption>{caption}</figcaption>'
        pairs = "".join(_pairs(matrix) for matrix in matrices)
        text += details(
            "Largest changes" if matrices[0].difference else "Most similar pairs", f'<div class="grid-of">{pairs}</div>'
        )
    return text


def _pairs(matrix: Matrix) -> str:
    form = "{:+.3f}" if matrix.difference else "{:.3f}"
    rows = [
        [cell(f"{a.name} · {b.name}".replace("_", " ")), cell(form.format(value).replace("-", "−"), css="num")]
        for a, b, value in matrix.ranked(PAIRS)
    ]
    return f"<div><h4>{escape(matrix.label)}</h4>{table(['pair of tasks', ''], rows, numbers_from=1)}</div>"


def _tasks(part: Part) -> str:
    comparison = part.comparison
    if not comparison.scores:
        return ""
    labels = [arm.label for arm in part.chosen.arms]
    text = "<h4>Categories</h4>" + _changes(part, "category", lambda scores: scores.categories)
    rows = task_rows(comparison)
    text += f"<h4>Tasks, from the largest gain to the largest loss</h4>{key(labels, dots=True)}"
    text += figure(tasks_chart(rows, labels, part.split), "Mean over the seeds; in brackets the number of questions.")
    return text + details("Accuracy by task as a table", _changes(part, "task", lambda scores: scores.tasks))


def _changes(part: Part, what: str, of: Callable[[Scores], Sequence[Change]]) -> str:
    """Return a table of accuracies by task or category, with the differences to the reference."""
    scores, reference = part.comparison.scores, part.comparison.reference
    found = {label: {change.name: change for change in of(score)} for label, score in scores.items()}
    names = dict.fromkeys(name for changes in found.values() for name in changes)
    head = [what, "questions"]
    for label in found:
        head += [f"{label} (%)"] if label == reference else [f"{label} (%)", "difference (points)"]
    rows, marks = [], []
    for name in sorted(names):
        first = next(changes[name] for changes in found.values() if name in changes)
        cells = [cell(name.replace("_", " ") if what == "task" else name), cell(f"{first.n:,}", css="num")]
        for label, changes in found.items():
            change = changes.get(name)
            cells.append(number_cell(f"{label}/accuracy", math.nan if change is None else change.accuracy, 100, ".1f"))
            if label != reference:
                cells.append(number_cell(f"{label}/delta", math.nan if change is None else change.delta, 100, "+.1f"))
        rows.append(cells)
        marks.append(f' data-{what}="{escape(name)}"')
    return table(head, rows, marks, numbers_from=1)


def _configuration(part: Part) -> str:
    arms = part.chosen.arms
    keys = [key_ for key_ in differing_keys(arms) if key_ not in ("recipe", "train.seed")]
    text = ""
    if keys:
        rows = [[cell(name), *(cell(arm.values.get(name, MISSING)) for arm in arms)] for name in sorted(keys)]
        text = table(["key", *(arm.label for arm in arms)], rows)
    elif len(arms) > 1:
        text = "<p>The arms differ in no key.</p>"
    for arm in arms:
        config = part.chosen.configs[arm.members[0]][:CONFIG_SHOWN]
        lines = escape_lines(config)
        text += details(f"Whole configuration of {escape(arm.label)}", f"<pre>{lines}</pre>")
    return text


def escape_lines(text: str) -> str:
    """Escape a text of several lines, without credentials."""
    lines = printable_lines(without_credentials(text)).split("\n")
    return "\n".join(escape(line) for line in lines)


def _provenance(part: Part) -> str:
    named = any(labels.name or labels.note for labels in part.labels)
    head = [
        "run",
        *(["name and note"] * named),
        "arm",
        "seed",
        "steps",
        "ended (UTC)",
        "commit",
        "device",
        "torch",
        "command",
    ]
    rows = []
    for arm in part.chosen.arms:
        for i, seed in zip(arm.members, part.chosen.seeds(arm), strict=True):
            setup, state, facts, labels = part.chosen.setups[i], part.states[i], part.provenance[i], part.labels[i]
            rows.append(
                [
                    cell(setup.run.id, css="text"),
                    *([cell(": ".join(filter(None, (labels.name, labels.note))), css="text")] * named),
                    cell(arm.label),
                    cell(seed, css="num"),
                    cell(MISSING if state is None else f"{state.step:,}", css="num"),
                    cell(MISSING if state is None else _utc(state.ended)),
                    cell(_commit(facts)),
                    cell(_device(facts)),
                    cell(_entry(facts, "packages", "torch")),
                    cell(_command(facts), css="text"),
                ]
            )
    data = f"<p>Data fingerprint <code>{escape(part.chosen.setups[0].fingerprint)}</code>.</p>"
    return data + table(head, rows)


def _commit(facts: dict[str, Any]) -> str:
    commit = _entry(facts, "git", "commit")[:12]
    return f"{commit} (with changes)" if _entry(facts, "git", "dirty") == "True" else commit


def _device(facts: dict[str, Any]) -> str:
    name = _entry(facts, "device", "name")
    return name if name != MISSING else _entry(facts, "device", "type")


def _entry(facts: dict[str, Any], section: str, name: str) -> str:
    found = facts.get(section)
    value = found.get(name) if isinstance(found, dict) else None
    return MISSING if value is None else str(value)


def _command(facts: dict[str, Any]) -> str:
    words = facts.get("command")
    if not (isinstance(words, list) and words):
        return MISSING
    return shlex.join(["accl", *map(str, words[1:])])


def _utc(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}" if seconds else MISSING
    except (OverflowError, ValueError, OSError):  # a time that no calendar has
        return MISSING
