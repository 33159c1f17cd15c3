"""One run has one writer: a second training of the same directory is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from keras_robust.experiments.runs.run_lock import RunLock
from keras_robust.experiments.training import train_run

REFUSED = r"is being trained by another process. Wait for its end, or choose another --output_dir"


def test_a_resume_beside_a_training_is_refused(tiny, trained, tmp_path):
    lock = RunLock(trained)
    try:
        with pytest.raises(BlockingIOError, match=REFUSED):
            train_run.prepare(tiny(), trained, resume=True)
    finally:
        lock.release()
    train_run.prepare(tiny(), trained, resume=True).lock.release()


def test_two_trainings_of_a_new_directory(tiny, tmp_path):
    """Both find no directory; the one that begins first has it."""
    first, second = (train_run.prepare(tiny(), tmp_path / "run") for _ in range(2))
    lock = RunLock(_made(tmp_path / "run"))
    with pytest.raises(BlockingIOError, match=REFUSED):
        train_run.complete(second, verbose=0)
    lock.release()
    train_run.complete(first, verbose=0)
    with pytest.raises(FileExistsError, match="already contains a run"):
        train_run.complete(second, verbose=0)


def test_a_failed_preparation_and_a_finished_training_release_the_lock(tiny, trained):
    with pytest.raises(FileExistsError):
        train_run.prepare(tiny(), trained)
    RunLock(trained).release()


def test_a_killed_process_holds_nothing(tmp_path):
    code = (
        "import pathlib, sys, time; from keras_robust.experiments.runs.run_lock import RunLock; "
        "lock = RunLock(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError):
        RunLock(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    RunLock(tmp_path).release()


def _made(path):
    path.mkdir()
    return path
