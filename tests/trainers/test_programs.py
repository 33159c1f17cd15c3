"""The programs as a user starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from keras_robust.experiments.runs.run_directory import RunDirectory

PROGRAMS = (
    *("train", "evaluate", "attack", "transfer"),
    *("evaluate_ensembles", "diagnose_latents", "toy", "demo"),
)


def command(program, *arguments):
    return [sys.executable, "-m", f"trainers.{program}", *arguments]


def environment():
    # As on a user's machine, where TensorFlow's log level is not set.
    return {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}


def test_flags_are_declared_without_tensorflow():
    """TensorFlow takes seconds; `--help` and typing errors are answered before."""
    code = f"""
import importlib, sys
from absl import flags
for program in {PROGRAMS}:
    importlib.import_module(f"trainers.{{program}}").define_flags(flags.FlagValues())
print(sorted({{"tensorflow", "keras"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_typo_is_answered_at_once_in_one_sentence(program):
    done = subprocess.run(
        command(program, "--outptu_dir=x"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert f"trainers.{program}: There is no flag --outptu_dir; there are" in done.stderr
    assert "Did you mean 'output_dir'" in done.stderr


def test_help_lists_the_flags_and_the_recipes():
    done = subprocess.run(command("train", "--help"), capture_output=True, text=True, check=False)
    for text in ("--output_dir", "--[no]resume", "mnist/trades", "--config.epochs=3"):
        assert text in done.stdout


@pytest.mark.slow
def test_a_training_that_is_stopped_says_how_to_resume(tmp_path):
    path = tmp_path / "run"
    process = subprocess.Popen(
        command("train", "--recipe=digits/standard", "--config.epochs=10000",
                f"--output_dir={path}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )  # fmt: skip
    try:
        run = RunDirectory(path)
        until = time.monotonic() + 120
        while len(run.rows()) < 2 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert err == "\nStopping after this step; press Ctrl-C again to stop at once.\n"
    assert f"Resume with: python -m trainers.train --resume --output_dir={path}" in out
    assert run.facts()["sessions"][0]["state"] == "interrupted"
    assert run.checkpoint("last").is_file()
