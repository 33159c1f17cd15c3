from __future__ import annotations

import dataclasses
import json
import shutil
import signal

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.core.atomic_files import write_json
from keras_robust.experiments.recipes.epoch_callbacks import epoch_callbacks
from keras_robust.experiments.runs.loaded_run import load_run
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.training import callbacks, checkpoint, train_run
from keras_robust.experiments.training.chance import chance_warning
from keras_robust.experiments.training.devices import Devices
from keras_robust.training import CatastrophicOverfitting


def weights(path, name="last"):
    return keras.saving.load_model(RunDirectory(path).checkpoint(name)).get_weights()


def assert_same(mine, theirs):
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_files_of_a_run_directory(trained):
    names = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("tensorboard/")}
    assert {name.split("/")[1] for name in events} == {"train", "validation"}
    assert names - events == {
        "recipe.json",
        "run.json",
        "metrics.csv",
        "metrics.json",
        "detector.json",
        "checkpoints/last.keras",
        "checkpoints/best.keras",
    }


def test_the_facts_of_a_run(trained):
    facts = json.loads((trained / "run.json").read_text())
    assert facts["recipe"] == "digits/trades"
    assert facts["seed"] == 0
    assert set(facts["versions"]) >= {"keras_robust", "tensorflow", "keras", "numpy"}
    (session,) = facts["sessions"]
    assert session["state"] == "finished"
    assert session["command"] == "python -m x"
    assert session["started"] <= session["ended"]
    recipe = json.loads((trained / "recipe.json").read_text())
    assert recipe["name"] == "digits/trades"  # what serving.export reads
    assert recipe["dataset"]["class_names"] == [str(digit) for digit in range(10)]


def test_metrics_of_a_run(trained):
    (row,) = json.loads((trained / "metrics.json").read_text())
    assert list(row)[:3] == ["epoch", "seconds", "learning_rate"]
    for name in ("loss", "clean", "divergence", "accuracy", "robust_accuracy"):
        assert {name, f"val_{name}"} <= set(row)
    header = (trained / "metrics.csv").read_text().splitlines()[0]
    assert header == ",".join(row)


def test_the_detector_keeps_to_its_rate_on_the_validation_images(trained, loaded):
    calibration = kr.detection.Calibration.load(trained / "detector.json")
    assert calibration.samples == loaded.splits.info.validation_size == 216
    flagged = [loaded.detector.is_adversarial(x).numpy() for x, _ in loaded.splits.validation]
    assert np.concatenate(flagged).sum() <= 0.05 * 216


@pytest.mark.parametrize(
    "defense",
    [
        "udr_trades",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("standard", "pgd_at", "trades", "mart", "wrm")
        ),
    ],
)
def test_every_defense_trains(tiny, tmp_path, defense):
    run = train_run.train(tiny(defense), tmp_path / "run", verbose=0, log=lambda line: None)
    (row,) = run.rows()
    assert np.isfinite(row["loss"])
    assert {"val_accuracy", "val_robust_accuracy"} <= set(row)
    assert run.checkpoint().stem == "best"


def test_an_ensemble_trains_and_its_detector_is_by_the_score_of_the_recipe(tiny, tmp_path):
    pair = {"members": ("mlp", "mlp"), "options": {"hidden": (16,)}}
    changes = {"model.name": "ensemble", "model.options": pair, "detector.score": "disagreement"}
    run = train_run.train(tiny("cce_detection", **changes), tmp_path / "run", verbose=0, log=print)
    (row,) = run.rows()
    assert {"demoting", "val_robust_accuracy"} <= set(row)
    found = load_run(run.path)
    assert found.detector.scored_by == "disagreement"
    flagged = [found.detector.is_adversarial(x).numpy() for x, _ in found.splits.validation]
    # At most a twentieth of 216; and no fewer, for no two of these scores are the same.
    assert np.concatenate(flagged).sum() == 10


@pytest.mark.slow
def test_catastrophic_overfitting_restores_the_weights_of_the_epoch_before(
    tiny, tmp_path, monkeypatch
):
    """The second epoch overfits: its last checkpoint is the first epoch's, and the best one too,
    whatever the averaged weights reached on the validation images."""
    found = iter([(0.5, 0.5), (0.9, 0.1)])
    monkeypatch.setattr(CatastrophicOverfitting, "accuracies", lambda _: next(found))
    changes = {"epochs": 2, "single_step_check.stop": True, "optimizer.ema": 0.5}
    kept = []
    monkeypatch.setattr(
        callbacks.Checkpoints,
        "on_epoch_begin",
        lambda self, epoch, logs=None: kept.append(self.model.classifier.get_weights()),
    )
    with pytest.warns(UserWarning, match="The weights of epoch 1 are restored. The training ends"):
        run = train_run.train(tiny("n_fgsm", **changes), tmp_path / "run", verbose=0, log=print)
    rows = run.rows()
    assert [row["weights_restored"] for row in rows] == [0, 1]
    assert [row["pgd_accuracy"] for row in rows] == [0.5, 0.1]
    last = keras.saving.load_model(run.checkpoint("last"))
    assert_same(last.classifier.get_weights(), kept[1])
    rows[0]["val_robust_accuracy"] = 0.0
    ready = train_run.prepare(tiny("n_fgsm", **changes), run.path, resume=True)
    ready.progress.rows[:] = rows
    log = callbacks.EpochLog(run, rows)
    assert callbacks.Checkpoints(ready, log, callbacks.Stop(), None).best == 0.0


def test_the_check_needs_a_single_step_and_validation_images(tiny, tmp_path):
    changes = {"single_step_check.images": 64}
    config = tiny("pgd_at", **changes, **{"defense.options.steps": 3})
    with pytest.raises(ValueError, match="this training takes 3 steps"):
        train_run.prepare(config, tmp_path / "run")
    with pytest.raises(ValueError, match="no validation images to attack"):
        epoch_callbacks(config, None, None)


def test_the_divergence_of_latents_needs_validation_images(tiny):
    config = tiny("pgd_at", **{"latent_divergence.images": 64})
    with pytest.raises(ValueError, match=r"latent_divergence.images is 64, and there are no valid"):
        epoch_callbacks(config, None, None)
    assert epoch_callbacks(tiny("pgd_at"), None, None) == []


@pytest.mark.slow
def test_the_divergence_of_latents_is_a_metric_of_each_measured_epoch(tiny, tmp_path):
    changes = {"epochs": 2, "latent_divergence.images": 40, "latent_divergence.every": 2}
    run = train_run.train(tiny("pgd_at", **changes), tmp_path / "run", verbose=0, log=print)
    assert ["r_div" in row for row in run.rows()] == [False, True]
    assert 0 < run.rows()[1]["r_div"] < 2


class Interrupt(keras.callbacks.Callback):
    """Sends this process a signal in step 13, that is in epoch 2, as an epoch has 9 steps."""

    def __init__(self, averages):
        super().__init__()

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 12:
            signal.raise_signal(signal.SIGTERM)


def test_an_interrupted_run_resumes_after_its_last_step(tiny, tmp_path, monkeypatch):
    config = tiny(epochs=3)
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(train_run, "AveragedValidation", Interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_run.train(config, path, verbose=0)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    run = RunDirectory(path)
    assert run.facts()["sessions"][0]["state"] == "interrupted"
    assert len(run.rows()) == 1
    assert run.checkpoint().is_file()
    # A row without its checkpoint, as a kill between the two leaves it, is forgotten.
    run.write_rows([*run.rows(), {**run.rows()[0], "epoch": 2}])
    ready = train_run.prepare(tiny(epochs=3), path, resume=True)
    assert "epochs 2 to 3 of 9 steps, 4 of them done" in ready.summary()
    train_run.complete(ready, verbose=0)
    assert [row["epoch"] for row in run.rows()] == [1, 2, 3]
    sessions = run.facts()["sessions"]
    assert [session["state"] for session in sessions] == ["interrupted", "finished"]
    assert [session["first_step"] for session in sessions] == [0, 13]


def test_a_run_that_diverges_keeps_its_checkpoint(tiny, trained, tmp_path):
    run = RunDirectory(shutil.copytree(trained, tmp_path / "run"))
    document = json.loads(run.recipe_file.read_text())
    document["optimizer"]["learning_rate"] = 1e30
    write_json(run.recipe_file, document)
    model = keras.saving.load_model(run.checkpoint("last"))
    model.optimizer.learning_rate.assign(1e30)
    checkpoint.write(run.checkpoint_file("last"), model, checkpoint.read(run.checkpoint("last")))
    config = tiny(**{"optimizer.learning_rate": 1e30, "epochs": 3})
    for changes in ({}, {"checkpoint.steps": 1}):
        config.update_from_flattened_dict(changes)
        with pytest.raises(FloatingPointError, match="smaller optimizer.learning_rate"):
            train_run.train(config, run.path, resume=True, verbose=0)
    assert [s["state"] for s in run.facts()["sessions"]] == ["finished", "failed", "failed"]
    assert all(np.isfinite(value).all() for value in weights(run.path))


def test_without_validation_images_there_is_no_best(tiny, tmp_path):
    lines = []
    config = tiny(**{"dataset.validation": 0.0})
    run = train_run.train(config, tmp_path / "run", verbose=0, log=lines.append)
    assert run.checkpoint().stem == "last"
    assert not run.detector_file.exists()
    assert lines == ["No detector: 0 validation images are too few for a false-alarm rate of 0.05."]


def test_overwriting_removes_the_old_run_when_the_new_one_begins(tiny, tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.write_recipe(tiny("standard"), ("",))
    run.report.mkdir()
    ready = train_run.prepare(tiny("standard"), run.path, overwrite=True)
    assert run.report.exists()
    train_run.complete(ready, verbose=0)
    assert not run.report.exists()


def test_a_run_is_not_resumed_with_another_recipe(tiny, trained):
    changed = tiny(**{"ball.radius": 0.2, "evaluation.attacks": ("pgd:steps=99",), "epochs": 5})
    with pytest.raises(ValueError, match=r"differs in ball.radius \(0.15, not 0.2\)\. Train"):
        train_run.prepare(changed, trained, resume=True)


@pytest.mark.parametrize("kind", ["cosine", "one_cycle"])
def test_a_schedule_of_a_given_length_is_not_stretched(kind, tiny, tmp_path):
    settings = {"optimizer.schedule.kind": kind}
    RunDirectory(tmp_path).write_recipe(tiny(**settings), ("",))
    with pytest.raises(ValueError, match=f"The {kind} schedule of the run ends with its 1 epochs"):
        train_run.prepare(tiny(**settings, epochs=2), tmp_path, resume=True)


def test_a_finished_run_is_not_trained_again(tiny, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    lines = []
    train_run.train(tiny(), tmp_path / "run", resume=True, log=lines.append)
    assert lines == [
        f"{tmp_path / 'run'} is already trained for 1 epochs; train it longer with a larger "
        "--config.epochs."
    ]


def test_other_replicas_may_resume_a_run(tiny, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    file = RunDirectory(tmp_path / "run").checkpoint_file("last")
    kept = checkpoint.read(file)
    twice = dataclasses.replace(kept, metrics=[np.repeat(v, 2, axis=0) for v in kept.metrics])
    checkpoint.write(file, keras.saving.load_model(file), twice)
    lines = []
    train_run.prepare(tiny(), tmp_path / "run", resume=True, log=lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("The run resumes with 1 replicas instead of 2")


class Two(Devices):
    """As if there were two replicas."""

    replicas = 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset.batch_size": 63}, "batch_size is 63, which 2 replicas cannot share equally"),
        ({"dataset.validation": 129}, "last batch of the 129 validation images holds 1, too few"),
    ],
)
def test_batches_that_replicas_cannot_share(tiny, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train_run.prepare(tiny(**changes), tmp_path / "run", devices=Two())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint.seconds": -1.0}, "checkpoint.seconds is -1.0; expected a finite"),
        ({"monitor": "val_acuracy"}, r"no metric \(monitor\) 'val_acuracy'.*'val_accuracy'"),
        ({"steps_per_execution": 2}, "expected a divisor of the 9 steps of an epoch: 1, 3, 9"),
        ({"dataset.name": "digit"}, "Did you mean .*digits"),
        ({"dataset.batch_size": 5000}, "expected at most 1221, the number of training"),
        ({"model.options": {"hidden": ()}}, "hidden"),
        ({"detector.score": "disagreement"}, "detector.score is 'disagreement': .*of an ensemble"),
    ],
)
def test_an_invalid_recipe_writes_nothing(tiny, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train_run.prepare(tiny(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_data_is_answered_with_the_command_that_downloads_it(tiny, tmp_path):
    config = tiny(**{"dataset.name": "mnist", "dataset.data_dir": str(tmp_path)})
    with pytest.raises(FileNotFoundError, match="tensorflow_datasets"):
        train_run.prepare(config, tmp_path / "run")


@pytest.mark.parametrize(("accuracy", "warned"), [(0.1, True), (0.9, False)])
def test_a_training_that_ends_at_chance_says_so(tiny, tmp_path, monkeypatch, accuracy, warned):
    """It runs to its end without an error: a network that predicts one class is a result."""
    training = train_run.prepare(tiny("pgd_at"), tmp_path / "run")
    monkeypatch.setattr(
        train_run,
        "fit",
        lambda training, verbose: training.run.write_rows([{"val_accuracy": accuracy}]),
    )
    monkeypatch.setattr(train_run, "calibrate", lambda *_: None)
    lines = []
    train_run.complete(training, log=lines.append)
    assert any("The network is near chance" in line for line in lines) == warned


def test_chance_is_that_of_training_images_if_none_are_held_out():
    info = kr.data.DatasetInfo("x", "", (8, 8, 1), 4, (), 100, 0, 10, "test")
    # A guess among 4 classes is right for 25 %; a tenth above that is near.
    assert "34.0 % of 100 clean training images" in chance_warning({"accuracy": 0.34}, info)
    assert chance_warning({"accuracy": 0.36}, info) is None
    # On 25 images two deviations are 17 points.
    few = dataclasses.replace(info, train_size=25)
    assert chance_warning({"accuracy": 0.42}, few) is not None
    assert chance_warning({"accuracy": 0.43}, few) is None
    assert chance_warning({"loss": 1.0}, info) is None
