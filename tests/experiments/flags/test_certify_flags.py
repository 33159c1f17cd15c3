"""`--certify` of both programs reaches the plan."""

from __future__ import annotations

import pytest
from absl import flags

from keras_robust.cli import evaluate as command
from keras_robust.evaluation.certify import METHODS
from keras_robust.experiments.flags import certify_flags
from keras_robust.experiments.measuring import evaluation_reports
from trainers import evaluate as program

METHODS_GIVEN = ["ibp", "smoothing:sigma=0.5"]


class Stop(Exception):
    """Raised in the place of an evaluation."""


def parsed(define, *arguments):
    values = flags.FlagValues()
    define(values)
    values(["program", *arguments, f"--certify={','.join(METHODS_GIVEN)}"])
    return values


def test_the_help_names_every_method():
    values = flags.FlagValues()
    certify_flags.define(values)
    assert all(method in values["certify"].help for method in METHODS)
    assert values["certify"].default == []


def test_the_program(trained):
    values = parsed(program.define_flags, f"--run={trained}")
    assert program.plan(values, {}).certify == METHODS_GIVEN


def test_the_command(trained, tmp_path, monkeypatch):
    def write_reports(runs, plan, **_):
        assert plan.certify == METHODS_GIVEN
        raise Stop

    monkeypatch.setattr(evaluation_reports, "write_reports", write_reports)
    values = parsed(command.define_flags, f"--run={trained}", f"--output_dir={tmp_path / 'out'}")
    with pytest.raises(Stop):
        command.run(values)
