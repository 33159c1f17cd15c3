"""Robust models follow Keras's habits: names, directions, frozen layers, exports, checks."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.defenses.trades import Trades
from keras_robust.losses.robust_loss import Adversarial, Clean

BALL = kr.LinfBall(0.1)
FGSM = kr.attacks.fgsm(BALL)


# The names of the numbers of `evaluate`.


TRAINED = [(FGSM, Adversarial()), (FGSM, Trades(2.0)), (None, Clean())]
METRICS = ["sparse_top_k_categorical_accuracy", "accuracy"]


@pytest.mark.parametrize(
    ("regularizer", "attack", "loss", "metrics"),
    [
        *((None, *trained, None) for trained in TRAINED),
        ("l2", *TRAINED[0], METRICS),
        *(
            pytest.param(regularizer, *trained, metrics, marks=pytest.mark.slow)
            for trained in TRAINED
            for regularizer, metrics in (("l2", None), (None, METRICS), ("l2", METRICS))
            if (regularizer, metrics, trained) != ("l2", METRICS, TRAINED[0])
        ),
    ],
)
def test_names_are_those_of_the_list(
    make_classifier, tiny_batch, regularizer, attack, loss, metrics
):
    model = kr.RobustModel(make_classifier(regularizer=regularizer), attack, loss)
    model.compile("sgd", metrics=metrics, run_eagerly=True)
    before = model.metrics_names
    values = model.evaluate(*tiny_batch, verbose=0)
    by_name = model.evaluate(*tiny_batch, verbose=0, return_dict=True)
    assert model.metrics_names == before and len(values) == len(before)
    assert dict(zip(before, values, strict=True)) == pytest.approx(by_name)
    assert ("regularization" in before) == (regularizer is not None)
    for step in (model.train_on_batch, model.test_on_batch):
        values = step(*tiny_batch)
        assert len(values) == len(model.metrics_names)
        assert values[model.metrics_names.index("accuracy")] <= 1


def test_names_of_a_defense_with_state(make_classifier, tiny_batch):
    model = kr.defenses.udr(make_classifier(), BALL, base="trades", steps=1)
    model.compile("sgd", run_eagerly=True)
    before = model.metrics_names
    by_name = model.evaluate(*tiny_batch, verbose=0, return_dict=True)
    assert set(before) == set(by_name) and model.metrics_names == before
    model.train_on_batch(*tiny_batch)
    assert "dual" in model.metrics_names


@pytest.mark.parametrize("name", ["robust_accuracy", "loss_", "adversarial", "val_accuracy"])
@pytest.mark.parametrize("key", ["metrics", "weighted_metrics"])
def test_a_metric_with_a_name_of_the_models_own(make_classifier, name, key):
    model = kr.RobustModel(make_classifier(), FGSM, Adversarial())
    metric = keras.metrics.SparseTopKCategoricalAccuracy(k=2, name=name)
    if name == "loss_":
        return model.compile("sgd", **{key: [metric]})
    with pytest.raises(ValueError, match=rf"metric named '{name}', .* Give the metric another"):
        model.compile("sgd", **{key: [metric]})
    return None


# The direction of what is monitored.


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [("robust_accuracy", "max"), ("accuracy", "max"), ("loss", "min"), ("adversarial", "min")],
)
@pytest.mark.parametrize("position", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_keras_knows_which_way_is_better(
    make_robust, make_classifier, tiny_batch, tmp_path, monitor, mode, position
):
    model = make_robust(make_classifier())
    monitor = f"val_{monitor}"
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "m.keras", monitor, save_best_only=True),
        keras.callbacks.EarlyStopping(monitor, patience=3),
        keras.callbacks.ReduceLROnPlateau(monitor),
    ]
    arguments = (8, 1, 0, callbacks) if position else ()
    named = {} if position else {"verbose": 0, "callbacks": callbacks}
    model.fit(*tiny_batch, *arguments, validation_data=tiny_batch, **named)
    for callback in callbacks:
        expected = keras.ops.greater if mode == "max" else keras.ops.less
        if hasattr(callback, "monitor_op") and not isinstance(
            callback, keras.callbacks.ReduceLROnPlateau
        ):
            assert callback.monitor_op is expected
    assert (tmp_path / "m.keras").exists()


# What cannot be trained or copied.


def test_all_layers_frozen(make_robust, make_classifier, tiny_batch):
    model = make_robust(make_classifier())
    model.classifier.trainable = False
    for call in (
        lambda: model.fit(*tiny_batch, verbose=0),
        lambda: model.train_on_batch(*tiny_batch),
    ):
        with pytest.raises(ValueError, match=r"All layers are frozen.*nothing to train"):
            call()
    assert model.evaluate(*tiny_batch, verbose=0)


class Halved(keras.layers.Layer):
    """A layer without `get_config`."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return self.factor * x


@pytest.mark.parametrize("layer", [lambda: keras.layers.Lambda(lambda x: x / 2), lambda: Halved(2)])
def test_half_precision_of_a_layer_that_cannot_be_copied(layer):
    inputs = keras.Input((6, 6, 1))
    flat = keras.layers.Flatten()(layer()(inputs))
    outputs = {"logits": keras.layers.Dense(3)(flat), "features": flat}
    classifier = keras.Model(inputs, outputs)
    with pytest.raises(ValueError, match=r"crafting_dtype='bfloat16' needs a copy.*float32"):
        kr.RobustModel(classifier, FGSM, Adversarial(), crafting_dtype="bfloat16")
    kr.RobustModel(classifier, FGSM, Adversarial())


# Exports.


def test_export_writes_the_classifier(make_robust, make_classifier, tiny_batch, tmp_path):
    x, y = tiny_batch
    model = make_robust(make_classifier(), eager=True)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    for each in (model, keras.saving.load_model(tmp_path / "model.keras")):
        each.export(tmp_path / "saved", verbose=False)
        loaded = tf.saved_model.load(tmp_path / "saved")
        served = loaded.serve(tf.constant(x[:3]))
        expected = model.classifier(x[:3], training=False)
        for name in ("logits", "features"):
            np.testing.assert_allclose(served[name], expected[name], atol=1e-5)


# Checks of batches, in every mode.

MODES = {"eager": {"run_eagerly": True}, "graph": {}, "xla": {"jit_compile": True}}


def small(mode, **settings):
    inputs = keras.Input((2, 2, 1))
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, {"logits": keras.layers.Dense(3)(flat), "features": flat})
    robust = kr.RobustModel(model, FGSM, Adversarial())
    robust.compile("sgd", **MODES[mode], **settings)
    return robust


X, Y = np.random.default_rng(0).random((6, 2, 2, 1)).astype("float32"), np.arange(6) % 3


@pytest.mark.parametrize(
    ("mode", "call"),
    [
        pytest.param(mode, call, marks=[pytest.mark.slow] * (call != "fit"))
        for mode in MODES
        for call in ("fit", "evaluate", "train_on_batch", "test_on_batch")
    ],
)
def test_batches_are_checked(mode, call):
    model = small(mode)
    assert model.jit_compile is (mode == "xla")
    run = getattr(model, call)
    more = {} if "batch" in call else {"verbose": 0}
    run(X, Y, **more)
    for spoiled in (255 * X, X - 1, X * np.nan, X / X.max() + np.float32(1e-4)):
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="bounds|expected"):
            run(spoiled, Y, **more)
    for labels in (Y + 1, Y - 1):
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="expected 0 to 2"):
            run(X, labels, **more)


@pytest.mark.slow
def test_compiled_steps_train_as_others(values_of):
    ends = []
    for mode in MODES:
        keras.utils.set_random_seed(0)
        model = small(mode)
        model.fit(X, Y, epochs=2, shuffle=False, verbose=0)
        ends.append(model.classifier.get_weights())
    for found in ends[1:]:
        for one, other in zip(ends[0], found, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("mode", ["eager", "graph", pytest.param("xla", marks=pytest.mark.slow)])
def test_rounding_at_the_bounds_is_clipped(mode):
    """A few units in the last place beyond 0 and 1, as resizing leaves them."""
    x = X.copy()
    x[0, 0, 0, 0], x[1, 0, 0, 0] = 1 + 1.2e-7, -1.2e-7
    found, clipped = small(mode), np.clip(x, 0, 1)
    found.fit(x, Y, verbose=0)
    values = found.evaluate(x, Y, verbose=0)
    assert values == pytest.approx(found.evaluate(clipped, Y, verbose=0))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=r"1\.00001"):
        found.fit(x + (x > 1) * np.float32(1e-5), Y, verbose=0)
