"""The comparison of detectors, from the command line."""

from __future__ import annotations

import json

import pytest
from absl import flags

from trainers import evaluate_detectors


def parsed(*arguments):
    values = flags.FlagValues()
    evaluate_detectors.define_flags(values)
    values(["program", *arguments])
    return values


@pytest.mark.slow
def test_it_compares_and_writes(tmp_path):
    small = ["--limit=20", "--steps=2", "--queries=5", "--cw_steps=2", "--auto_attack_steps=1"]
    found = evaluate_detectors.run(
        parsed(
            "--model=digits/ibp-linf-0.15",
            f"--output_dir={tmp_path}",
            "--detectors=entropy,lid:k=10",
            "--other=digits",
            *small,
        ),
        command="python -m x",
    )
    assert set(found.false_alarms) == {"entropy", "lid:k=10"}
    assert {row.kind for row in found.rows} == {"oblivious", "adaptive", "other"}
    assert "python -m x" in (tmp_path / "detectors.md").read_text()
    assert json.loads((tmp_path / "detectors.json").read_text())["samples"] == 20


def test_one_model_is_expected(tmp_path):
    with pytest.raises(ValueError, match="Expected one of --model"):
        evaluate_detectors.run(parsed(f"--output_dir={tmp_path}"))
