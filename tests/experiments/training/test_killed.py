"""SIGKILL at random moments: the same command again ends with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from ml_collections import ConfigDict

from keras_robust.core.atomic_files import write_json
from keras_robust.experiments.runs.run_directory import RunDirectory

PROGRAM = Path(__file__).with_name("stateful.py")
ROOT = Path(__file__).parents[3]  # the programs are not installed
KILLS = 20
STRATEGIES = {"one device": [], "mirrored": ["--strategy=mirrored", "--replicas=2"]}


@pytest.fixture
def recipe(tiny, tmp_path):
    """A net of batch norm and dropout, whose training takes seconds and is kept all the time."""
    config = tiny(
        "pgd_at",
        **{
            "epochs": 4,
            "dataset.batch_size": 64,
            "dataset.augment.name": "pad_crop_flip",
            "defense.options.radius_warmup": 30,
            "optimizer.ema": 0.9,
            "checkpoint.steps": 3,
        },
    )
    config.model.name, config.model.options = "stateful", ConfigDict()
    path = tmp_path / "recipe.json"
    write_json(path, config.to_dict())
    return path


def start(recipe, path, flags):
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), f"--recipe={recipe}", "--resume",
         f"--output_dir={path}", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip


def killed(process, path, moment):
    """Kills a training at a moment; returns whether it was still running.

    Args:
        process: a training that resumes the run in `path`.
        path: of its run directory.
        moment: whether to wait for the first new checkpoint or only until the training begins, and
            for how many seconds after that; None to let it end by itself.
    """
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "epochs" in line:
            break
    after_checkpoint, delay = moment or (False, None)
    last = RunDirectory(path).checkpoint_file("last")
    before = written(last)
    while after_checkpoint and process.poll() is None and written(last) == before:
        time.sleep(0.01)
    try:
        output, _ = process.communicate(timeout=delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    assert process.returncode == 0, "".join([*lines, output])
    return False


def written(path):
    return path.stat().st_mtime_ns if path.is_file() else None


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_twenty_kills(recipe, tmp_path, assert_same_runs, strategy):
    random = Random(0)
    uninterrupted = tmp_path / "uninterrupted"
    assert not killed(start(recipe, uninterrupted, STRATEGIES[strategy]), uninterrupted, None)
    kills, runs, steps = 0, 0, set()
    while kills < KILLS:
        runs += 1
        path = tmp_path / f"run{runs}"
        while True:
            late = random.random() < 0.75  # the others may be killed in their first step
            moment = (late, random.uniform(0, 1 if late else 10)) if kills < KILLS else None
            if not killed(start(recipe, path, STRATEGIES[strategy]), path, moment):
                break
            kills += 1
        steps |= {session["first_step"] for session in RunDirectory(path).facts()["sessions"]}
        assert_same_runs(path, uninterrupted)
    # It resumed in the middle of epochs, which have 19 steps.
    assert len([step for step in steps if step % 19]) >= 3
