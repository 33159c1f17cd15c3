"""A training that was killed anywhere resumes as if it had never stopped, bit for bit."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.training import averaging, checkpoint, train_run
from keras_robust.experiments.training.devices import Devices

net = runpy.run_path(str(Path(__file__).with_name("stateful.py")))["net"]
STEPS = 9  # in an epoch of the tiny recipe

# Two recipes, so that between them everything that has a state is there.
EVERYTHING = {
    "averages, half precision": {
        "mixed_precision": "mixed_float16",
        "optimizer.name": "sgd",
        "optimizer.momentum": 0.9,
        "optimizer.ema": 0.9,
        "optimizer.schedule.kind": "cosine",
        "ball.norm": "l2",
        "steps_per_execution": 3,
        "checkpoint.steps": 3,
    },
    "adam, warm-up, augmentation": {
        "optimizer.name": "adam",
        "optimizer.schedule.kind": "step",
        "optimizer.schedule.boundaries": (1,),
        "dataset.augment.name": "pad_crop_flip",
        "dataset.augment.options": ConfigDict({"padding": 1}),
        "defense.options.radius_warmup": 12,
        "defense.options.crafting_dtype": "bfloat16",
        "defense.options.microbatches": 2,
        "checkpoint.steps": 1,
    },
}


MOMENTS = {
    "averages, half precision": [
        ("on_train_batch_begin", 3),  # in the first epoch
        ("on_test_begin", 1),  # in the validation, which is done anew
    ],
    "adam, warm-up, augmentation": [
        ("on_train_batch_begin", 16),  # in the second epoch
        ("on_train_end", 1),  # with nothing but the detector missing
    ],
}


class Death(BaseException):
    """Nothing catches it, as nothing catches a kill."""


@pytest.fixture
def recipe(tiny, monkeypatch):
    """Makes the recipe of a net with dropout and batch norm, over 3 epochs."""
    monkeypatch.setitem(kr.models.ARCHITECTURES, "stateful", net)

    def make(**changes):
        config = tiny("pgd_at", **{"epochs": 3, **changes})
        config.model.name, config.model.options = "stateful", ConfigDict()
        return config

    return make


def killer(method, count):
    """The first of the callbacks, which dies when `method` is called for the `count`-th time."""
    original = averaging.AveragedValidation
    calls = []

    def dies(self, *arguments, **logs):
        calls.append(None)
        if len(calls) == count:
            raise Death
        getattr(original, method)(self, *arguments, **logs)

    return type("Killer", (original,), {method: dies})


def die_at(config, path, method, count):
    """Trains or resumes until a callback's method is called for the `count`-th time."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Death):
        patch.setattr(train_run, "AveragedValidation", killer(method, count))
        train_run.train(config, path, resume=True, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", EVERYTHING)
def test_a_run_that_is_killed_again_and_again(recipe, tmp_path, kind, assert_same_runs):
    config = recipe(**EVERYTHING[kind])
    killed, uninterrupted = tmp_path / "killed", tmp_path / "uninterrupted"
    for moment in MOMENTS[kind]:
        die_at(config, killed, *moment)
    run = train_run.train(config, killed, resume=True, verbose=0)
    train_run.train(config, uninterrupted, verbose=0)
    assert_same_runs(killed, uninterrupted)
    states = [session["state"] for session in run.facts()["sessions"]]
    assert states == ["failed"] * len(MOMENTS[kind]) + ["finished"]


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run of one epoch, and one checkpoint before the last."""
    run = RunDirectory(shutil.copytree(trained, tmp_path / "run"))
    before = run.checkpoint_file("previous")
    shutil.copy(run.checkpoint_file("last"), before)
    return run


def damages(length):
    """Ways to damage a file: its first bytes alone, or one bit of another value."""
    random = np.random.default_rng(0)
    for cut in (0, 1, 63, 64, length // 2, length - 65, length - 1):
        yield f"first {cut} bytes", lambda data, cut=cut: data[:cut]
    for place in (0, length - 1, *random.integers(length, size=20)):
        bit = int(random.integers(8))

        def flip(data, place=int(place), bit=bit):
            return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]

        yield f"bit {bit} of byte {place}", flip
    yield "a byte more", lambda data: data + b"0"


def test_a_damaged_checkpoint_is_always_noticed(run):
    last, previous = map(run.checkpoint_file, ("last", "previous"))
    data = last.read_bytes()
    for name, damage in damages(len(data)):
        last.write_bytes(damage(data))
        lines = []
        file, progress = checkpoint.newest(run, lines.append)
        assert (file, progress.step) == (previous, STEPS), name
        assert lines == [
            f"{last} is damaged: it was truncated or changed after it was written. Resuming from "
            "the one before it, previous.keras, of step 9."
        ], name


@pytest.mark.slow
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(recipe, tmp_path, assert_same_runs):
    config = recipe(**{"checkpoint.steps": 2, "epochs": 1})
    for name in ("damaged", "uninterrupted"):
        die_at(config, tmp_path / name, "on_train_batch_begin", 7)
    last, previous = map(RunDirectory(tmp_path / "damaged").checkpoint_file, ("last", "previous"))
    assert [checkpoint.read(path).step for path in (last, previous)] == [6, 4]
    last.write_bytes(last.read_bytes()[:-100])
    lines = []
    for name in ("damaged", "uninterrupted"):
        train_run.train(config, tmp_path / name, resume=True, verbose=0, log=lines.append)
    assert len(lines) == 1
    assert "previous.keras, of step 4" in lines[0]
    assert_same_runs(tmp_path / "damaged", tmp_path / "uninterrupted")


def test_all_checkpoints_are_damaged(run, tiny):
    for name in ("last", "previous"):
        run.checkpoint_file(name).write_bytes(b"PK")
    with pytest.raises(
        ValueError,
        match="last.keras is damaged.*; .*previous.keras is damaged.*"
        "No checkpoint is left .* --overwrite",
    ):
        train_run.prepare(tiny(), run.path, resume=True)


def test_a_checkpoint_is_a_model_that_keras_loads(run, loaded):
    model = keras.saving.load_model(run.checkpoint("last"), compile=False)
    x, _ = loaded.test_images(3)
    assert model(x)["logits"].shape == (3, 10)


def test_resume_starts_a_new_run_where_there_is_none(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "new"):
        ready = train_run.prepare(tiny(), path, resume=True)
        assert (ready.progress.step, ready.file, ready.resumed) == (0, None, False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="contains other files"):
        train_run.prepare(tiny(), tmp_path / "other", resume=True)


def test_other_replicas_resume_with_the_sums_of_all():
    """Of three replicas, of which each had its part of the sum, there is one left."""
    total, stream = keras.Variable(0.0), keras.Variable([0, 0])
    Devices().assign([total], [np.array([1.0, 2.0, 4.0])], additive=True)
    Devices().assign([stream], [np.array([[7, 1], [7, 2], [7, 3]])], additive=False)
    assert float(total.numpy()) == 7.0
    assert stream.numpy().tolist() == [7, 1]
