"""A page of reports as Markdown; needs no extra package."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from keras_robust.evaluation.rendering import tables, wording
from keras_robust.evaluation.rendering.glossary import glossary

if TYPE_CHECKING:
    from keras_robust.evaluation.results.report_data import ReportData

MATRIX = 12  # larger confusion matrices are unreadable as text; report.json has them


def markdown_page(reports: Sequence[ReportData], title: str) -> str:
    """A page of reports as GitHub-flavored Markdown; names given by users are escaped."""
    names = wording.labels(reports)
    blocks = [f"# {escape(title)}"]
    summaries = [escape(summary) for summary in wording.summaries(reports)]
    blocks += summaries if len(summaries) == 1 else ["\n".join(f"- {s}" for s in summaries)]
    blocks += [f"> **{escape(error)}**" for error in wording.errors(reports)]
    warnings = wording.all_warnings(reports)
    if warnings:
        blocks.append("\n>\n".join(f"> **Warning:** {escape(w)}" for w in warnings))
    if len(reports) > 1:
        blocks += ["## Comparison", markdown_table(tables.comparison(reports))]
    curves = tables.curves(reports)
    if curves:
        blocks += ["## Accuracy over radius", markdown_table(curves)]
    for name, report in zip(names, reports, strict=True):
        blocks += _model(report, "Results" if len(reports) == 1 else name)
    terms = (f"- **{term}**: {text}" for term, text in glossary(reports))
    blocks += ["## Terms", "\n".join(terms)]
    return "\n\n".join(blocks) + "\n"


def _model(report: ReportData, heading: str) -> list[str]:
    """The blocks of one model."""
    blocks = [f"## {escape(heading)}", markdown_table(tables.attacks(report))]
    for table in (*tables.parts(report), *tables.certificates(report)):
        blocks += [escape(table.caption), markdown_table(table)]
    for title, counts in (
        ("Confusion on clean images", report.confusion_clean),
        ("Confusion on attacked images", report.confusion_adversarial),
    ):
        if counts is not None and len(counts) <= MATRIX:
            matrix = tables.confusion(title, counts, report.class_names)
            blocks += [f"### {title}", markdown_table(matrix)]
    if report.detection:
        texts = (wording.CAVEAT, wording.detection_text(report.detection))
        blocks += ["### Detection", *map(escape, texts)]
    if report.checks:
        blocks += ["### Sanity checks", wording.CHECKS, markdown_pairs(tables.checks(report))]
    blocks += ["### Evaluation settings", markdown_pairs(tables.facts(report))]
    if report.command:
        # The fence is longer than any run of backticks inside, so nothing closes it early.
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", report.command)), default=0))
        blocks.append(f"{fence}sh\n{report.command}\n{fence}")
    return blocks


def markdown_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values as a list."""
    return "\n".join(f"- {escape(k)}: {escape(v)}" for k, v in pairs)


def markdown_table(table: tables.Table) -> str:
    """A table as GitHub-flavored Markdown, without its caption."""

    def row(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    lines = [row(map(escape, table.columns)), row(["---"] + ["---:"] * (len(table.columns) - 1))]
    for cells in table.rows:
        texts = (f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in cells)
        lines.append(row(map(escape, texts)))
    return "\n".join(lines)


def escape(text: str) -> str:
    r"""Text escaped for Markdown, on one line.

    Example:
        >>> print(escape("a|b <script> *c*"))
        a\|b &lt;script> \*c\*
    """
    flat = " ".join(str(text).split())
    flat = re.sub(r"([\\`*\[\]|]|(?<!\w)_|_(?!\w))", r"\\\1", flat)
    return flat.replace("&", "&amp;").replace("<", "&lt;")
