"""The outcome of an evaluation for programs: exit code, JSON and JUnit."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from absl import flags

from keras_robust.core.atomic_files import write_text
from keras_robust.experiments.flags import command_line
from keras_robust.experiments.flags.recipe_flags import NumberParser

if TYPE_CHECKING:
    from keras_robust.evaluation import Report

# What XML cannot hold, not even escaped; a name in a model file may.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

flags.disclaim_key_flags()  # `--help` shows them as the program's own


def define(values: flags.FlagValues) -> None:
    """Declares the flags of the output."""
    flags.DEFINE(
        NumberParser(),
        "fail_under",
        None,
        "Exit with code 3 if the worst-case accuracy is below this fraction, such as 0.45, or if "
        "the evaluation is not complete.",
        values,
    )
    flags.register_validator(
        "fail_under",
        lambda least: least is None or 0 <= least <= 1,
        message="expected a fraction between 0 and 1",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "json", False, "Print JSON, and the progress to standard error.", flag_values=values
    )
    flags.DEFINE_string(
        "junit",
        None,
        "File for the result as JUnit XML, a test case an attack.",
        flag_values=values,
    )
    flags.DEFINE_bool("progress", True, "Print the progress.", flag_values=values)


def progress(values: flags.FlagValues) -> Callable[[str], None]:
    """The function that prints lines of progress, where the flags say."""
    if not values.progress:
        return lambda line: None
    stream = sys.stderr if values.json else sys.stdout
    return lambda line: print(line, file=stream, flush=True)


def finish(values: flags.FlagValues, report: Report, text: Sequence[str], page: Path) -> str:
    """The output of a report; writes the JUnit file.

    Args:
        values: the parsed flags.
        report: what was measured.
        text: the lines of the output without --json.
        page: the HTML page of the report.

    Raises:
        NotPassed: the worst-case accuracy is below --fail_under.
    """
    failure = _failure(report, values.fail_under)
    if values.junit is not None:
        write_text(Path(values.junit), junit(report, values.fail_under))
    lines = [*text, *([failure] if failure else [])]
    output = json.dumps(summary(report, values.fail_under, page), indent=2, ensure_ascii=False)
    output = output if values.json else "\n".join(lines)
    if failure:
        raise command_line.NotPassed(output)
    return output


def summary(report: Report, fail_under: float | None, page: Path) -> dict[str, Any]:
    """The figures of a report as plain values; accuracies are fractions."""
    failure = _failure(report, fail_under)
    return {
        "model": report.model,
        "dataset": report.dataset,
        "threat_model": report.threat_model,
        "samples": report.samples,
        "clean_accuracy": report.clean_accuracy,
        "worst_case_accuracy": report.worst_case_accuracy,
        "worst_case_interval": list(report.worst_case_interval),
        "attacks": {attack.name: attack.accuracy for attack in report.attacks},
        "certified_accuracy": {one.name: one.certified_accuracy for one in report.certificates},
        "failed_checks": [check.name for check in report.checks if not check.passed],
        "warnings": list(report.warnings),
        "unfinished": report.unfinished,
        "fail_under": fail_under,
        "passed": None if fail_under is None else not failure,
        "report": str(page),
    }


def junit(report: Report, fail_under: float | None) -> str:
    """A report as JUnit XML: test cases for the attacks, the sanity checks and the worst case."""
    suite = ElementTree.Element("testsuite", name=f"{report.model} on {report.dataset}")
    for attack in report.attacks:
        case = _case(suite, f"attack {attack.name}", attack.seconds)
        _child(case, "system-out", f"accuracy {attack.accuracy:.4f} under {attack.description}")
    for check in report.checks:
        case = _case(suite, f"check {check.name}")
        _child(case, "system-out" if check.passed else "failure", check.message)
    case = _case(suite, f"worst case in {report.threat_model}")
    failure = _failure(report, fail_under)
    if failure:
        _child(case, "failure", failure)
    _child(case, "system-out", "\n".join([_accuracy(report), *report.warnings]))
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("*/failure"))))
    ElementTree.indent(suite)
    text = ElementTree.tostring(suite, "unicode", xml_declaration=True) + "\n"
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _failure(report: Report, fail_under: float | None) -> str:
    """Why a report does not pass; empty if it does, or without a threshold."""
    if fail_under is None:
        return ""
    if report.worst_case_accuracy < fail_under:
        return f"FAILED: the {_accuracy(report)} is below --fail_under={fail_under:g}."
    if report.unfinished:
        return f"FAILED: the {_accuracy(report)} is an upper bound. {report.unfinished}"
    return ""


def _accuracy(report: Report) -> str:
    return f"worst-case accuracy {report.worst_case_accuracy:.4f}"


def _case(suite: ElementTree.Element, name: str, seconds: float = 0.0) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", classname="keras-robust.evaluate", name=name, time=f"{seconds:.3f}"
    )


def _child(case: ElementTree.Element, tag: str, text: str) -> None:
    child = ElementTree.SubElement(case, tag)
    child.text = text
    if tag == "failure":
        child.set("message", text)
