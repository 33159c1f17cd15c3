"""What every architecture promises: the classifier contract, in one table."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust import models
from keras_robust.models.building import is_classifier

SMALL = {
    "mlp": {"hidden": (16, 12)},
    "small_cnn": {"variant": "tiny"},
    "strided_cnn": {"filters": (4,), "kernels": (3,), "strides": (2,), "dense": (12,)},
    "resnet20": {"width": 0.25},
    "resnet18": {"width": 0.125},
    "pre_act_resnet18": {"width": 0.125},
    "wide_resnet": {"depth": 10, "widen_factor": 1},
    "vgg16": {"width": 0.125},
    "googlenet": {"width": 0.125},
    "mobilenet_v1": {"width": 0.125},
    "efficientnet_b0": {"width": 0.25},
    "convnext": {"width": 0.1, "depths": (1, 1, 1, 1), "kernel": 3},
    "vit": {"dim": 16, "depth": 1, "heads": 2},
}
FEATURES = {
    "mlp": 12,
    "small_cnn": 32,
    "strided_cnn": 12,
    "resnet20": 16,
    "resnet18": 64,
    "pre_act_resnet18": 64,
    "wide_resnet": 64,
    "vgg16": 64,
    "googlenet": 128,
    "mobilenet_v1": 128,
    "efficientnet_b0": 80,
    "convnext": 32,
    "vit": 16,
}
WIDE = ["resnet20", "resnet18", "pre_act_resnet18", "vgg16", "googlenet", "mobilenet_v1",
        "efficientnet_b0", "convnext"]  # those with a width  # fmt: skip
# The full size of this one takes seconds; `wide_resnet` stands for it in the table.
LARGE = {"wrn_34_10"}
# Built from other networks; tested in `test_ensemble.py` and `test_backbone.py`.
OF_OTHERS = {"ensemble", "backbone"}

# Their full table takes a minute; the contract itself and the gradient are tested every time, at
# sizes that other tests need too (8 x 8 is in the doctests).
DEEP = {"vgg16": 16, "googlenet": 28, "mobilenet_v1": 16, "efficientnet_b0": 28, "convnext": 8}
GRAY = {name: (DEEP.get(name, 8),) * 2 + (1,) for name in SMALL}
COLOR = dict.fromkeys(SMALL, (9, 7, 3)) | {"vit": (8, 12, 3)}
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)

every_one = pytest.mark.parametrize("name", sorted(SMALL))
every_architecture = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name
        for name in sorted(SMALL)
    ],
)


def images(shape=(8, 8, 1), batch=3, seed=0):
    return np.random.default_rng(seed).uniform(size=(batch, *shape)).astype("float32")


def build(name, shape=(8, 8, 1), **options):
    """A new model, always with the same weights."""
    keras.utils.set_random_seed(1)
    return models.build(name, shape, 10, **{**SMALL[name], **options})


@functools.cache
def gray(name):
    """A model for tests that do not change it."""
    return build(name, GRAY[name])


@functools.cache
def normalizing(name):
    """A model of color images with biases and moving statistics that no new model has."""
    model = build(name, COLOR[name], mean=MEAN, std=STD)
    for weight in model.weights:
        if len(weight.shape) == 1:
            sign = -1 if "moving_mean" in weight.path else 1  # no rectified layer may be all zero
            weight.assign(weight + sign * np.linspace(0.05, 0.1, weight.shape[0]))
    return model


def test_the_table_has_every_architecture():
    assert set(SMALL) | LARGE | OF_OTHERS == set(models.ARCHITECTURES)


@every_one
def test_contract(name):
    model = gray(name)
    assert is_classifier(model)
    assert model.built
    outputs = model(images(GRAY[name]))
    assert set(outputs) == {"logits", "features"}
    assert outputs["logits"].shape == (3, 10)
    assert outputs["features"].shape == (3, FEATURES[name])
    assert outputs["logits"].dtype == outputs["features"].dtype == tf.float32


@every_architecture
def test_logits_are_the_last_layer_on_the_features(name):
    model = normalizing(name)
    last = model.get_layer("logits")
    assert np.all(last.bias != 0)
    outputs = model(images(COLOR[name]), training=False)
    by_hand = outputs["features"].numpy() @ last.kernel.numpy() + last.bias.numpy()
    np.testing.assert_allclose(outputs["logits"], by_hand, rtol=1e-5, atol=1e-5)


def check_gradient(model, shape):
    x = tf.constant(images(shape))
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = model(x, training=False)["logits"]
    gradient = tape.gradient(logits, x).numpy()
    assert np.all(np.isfinite(gradient))
    # Per image: a last layer of zeros would give zero here.
    assert np.all(np.abs(gradient).sum(axis=(1, 2, 3)) > 0)


@every_one
def test_gradient_is_finite_and_not_zero(name):
    check_gradient(gray(name), GRAY[name])


@every_architecture
def test_gradient_of_color_images_is_finite_and_not_zero(name):
    check_gradient(normalizing(name), COLOR[name])


@every_architecture
def test_saved_and_loaded_gives_the_same(name, tmp_path):
    model = normalizing(name)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert is_classifier(loaded)
    x = images(COLOR[name])
    before, after = model(x, training=False), loaded(x, training=False)
    for key in ("logits", "features"):
        np.testing.assert_array_equal(before[key], after[key])


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "mixed_bfloat16") for name in sorted(set(SMALL) - set(DEEP))),
        *(pytest.param(name, "mixed_bfloat16", marks=pytest.mark.slow) for name in sorted(DEEP)),
        ("small_cnn", "mixed_float16"),
        ("wide_resnet", "mixed_float16"),
    ],
)
def test_mixed_precision_keeps_logits_in_float32(name, precision):
    exact = normalizing(name)
    keras.config.set_dtype_policy(precision)
    model = build(name, COLOR[name], mean=MEAN, std=STD)
    for mine, theirs in zip(model.weights, exact.weights, strict=True):
        assert mine.dtype == "float32"
        mine.assign(theirs)
    x = tf.constant(images(COLOR[name]))
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = model(x, training=False)
    assert outputs["logits"].dtype == outputs["features"].dtype == tf.float32
    expected = exact(x, training=False)["logits"]
    scale = float(tf.reduce_max(tf.abs(expected)))
    np.testing.assert_allclose(outputs["logits"], expected, atol=0.05 * scale)
    gradient = tape.gradient(outputs["logits"], x)
    assert gradient.dtype == tf.float32
    assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)
    computing = [layer for layer in model.layers if layer.weights and layer.name != "logits"]
    assert {layer.compute_dtype for layer in computing} == {precision.removeprefix("mixed_")}


@every_architecture
def test_normalization_is_exact_and_inside(name):
    model, plain = normalizing(name), build(name, COLOR[name])
    assert len(model.weights) == len(plain.weights)
    plain.set_weights(model.get_weights())
    x = images(COLOR[name])
    by_hand = (x - np.float32(MEAN)) / np.float32(STD)
    layer = model.get_layer("normalization")
    np.testing.assert_allclose(layer(x), by_hand, rtol=3e-7, atol=3e-7)
    np.testing.assert_allclose(
        model(x, training=False)["logits"],
        plain(by_hand, training=False)["logits"],
        rtol=1e-4,
        atol=1e-4,
    )


@every_architecture
def test_inference_mode_changes_nothing_and_training_mode_moves_batch_norm(name):
    model, x = gray(name), images(GRAY[name])
    before = [weight.numpy().copy() for weight in model.non_trainable_weights]
    model(x, training=False)
    for weight, old in zip(model.non_trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)
    model(x, training=True)
    moved = []
    for weight, old in zip(model.non_trainable_weights, before, strict=True):
        moved.append(not np.array_equal(weight.numpy(), old))
        weight.assign(old)  # other tests use this model
    assert all(moved)


@every_architecture
def test_layers_of_two_models_have_the_same_names(name):
    """The names do not contain Keras's counters."""
    names = [layer.name for layer in gray(name).layers]
    others = [layer.name for layer in normalizing(name).layers]
    assert names == [other for other in others if other != "normalization"]


@every_one
@pytest.mark.parametrize(
    ("shape", "classes", "options", "text"),
    [
        ((8, 8, None), 10, {}, "positive integers such as"),
        (8, 10, {}, "positive integers such as"),
        ((8, 0, 1), 10, {}, "positive integers such as"),
        ((8, 8, 1), 1, {}, "classes is 1; expected an integer >= 2"),
        ((8, 8, 1), 2.5, {}, "classes is 2.5; expected an integer >= 2"),
        ((8, 8, 3), 10, {"mean": (0.5, 0.5)}, "mean is .* 3 of them, one per channel"),
        ((8, 8, 3), 10, {"std": (0.5, 0.5, 0.0)}, "expected positive numbers"),
        ((8, 8, 3), 10, {"std": float("nan")}, "std is nan; expected a finite number"),
    ],
)
def test_bad_arguments(name, shape, classes, options, text):
    with pytest.raises(ValueError, match=text):
        models.build(name, shape, classes, **{**SMALL[name], **options})


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"mlp"}))
def test_convolutions_need_three_sizes(name):
    with pytest.raises(ValueError, match=r"expected \(height, width, channels\)"):
        build(name, (28, 28))


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"mlp"}))
def test_channels_first_is_refused(name):
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="set_image_data_format"):
            build(name)
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("width", [0, -1.0, float("nan")])
def test_bad_width(name, width):
    with pytest.raises(ValueError, match="width is .*; expected a finite number > 0; 1.0 is"):
        build(name, width=width)


@pytest.mark.parametrize(
    ("name", "size", "layer", "left"),
    [
        ("vgg16", 28, "stage4_pool", 2),
        ("vgg16", 16, "stage4_pool", 1),
        ("googlenet", 28, "inception_5b", 7),
        ("mobilenet_v1", 28, "pair12_relu", 2),
        ("mobilenet_v1", 16, "pair12_relu", 1),
        ("efficientnet_b0", 28, "block15_project", 2),
    ],
)
def test_what_is_left_of_an_image(name, size, layer, left):
    """As the docstrings say; a 28 is halved to 14, 7, 4, 2."""
    model = gray(name) if size == DEEP[name] else build(name, (size, size, 1))
    assert model.get_layer(layer).output.shape[1:3] == (left, left)


def test_one_training_step_changes_every_weight():
    model = build("resnet18", (8, 8, 3))
    x, y = images((8, 8, 3)), np.array([0, 1, 2])
    before = [weight.numpy().copy() for weight in model.trainable_weights]
    with tf.GradientTape() as tape:
        logits = model(x, training=True)["logits"]
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
    gradients = tape.gradient(loss, model.trainable_weights)
    keras.optimizers.SGD(0.1).apply_gradients(zip(gradients, model.trainable_weights, strict=True))
    # Biases that no gradient reaches would stay the same; the published networks have none.
    unchanged = [
        weight.path
        for weight, old in zip(model.trainable_weights, before, strict=True)
        if np.array_equal(weight.numpy(), old)
    ]
    assert unchanged == []


def test_numbers_of_numpy_are_numbers():
    model = models.mlp(
        np.array([8, 8, 1]), np.int64(3), hidden=np.array([7]), mean=np.float32(0.5), std=np.ones(1)
    )
    assert model.get_layer("fc1").units == 7 and model.output["logits"].shape == (None, 3)
    wide = models.wide_resnet(
        (8, 8, 1), np.int32(2), depth=np.int64(10), widen_factor=np.float32(0.25)
    )
    assert wide.output["features"].shape == (None, 16)
    assert models.resnet20((8, 8, 1), 2, width=np.float32(0.125)).output["features"].shape[1] == 8


@pytest.mark.parametrize("depth", [4, 8, 33])
def test_bad_depth(depth):
    with pytest.raises(ValueError, match="depth is .*; expected 6 n \\+ 4"):
        models.wide_resnet((8, 8, 1), 10, depth=depth)


@pytest.mark.parametrize(
    ("hidden", "text"),
    [
        ((), "expected one or more layers"),
        ((16, 0), "units of a layer is 0; expected an integer >= 1"),
        ((16.5,), "units of a layer is 16.5"),
    ],
)
def test_bad_hidden(hidden, text):
    with pytest.raises(ValueError, match=text):
        models.mlp((8, 8, 1), 10, hidden=hidden)


@pytest.mark.parametrize(
    ("builder", "options", "count"),
    [
        ("mlp", {"dropout": 0.5}, 2),
        ("small_cnn", {}, 1),
        ("wide_resnet", {"dropout": 0.3}, 3),
        # Nine blocks keep their shape, and so can be left out.
        pytest.param("efficientnet_b0", {}, 1 + 9, marks=pytest.mark.slow),
        pytest.param(
            "efficientnet_b0", {"dropout": 0.0, "drop_connect": 0.5}, 9, marks=pytest.mark.slow
        ),
        pytest.param("efficientnet_b0", {"drop_connect": 0.0}, 1, marks=pytest.mark.slow),
    ],
)
def test_dropout_only_in_training(builder, options, count):
    model = build(builder, **options)
    assert sum(isinstance(layer, keras.layers.Dropout) for layer in model.layers) == count
    x = images()
    np.testing.assert_array_equal(
        model(x, training=False)["logits"], model(x, training=False)["logits"]
    )
    first, second = model(x, training=True)["logits"], model(x, training=True)["logits"]
    assert not np.array_equal(first, second)
