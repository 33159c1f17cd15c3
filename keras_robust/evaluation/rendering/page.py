"""Writes reports as files: `report.json`, `report.md` and one self-contained `report.html`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_robust.core.atomic_files import write_text
from keras_robust.evaluation.rendering import figures, tables, wording
from keras_robust.evaluation.rendering.glossary import glossary
from keras_robust.evaluation.rendering.markdown import markdown_page
from keras_robust.evaluation.rendering.report_json import page_to_json

if TYPE_CHECKING:
    from keras_robust.evaluation.results.report_data import ReportData

FORMATS = ("json", "md", "html")


class Section(NamedTuple):
    """The part of the page about one model."""

    report: ReportData
    label: str
    figures: tuple[tuple[str, tables.Cell], ...]
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

    `report.json` contains the report, or `{"title", "reports"}` for several; `load_reports` reads
    both. Each file is written atomically.

    Args:
        reports: at least one, in the order in which to show them.
        directory: created if it does not exist; it is returned.
        title: heading of the page; by default it names the models and the data.
        formats: some of `"json"`, `"md"` and `"html"`.

    Raises:
        ValueError: no reports, or an unknown format.
        ImportError: the extra `report`, which the HTML page needs, is not installed; the other
            formats are written first.
    """
    reports = tuple(reports)
    formats = {formats} if isinstance(formats, str) else set(formats)
    unknown = sorted(formats - set(FORMATS))
    if unknown:
        raise ValueError(f"Unknown formats {unknown}; expected some of {list(FORMATS)}.")
    heading = _heading(reports, title)
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    # HTML comes last: if its packages are missing, the numbers are already saved.
    if "json" in formats:
        write_text(target / "report.json", page_to_json(reports, heading))
    if "md" in formats:
        write_text(target / "report.md", markdown_page(reports, heading))
    if "html" in formats:
        write_text(target / "report.html", html_page(reports, heading))
    return target


def html_page(reports: Sequence[ReportData], title: str | None = None) -> str:
    """The page as one HTML file, which loads nothing from the network.

    Raises:
        ValueError: no reports.
        ImportError: the extra `report` is not installed.
    """
    heading = _heading(reports, title)
    template = _environment().get_template("report.html.j2")
    several = len(reports) > 1
    labeled = zip(reports, wording.labels(reports), strict=True)
    sections = [_section(report, label) for report, label in labeled]
    radius_plot = figures.radius(reports)
    return template.render(
        title=heading,
        several=several,
        summaries=wording.summaries(reports),
        errors=wording.errors(reports),
        warnings=wording.all_warnings(reports),
        comparison=tables.comparison(reports) if several else None,
        curves=tables.curves(reports),
        radius_plot=radius_plot,
        sections=sections,
        contents=_contents(sections, radius_plot is not None),
        caveat=wording.CAVEAT,
        about_checks=wording.CHECKS,
        glossary=glossary(reports),
    )


def _contents(sections: Sequence[Section], has_radius: bool) -> list[tuple[str, str]]:
    """The table of contents: (anchor, title)."""
    several = len(sections) > 1
    found = [("comparison", "Comparison")] if several else [("results", "Results")]
    found += [("radius", "Accuracy over radius")] if has_radius else []
    for number, section in enumerate(sections, 1):
        if several:
            found.append((f"model-{number}", section.label))
            continue
        found += [("pictures-1", "Confusion and examples")] if section.pictures else []
        found += [("detection-1", "Detection")] if section.report.detection else []
        found += [("checks-1", "Sanity checks")] if section.checks else []
        found.append(("settings-1", "Evaluation settings"))
    return [*found, ("terms", "Terms")]


def _heading(reports: Sequence[ReportData], title: str | None) -> str:
    if not reports:
        raise ValueError("Got no reports; expected at least one.")
    return title or wording.page_title(reports)


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
        figures=tables.key_figures(report),
        attacks=tables.attacks(report),
        parts=(*tables.parts(report), *tables.certificates(report)),
        facts=tables.facts(report),
        pictures=tuple(picture for picture in pictures if picture),
        detection=tuple(picture for picture in detection if picture),
        detection_text=wording.detection_text(report.detection) if report.detection else "",
        checks=tables.checks(report),
    )
