"""The claims of the method on the page of a report."""

from __future__ import annotations

from accl.analysis.claims import Claim, Claims, Evidence
from accl.analysis.report.cells import MISSING, cell, table
from accl.analysis.report.svg import escape

_FORMS = {"points": (100.0, "+.2f"), "steps": (1.0, "+,.0f"), "%": (100.0, "+.1f")}


def claims_section(found: Claims) -> str:
    """Return verdicts, and below them the numbers that they rest on."""
    head = ["claim", "verdict", "why", "measured", "value [95 %]", "p", "test", "seeds × questions"]
    rows, marks = [], []
    for claim in found.claims:
        for part, evidence in enumerate(claim.evidence or (None,)):
            words = _words(claim) if part == 0 else [cell(""), cell(""), cell("")]
            rows.append([*words, *_numbers(evidence)])
            marks.append(f' data-claim="{escape(claim.key)}{part or ""}"')
    warnings = "".join(f'<p class="warn">{escape(warning)}</p>' for warning in found.warnings)
    rules = "".join(f"<p>{escape(claim.key)}: {escape(claim.rule)}.</p>" for claim in found.claims)
    return table(head, rows, marks) + warnings + f'<div class="notes">{rules}</div>'


def _words(claim: Claim) -> list[str]:
    return [
        cell(claim.statement, css="text"),
        cell(f"<strong>{escape(claim.verdict)}</strong>", escaped=True),
        cell(f"{claim.reason} {claim.hint}".strip(), css="text"),
    ]


def _numbers(evidence: Evidence | None) -> list[str]:
    if evidence is None:
        return [cell(MISSING)] * 5
    factor, form = _FORMS[evidence.unit]

    def said(value: float) -> str:
        return format(factor * value, form).replace("-", "−")

    shown, ends = said(evidence.value), ""
    if evidence.bound:
        shown = f"at least {shown}"
    elif evidence.low is not None and evidence.high is not None:
        shown += f" [{said(evidence.low)}, {said(evidence.high)}]"
        ends = f' data-low="{evidence.low!r}" data-high="{evidence.high!r}"'
    p = evidence.p
    return [
        cell(f"{evidence.quantity} ({evidence.unit})", css="text"),
        cell(shown, "value", evidence.value, css="num", more=ends),
        cell(MISSING) if p is None else cell("< 0.001" if p < 0.001 else f"{p:.3f}", "p", p, css="num"),
        cell(evidence.test),
        cell(f"{len(evidence.seeds)}" + (f" × {evidence.n:,}" if evidence.n is not None else ""), css="num"),
    ]
