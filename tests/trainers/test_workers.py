"""Two worker processes on this machine, as two machines would do it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_robust.core.atomic_files import write_json
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.training import train_run

pytestmark = pytest.mark.slow  # each worker starts TensorFlow


@pytest.fixture
def launch(tmp_path):
    """Starts two workers that train a recipe."""
    started = []

    def launch(config, path, other=None):
        recipe = tmp_path / "recipe.json"
        write_json(recipe, config.to_dict())
        addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
        workers = []
        for index in range(2):
            task = {"type": "worker", "index": index}
            tf_config = json.dumps({"cluster": {"worker": addresses}, "task": task})
            workers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "trainers.train", f"--recipe={recipe}", "--resume",
                     f"--output_dir={other if other and index else path}",
                     "--strategy=multi_worker"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env={**os.environ, "TF_CONFIG": tf_config, "TF_CPP_MIN_LOG_LEVEL": "3"},
                )
            )  # fmt: skip
        started.extend(workers)
        return workers

    yield launch
    for process in started:
        process.kill()


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def finish(workers):
    """Waits until both have ended; returns their output."""
    output = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(output)
    return output


# A radius of 0 has no random starts; the soft ball's images leave it all the same. (Those of TRADES
# would follow rounding: its divergence has no gradient at the image itself.)
SOFT = {
    "ball.radius": 0.0,
    "defense.options.step_size": 0.01,
    "evaluation.attacks": ("pgd:step_size=0.01", "fgsm"),
}


@pytest.mark.parametrize(("defense", "changes"), [("standard", {}), ("udr_pgd_at", SOFT)])
def test_two_workers_come_to_the_weights_of_one_device(tiny, tmp_path, launch, defense, changes):
    """After an epoch of 9 steps, without random starts, which differ from replica to replica.

    UDR's dual variable is one of the weights.
    """
    optimizer = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1}
    config = tiny(defense)
    with config.unlocked():
        config.update_from_flattened_dict({**optimizer, "optimizer.momentum": 0.9, **changes})
    output = finish(launch(config, tmp_path / "two"))
    assert "Trained:" in output[0] and "Trained:" not in output[1]
    one = train_run.train(config, tmp_path / "one", verbose=0)
    two = RunDirectory(tmp_path / "two")
    if defense != "standard":
        assert one.rows()[0]["dual"] > 1.0001  # it moves
    for mine, theirs in zip(*map(weights, (one, two)), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6, rtol=0)
    (mine,), (theirs,) = one.rows(), two.rows()
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert mine[name] == pytest.approx(theirs[name], rel=1e-5), name
    assert two.detector_file.is_file()
    (session,) = two.facts()["sessions"]
    assert (session["replicas"], session["state"]) == (2, "finished")


def weights(run):
    return keras.saving.load_model(run.checkpoint("last")).get_weights()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_that_dies_ends_the_other_and_both_resume(
    tiny, tmp_path, launch, assert_same_runs, victim
):
    config = tiny("pgd_at", **{"epochs": 6, "dataset.batch_size": 16, "checkpoint.steps": 10})
    config.model.options.dropout = 0.3
    workers = launch(config, tmp_path / "killed")
    file = RunDirectory(tmp_path / "killed").checkpoint_file("last")
    until = time.monotonic() + 240
    while not file.is_file() and time.monotonic() < until:
        time.sleep(0.05)
    workers[victim].kill()
    other = workers[1 - victim]
    output, _ = other.communicate(timeout=120)
    assert other.returncode == 1
    assert re.search(
        f"^trainers.train: Another worker has ended, so worker {1 - victim} of 2 ends as well. "
        "Start all workers again with the same command and --resume.$",
        output,
        re.MULTILINE,
    ), output
    finish(launch(config, tmp_path / "killed"))
    finish(launch(config, tmp_path / "uninterrupted"))
    assert_same_runs(tmp_path / "killed", tmp_path / "uninterrupted")
    sessions = RunDirectory(tmp_path / "killed").facts()["sessions"]
    assert sessions[1]["first_step"] % 76  # in the middle of an epoch


def test_workers_that_do_not_see_the_same_directory(tiny, tmp_path, launch):
    train_run.train(tiny("standard"), tmp_path / "run", verbose=0)
    for worker in launch(tiny("standard", epochs=2), tmp_path / "run", tmp_path / "elsewhere"):
        output, _ = worker.communicate(timeout=120)
        assert worker.returncode == 1
        assert (
            "Worker 1 and worker 0 do not agree on the recipe, or the progress of the run."
            in output
        )
    assert len(RunDirectory(tmp_path / "run").rows()) == 1
    assert not (tmp_path / "elsewhere").exists()
