"""Writes reports as files: `report.json`, `report.md` and one self-contained `report.html`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_robust.evaluation.rendering import figures, tables, wording
from keras_robust.evaluation.rendering.markdown import markdown_page

if TYPE_CHECKING:
    from keras_robust.evaluation.report_data import ReportData

FORMATS = ("json", "md", "html")


class Section(NamedTuple):
    """What the page shows about one model."""

    report: ReportData
    label: str
    attacks: tables.Table
    parts: tuple[tables.Table, ...]
    facts: tuple[tuple[str, str], ...]
    pictures: tuple[figures.Picture, ...]
    detection: tuple[figures.Picture, ...]
    detection_text: str
    checks: tuple[tuple[str, str], ...]


def save_page(
    reports: Iterable[ReportData],
    directory: str | os.PathLike[str],
    title: str | None = None,
    formats: Iterable[str] = FORMATS,
) -> Path:
    """Writes one page about several models: a comparison, all curves in one plot, then details.

    `report.json` holds the report, or `{"title", "reports"}` for several; `load_reports` reads
    both. Each file appears by one atomic rename.

    Args:
        reports: at least one, in the order in which to show them.
        directory: made if it is not there.
        title: heading of the page; by default the models and the data are named.
        formats: which of `"json"`, `"md"` and `"html"` to write.

    Returns:
        The directory.

    Raises:
        ValueError: without reports, or for an unknown format.
        ImportError: when the HTML page is asked for and the extra `report` is not installed; the
            other formats are on disk by then.
    """
    shown = tuple(reports)
    wanted = {formats} if isinstance(formats, str) else set(formats)
    unknown = sorted(wanted - set(FORMATS))
    if unknown:
        raise ValueError(f"Unknown formats {unknown}; expected some of {list(FORMATS)}.")
    heading = _heading(shown, title)
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    # HTML comes last: where its packages are missing, the numbers are safe already.
    if "json" in wanted:
        write_whole(target / "report.json", _json(shown, heading))
    if "md" in wanted:
        write_whole(target / "report.md", markdown_page(shown, heading))
    if "html" in wanted:
        write_whole(target / "report.html", html_page(shown, heading))
    return target


def html_page(reports: Sequence[ReportData], title: str | None = None) -> str:
    """The page as one HTML file that asks the network for nothing.

    Args:
        reports: at least one.
        title: heading of the page; by default the models and the data are named.

    Returns:
        HTML 5 with its style and its plots inside.

    Raises:
        ValueError: without reports.
        ImportError: when the extra `report` is not installed.
    """
    heading = _heading(reports, title)
    template = _environment().get_template("report.html.j2")
    several = len(reports) > 1
    named = list(zip(reports, wording.labels(reports), strict=True))
    return template.render(
        title=heading,
        several=several,
        summaries=wording.summaries(reports),
        warnings=wording.all_warnings(reports),
        comparison=tables.comparison(reports) if several else None,
        curves=tables.curves(reports),
        radius_plot=figures.radius(reports),
        sections=[_section(report, label) for report, label in named],
        caveat=wording.CAVEAT,
        about_checks=wording.CHECKS,
        glossary=wording.glossary(reports),
    )


def _heading(reports: Sequence[ReportData], title: str | None) -> str:
    if not reports:
        raise ValueError("Got no reports; expected at least one.")
    return title or wording.page_title(reports)


def _json(reports: Sequence[ReportData], title: str) -> str:
    if len(reports) == 1:
        return reports[0].to_json()
    inner = ",\n".join(report.to_json().rstrip("\n") for report in reports)
    return f'{{"title": {json.dumps(title, ensure_ascii=False)}, "reports": [\n{inner}\n]}}\n'


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is either whole or not there."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _environment() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            "The HTML page needs jinja2 and matplotlib; jinja2 is not installed. Run: "
            "pip install keras_robust[report] (JSON and Markdown need neither)."
        ) from error
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _section(report: ReportData, label: str) -> Section:
    pictures = (figures.confusion(report), figures.examples(report))
    detection = (figures.detection(report), figures.roc(report))
    return Section(
        report=report,
        label=label,
        attacks=tables.attacks(report),
        parts=tables.parts(report),
        facts=tables.facts(report),
        pictures=tuple(picture for picture in pictures if picture),
        detection=tuple(picture for picture in detection if picture),
        detection_text=wording.detection_text(report.detection) if report.detection else "",
        checks=tables.checks(report),
    )
