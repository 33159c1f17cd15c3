"""Averaged weights: validated and kept with the statistics that they have, then put back."""

from __future__ import annotations

import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.experiments.recipes import build
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.experiments.training import averaging, train_run
from keras_robust.experiments.training.averaging import AveragedValidation, Averages

net = runpy.run_path(str(Path(__file__).with_name("stateful.py")))["net"]


@pytest.fixture
def recipe(tiny, monkeypatch):
    """Makes the recipe of a net with dropout and batch norm, whose weights are averaged."""
    monkeypatch.setitem(kr.models.ARCHITECTURES, "stateful", net)

    def make(defense="pgd_at", **changes):
        config = tiny(defense, **{"optimizer.ema": 0.5, **changes})
        config.model.name, config.model.options = "stateful", ConfigDict()
        return config

    return make


def averages(model):
    """The averages that the optimizer keeps, in the order of the weights."""
    return [v for v in model.optimizer.variables if "average" in v.path]


def norm_of(model):
    return next(v for v in model.classifier.layers if "batch_normalization" in v.name)


def test_they_are_validated_and_everything_is_restored_exactly(recipe, values_of):
    config = recipe("standard")
    splits = build.data(config)
    model = build.robust_model(config, splits.info, 1)
    model.optimizer.build(model.trainable_variables)
    for average in averages(model):
        average.assign(tf.ones_like(average))
    before = values_of(model)
    swap = AveragedValidation(Averages(model, splits.stream))
    swap.set_model(model)
    swap.on_test_begin()
    assert all((v.numpy() == 1).all() for v in model.trainable_variables)
    swap.on_test_end()
    for value, old in zip(values_of(model), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_the_best_checkpoint_holds_the_average_and_its_statistics(recipe, tmp_path, monkeypatch):
    """The average of the last checkpoint; and the statistics of the inputs of its batch norm over
    the first images of the training, computed directly."""
    monkeypatch.setattr(averaging, "BATCHES", 2)
    config = recipe("standard", epochs=1)
    run = train_run.train(config, tmp_path, verbose=0)
    best, last = (keras.saving.load_model(run.checkpoint_file(n)) for n in ("best", "last"))
    for value, average in zip(best.trainable_variables, averages(last), strict=True):
        np.testing.assert_array_equal(value.numpy(), average.numpy())
    dense = next(v for v in best.classifier.layers if isinstance(v, keras.layers.Dense))
    inputs = [
        dense(x.reshape(len(x), -1)).numpy()
        for x, _ in build.data(config).stream().take(2).as_numpy_iterator()
    ]
    norm = norm_of(best)
    expected = [np.mean([f(i, axis=0) for i in inputs], axis=0) for f in (np.mean, np.var)]
    np.testing.assert_allclose(norm.moving_mean.numpy(), expected[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance.numpy(), expected[1], rtol=1e-4)
    assert np.any(norm.moving_mean.numpy() != norm_of(last).moving_mean.numpy())
    logs = best.evaluate(build.data(config).validation, verbose=0, return_dict=True)
    assert logs["accuracy"] == pytest.approx(RunDirectory(tmp_path).rows()[0]["val_accuracy"])


def test_statistics_are_computed_once_for_a_state(recipe):
    """For the validation; the checkpoint of the same step takes them."""
    config = recipe()
    splits = build.data(config)
    model = build.robust_model(config, splits.info, 1)
    model.optimizer.build(model.trainable_variables)
    reads = []

    def stream():
        reads.append(int(model.step))
        return splits.stream()

    found = Averages(model, stream)
    for step in (3, 3, 4):
        model.step.assign(step)
        with found.swapped():
            pass
    assert reads == [3, 4]


@pytest.mark.slow
def test_replicas_keep_what_one_device_keeps(recipe):
    """Statistics are computed on one of them, and assigned to all."""
    config = recipe("trades")
    splits = build.data(config)
    found = []
    for strategy in (
        tf.distribute.get_strategy(),
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
    ):
        with strategy.scope():
            model = build.robust_model(config, splits.info, 1)
            model.optimizer.build(model.trainable_variables)
        with Averages(model, splits.stream).swapped():
            norm = norm_of(model)
            found.append([v.numpy() for v in (norm.moving_mean, norm.moving_variance)])
            logs = model.evaluate(splits.validation, verbose=0, return_dict=True)
            found[-1].append(logs["loss"])
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
