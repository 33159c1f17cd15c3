"""The outcome of an evaluation for programs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree

import pytest
from absl import flags

from keras_robust.cli import outcome
from keras_robust.evaluation import AttackResult, Check, Report
from keras_robust.experiments.flags.command_line import NotPassed

PGD = AttackResult("PGD-20", "20 steps <of> 0.02", 0.1, 0.75, 96, 3.5)
REPORT = Report(
    "digits", "mlp", "", "Linf, radius 0.1", 0.1, 100, 0,
    clean_accuracy=0.96, attacks=(PGD,), worst_case_accuracy=0.75,
    checks=(Check("steps", True, 0.0, "No more."), Check("noise", False, 1.0, "Masked.")),
)  # fmt: skip


def parsed(*arguments):
    values = flags.FlagValues()
    outcome.define(values)
    values(["program", *arguments])
    return values


def finish(report, *arguments):
    return outcome.finish(parsed(*arguments), report, ["text"], Path("report.html"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], ("line\n", "")), (["--json"], ("", "line\n")), (["--noprogress"], ("", ""))],
)
def test_progress_is_printed_unless_told_not_to(arguments, expected, capsys):
    outcome.progress(parsed(*arguments))("line")
    assert tuple(capsys.readouterr()) == expected


def test_the_threshold():
    assert finish(REPORT) == "text"
    assert finish(REPORT, "--fail_under=3/4") == "text"
    with pytest.raises(NotPassed, match=r"text\nFAILED: .* 0.7500 is below --fail_under=0.76"):
        finish(REPORT, "--fail_under=0.76")
    cut = dataclasses.replace(REPORT, unfinished="PGD stopped.")
    assert finish(cut) == "text"
    with pytest.raises(NotPassed, match=r"is an upper bound. PGD stopped."):
        finish(cut, "--fail_under=0.5")


def test_junit_is_xml_whatever_a_file_is_called():
    """XML has no escape for control characters."""
    strange = dataclasses.replace(REPORT, model="a\x00\x1b[2J<&>", warnings=("\x07\ud800",))
    suite = ElementTree.fromstring(outcome.junit(strange, 0.5))
    assert suite.get("name").startswith("a\ufffd\ufffd[2J<&> on ")


def test_junit():
    suite = ElementTree.fromstring(outcome.junit(REPORT, 0.5))
    cases = {case.get("name"): case for case in suite}
    assert list(cases) == [
        "attack PGD-20", "check steps", "check noise", "worst case in Linf, radius 0.1",
    ]  # fmt: skip
    assert (suite.get("tests"), suite.get("failures")) == ("4", "1")
    assert cases["check noise"].find("failure").text == "Masked."
    assert cases["attack PGD-20"].get("time") == "3.500"
    assert "20 steps <of> 0.02" in cases["attack PGD-20"].find("system-out").text
