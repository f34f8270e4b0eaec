"""`accl claims`: what finished runs say of the method's claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from accl.cli.options import RUNS, OneProfileOption, QueryArgument, RunsOption
from accl.cli.output import Format, FormatOption, emit, print_notes, say
from accl.cli.table import MISSING, Column, Row, Table, fields, number, p_value, points
from accl.store.rundir import RunDir, list_runs
from accl.store.selection import matching_summaries

if TYPE_CHECKING:
    from accl.analysis.claims import Claim, Claims, Evidence

_STYLES = {"supported": "bold green", "not supported": "bold red", "inconclusive": "yellow"}
_NUMBERS = {"points": points, "steps": number("+,.0f"), "%": number("+.1f", 100)}


def _value(row: Row) -> str:
    """Write value and interval, as ``+1.20 [+0.30, +2.10]``, or a lower bound, as ``at least +67``."""
    if row["value"] is None:
        return MISSING
    value, low, high = (_NUMBERS[row["unit"]](row[key]) for key in ("value", "low", "high"))
    if row["bound"]:
        return f"at least {value}"
    return value if row["low"] is None else f"{value} [{low}, {high}]"


def _measured(row: Row) -> str:
    """Write what was measured, with its unit."""
    return MISSING if row["quantity"] is None else f"{row['quantity']} ({row['unit']})"


def _pairs(row: Row) -> str:
    """Write the number of seeds, and of questions where those were used, as ``3 × 684``."""
    if row["seeds"] is None:
        return MISSING
    return f"{len(row['seeds'])}" if row["n"] is None else f"{len(row['seeds'])} × {row['n']:,}"


VERDICTS = [
    Column("statement", "claim", wrap=True, cell=lambda row: f"{row['claim']}: {row['statement']}"),
    Column("verdict", style=lambda row: _STYLES[row["verdict"]]),
    Column("reason", "why", wrap=True),
]
EVIDENCE = [
    Column("claim", cell=lambda row: row["claim"] if row["part"] == 1 else ""),
    Column("quantity", "measured", wrap=True, cell=_measured),
    Column("value", "value [95 %]", "", "right", cell=_value),
    Column("p", "p", "", "right", p_value),
    Column("seeds", "seeds×n", "", "right", cell=_pairs),
]


def claims(
    query: QueryArgument = None,
    profile: OneProfileOption = None,
    format: FormatOption = Format.TABLE,
    runs: RunsOption = RUNS,
) -> None:
    """Judge the four claims of the method by what finished runs show.

    Arms are the finished runs of baseline, contrastive and full that are
    alike in all that does not make the arm, paired seed by seed. Of several
    such groups the one with the most arms and seeds is taken; --profile and
    QUERY choose another.

    A claim is about recipes, so that a single seed never decides it. With
    95 % intervals over two seeds and more it is supported when:

      contrastive  the gain is at least 2 points, its interval above 0
      curriculum   every run of full reaches contrastive's final validation
                   accuracy, the interval of the steps saved above 0
      full         it gains on baseline and on contrastive, and gains more
                   on the tasks of confusing pairs than elsewhere: all three
                   intervals above 0
      overhead     the interval of the added time is at most 7.5 %

    It is not supported when the interval rules that out: it is below 2
    points; no steps are saved; one of the three is at or below 0; it is
    above 7.5 %. All else is inconclusive, also where runs are missing,
    which says what to type.

    Examples:

      accl claims

      accl claims --profile minilm --format md

      accl claims experiment:weights cfg.optim.lr=1e-5
    """
    from accl.analysis.claim_runs import (
        select_claim_runs,  # here: numpy and duckdb would keep help and completion waiting
    )
    from accl.analysis.claims import check_claims

    chosen = select_claim_runs(_matching(runs, " ".join(query or ())), profile)
    found = check_claims(chosen)
    terms = f": profile {found.profile}, protocol {found.protocol}" if found.runs else ""
    rows = _rows(found)
    tables = [
        Table(f"Claims of the method{terms}", VERDICTS, [row for row in rows if row["part"] == 1], name="claims"),
        Table("What they rest on", EVIDENCE, [row for row in rows if row["quantity"] is not None], name="evidence"),
    ]
    shown = tables if tables[1].rows else tables[:1]
    if format is Format.CSV:
        shown = [Table("", EVIDENCE, rows, name="claims")]
    hints = _hints(found)
    notes = [*(f"Warning: {text}" for text in found.warnings), *found.notes]
    emit(shown, format, data=found, notes=notes if format is Format.TABLE else [*notes, *hints])
    if format is Format.TABLE and hints:
        say("", *hints)  # not wrapped: a command to copy must not be broken by a newline


def _hints(found: Claims) -> list[str]:
    """Return what to type next, without commands that a longer line has as well."""
    hints = dict.fromkeys(claim.hint for claim in found.claims if claim.hint)
    words = {hint: set(hint.partition(": ")[2].split(" && ")) for hint in hints}
    return [hint for hint in hints if not any(words[hint] < words[other] for other in hints)]


def _matching(root: Path, text: str) -> Sequence[RunDir]:
    """Return the runs that a query finds, from the oldest to the newest."""
    found = list_runs(root)
    if not text:
        return found
    matching = [summary.run for summary in matching_summaries(found, text)]
    if not matching:
        print_notes([f"no run of {len(found):,} in {root} matches: {text}"])
    return matching


def _rows(found: Claims) -> list[Row]:
    """Return a row for each number, and one for each claim that has none."""
    return [
        _row(found, claim, part, evidence)
        for claim in found.claims
        for part, evidence in enumerate(claim.evidence or (None,), start=1)
    ]


def _row(found: Claims, claim: Claim, part: int, evidence: Evidence | None) -> Row:
    names = ("quantity", "unit", "value", "low", "high", "p", "test", "seeds", "n", "bound")
    return {
        **fields(claim, "statement", "verdict", "reason", "hint", "rule", claim="key"),
        "compared": list(claim.compared),
        "part": part,
        **fields(evidence, *names),
        **fields(found, "profile", "protocol"),
    }
