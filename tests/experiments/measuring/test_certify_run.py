"""Certificates in the reports and cards of runs."""

from __future__ import annotations

import dataclasses
import functools
import shutil

import pytest

import keras_robust as kr
from keras_robust.evaluation import certify, save_page
from keras_robust.evaluation.certify import METHODS
from keras_robust.experiments.measuring import evaluation_reports, run_cards
from keras_robust.experiments.measuring.certify_run import certify_run, method_specs
from keras_robust.experiments.measuring.evaluate_run import EvaluationPlan
from keras_robust.experiments.runs.loaded_run import load_run


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of the run to write into; its reports are without pictures, which take long."""
    plain = functools.partial(save_page, formats=("json", "md"))
    monkeypatch.setattr(evaluation_reports, "save_page", plain)
    return load_run(shutil.copytree(trained, tmp_path / "run"))


def test_methods_are_read_as_attacks_are():
    specs = method_specs([*METHODS[:-1], "smoothing:sigma=1/4:n=500"])
    assert [spec["name"] for spec in specs] == list(METHODS)
    assert specs[-1]["options"] == {"sigma": 0.25, "n": 500}
    with pytest.raises(ValueError, match=r"no method of certification 'ipb'.*Did you mean 'ibp'"):
        method_specs(["ipb"])
    with pytest.raises(ValueError, match=r"write it as in smoothing:sigma=0.25"):
        method_specs(["smoothing"])


def test_what_cannot_be_certified_is_a_user_error(loaded):
    """Programs print a ValueError in one line."""
    for method, says in (
        ("smoothing:sigma=0.25", "defined in L2; ball is LinfBall"),
        ("smoothing:sigma=-1", "sigma is -1; expected a finite number > 0"),
        ("ibp:n=3", "unexpected keyword argument 'n'"),
    ):
        with pytest.raises(ValueError, match=says):
            certify_run(loaded, [method], loaded.ball(), limit=3)


def test_a_report_with_a_card_that_is_verified(run):
    plan = EvaluationPlan(["fgsm"], radii=(), radius=0.01, limit=30, certify=["ibp"])
    (directory,) = evaluation_reports.write_reports([run], plan, card=True, log=lambda _: None)
    (report,) = kr.evaluation.load_reports(directory)
    (proof,) = report.certificates
    assert (proof.name, proof.radii, proof.samples) == ("IBP", (0.01,), 30)
    assert report.clean_accuracy >= report.worst_case_accuracy >= proof.certified_accuracy > 0
    assert run_cards.verify(directory / "card.json") == ()


def test_a_contradiction_ends_a_program_after_the_report_is_written(run, monkeypatch):
    """FGSM at a large radius fools images that are said to be certified."""

    def wrong(*args, **options):
        result = certify(*args, **options)
        radii = tuple(None if radius is None else 0.2 for radius in result.certified_radii)
        return dataclasses.replace(result, certified_radii=radii)

    monkeypatch.setattr(kr.evaluation, "certify", wrong)
    plan = EvaluationPlan(["fgsm"], radii=(), radius=0.2, limit=30, certify=["ibp"])
    with (
        pytest.warns(RuntimeWarning, match="ERROR: IBP certifies"),
        pytest.raises(RuntimeError, match=r"(?s)ERROR: IBP certifies .*Written: .*run/report"),
    ):
        evaluation_reports.write_reports([run], plan, log=lambda _: None)
    (report,) = kr.evaluation.load_reports(run.run.report)
    assert report.errors and "**ERROR: IBP" in (run.run.report / "report.md").read_text()
