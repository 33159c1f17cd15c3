"""A report as a fragment of HTML for notebooks; needs no extra package."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from keras_robust.evaluation.rendering import tables, wording

if TYPE_CHECKING:
    from keras_robust.evaluation.results.report_data import ReportData


def report_html(report: ReportData) -> str:
    """The summary, the warnings and the tables of a report.

    Example:
        >>> from keras_robust.evaluation import AttackResult, Report
        >>> pgd = AttackResult("PGD-20", "", 0.1, 0.75, 96, 3.5)
        >>> report = Report("", "", "<b>", "", 0.1, 100, 0, 0.96, (pgd,), 0.75)
        >>> "<td>PGD-20</td><td>75.0%" in report_html(report), "<b>" in report_html(report)
        (True, False)
    """
    notes = [*wording.errors((report,)), *wording.all_warnings((report,))]
    blocks = [f"<p>{html.escape(text)}</p>" for text in wording.summaries((report,))]
    blocks += [f"<p><strong>Warning:</strong> {html.escape(text)}</p>" for text in notes]
    found = (tables.attacks(report), *tables.parts(report), *tables.certificates(report))
    blocks += [table._repr_html_() for table in found]
    if report.detection:
        blocks.append(f"<p>{html.escape(wording.detection_text(report.detection))}</p>")
    return "\n".join(blocks)
