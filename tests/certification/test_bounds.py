"""What all bounds share: configuration, radii, graphs, parts, masks, and what they refuse."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.certification.network import network_of
from tests.certification.networks import CLASSES, SHAPE, draw_weights, functional, true_margins

BALL = kr.LinfBall(0.05)
BOUNDS = [
    kr.certification.ibp(BALL),
    kr.certification.crown_ibp(BALL),
    kr.certification.crown(BALL),
]
certification = kr.certification
layers = keras.layers


@pytest.fixture(scope="module")
def network():
    """Two ReLUs behind each other, so that CROWN has an interval to improve."""

    def body(x):
        x = layers.Conv2D(3, 3, strides=2, activation="relu")(x)
        x = layers.Dense(4, activation="relu")(layers.Flatten()(x))
        return layers.Dense(CLASSES)(x)

    model = functional(body)
    draw_weights(model, np.random.default_rng(0))
    return model


@pytest.fixture(scope="module")
def batch():
    x = np.random.default_rng(1).random((4, *SHAPE))
    return tf.constant(x, tf.float32), np.array([0, 1, 2, 0])


@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda b: b.name)
def test_configuration_and_radius(bounds):
    assert isinstance(bounds, certification.Bounds)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(bounds))
    assert again == bounds and type(again) is type(bounds)
    assert keras.saving.get_registered_name(type(bounds)).startswith("keras_robust>")
    larger = bounds.at_radius(0.2)
    assert larger.ball == kr.LinfBall(0.2) and larger.name == bounds.name
    assert bounds.ball.radius == 0.05
    if hasattr(bounds, "rows"):
        assert dataclasses.replace(bounds, rows=3).at_radius(0.1).rows == 3


@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda b: b.name)
def test_a_graph_equals_eager_and_is_traced_once(network, batch, bounds):
    x, y = batch
    traces = []

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, *SHAPE], tf.float32),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([], tf.float32),
        ]
    )
    def margins(images, labels, radius):
        traces.append(1)
        return bounds.at_radius(radius)(network, images, labels)

    for radius, count in ((0.05, 4), (0.02, 3)):
        eager = bounds.at_radius(radius)(network, x[:count], y[:count]).numpy()
        np.testing.assert_allclose(margins(x[:count], y[:count], radius), eager, atol=1e-5)
    assert len(traces) == 1


def test_compiled_bounds_take_any_radius(network, batch):
    x, y = batch
    compiled = BOUNDS[0].compiled(network)
    for radius in (0.05, 0.02):
        eager = BOUNDS[0].at_radius(radius)(network, x, y).numpy()
        np.testing.assert_allclose(compiled(x, y, radius=radius), eager, atol=1e-5)
    np.testing.assert_allclose(compiled(x, y), BOUNDS[0](network, x, y), atol=1e-5)
    with pytest.raises(ValueError, match="radius"):
        compiled(x, y, radius=-1.0)


@pytest.mark.parametrize("bounds", BOUNDS[1:], ids=lambda b: b.name)
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_parts_give_the_same_margins(network, batch, bounds, rows):
    x, y = batch
    parts = dataclasses.replace(bounds, rows=rows)
    np.testing.assert_allclose(parts(network, x, y), bounds(network, x, y), atol=1e-6)


def test_both_margins_of_crown_ibp(network, batch):
    x, y = batch
    by_crown, by_ibp = BOUNDS[1].with_ibp(network, x, y)
    np.testing.assert_allclose(by_ibp, BOUNDS[0](network, x, y), atol=1e-6)
    np.testing.assert_allclose(np.maximum(by_crown, by_ibp), BOUNDS[1](network, x, y), atol=1e-6)


@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda b: b.name)
def test_larger_radii_give_smaller_margins(network, batch, bounds):
    x, y = batch
    margins = [bounds.at_radius(r)(network, x, y).numpy() for r in (0.0, 0.01, 0.05, 0.2)]
    assert all(np.all(a >= b) for a, b in itertools.pairwise(margins))
    clean = true_margins(network(x)["logits"], y)
    np.testing.assert_allclose(margins[0], clean, atol=1e-3)


@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda b: b.name)
def test_logits_are_between_their_bounds(network, batch, bounds):
    x, y = batch
    lower, upper = (end.numpy() for end in bounds.logits(network, x))
    for seed in range(20):
        logits = network(BALL.sample(x, tf.constant([seed, 0])))["logits"].numpy()
        assert np.all(lower <= logits) and np.all(logits <= upper)
    margins = bounds(network, x, y).numpy()
    apart = np.take_along_axis(lower, y[:, None], axis=1) - upper
    others = np.arange(CLASSES) != y[:, None]
    assert np.all(margins[others] >= apart[others] - 1e-5)


@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda b: b.name)
@pytest.mark.parametrize("p", [1, 2, np.inf])
def test_a_mask_leaves_other_pixels_alone(make_linear, bounds, p):
    """A linear network in closed form, with half of the pixels."""
    rng = np.random.default_rng(0)
    weights, mask = rng.normal(size=(6, 3)), np.array([1, 0, 1, 0, 0, 1])
    if p == np.inf:
        mask = mask * 0.5
    model = make_linear(weights, shape=(6,))
    ball = {1: kr.L1Ball, 2: kr.L2Ball, np.inf: kr.LinfBall}[p]
    x, y = rng.random((4, 6)).astype("float32"), np.array([0, 1, 2, 0])
    masked = dataclasses.replace(bounds, ball=ball(0.3, bounds=(-5.0, 5.0), mask=mask))
    q = {1: np.inf, 2: 2, np.inf: 1}[p]
    differences = (weights.T[y][:, None] - weights.T[None]) * mask
    expected = true_margins(x @ weights, y) - 0.3 * np.linalg.norm(differences, q, axis=2)
    np.testing.assert_allclose(masked(model, x, y), expected, atol=2e-5)


def test_a_mask_of_another_shape_is_refused(network, batch):
    ball = kr.LinfBall(0.1, mask=np.ones((5, 5, 1)))
    with pytest.raises(ValueError, match="mask"):
        certification.ibp(ball)(network, *batch)


def test_a_robust_model_is_taken_for_its_classifier(network, batch):
    robust = kr.defenses.pgd_at(network, BALL)
    np.testing.assert_array_equal(BOUNDS[0](robust, *batch), BOUNDS[0](network, *batch))


def test_a_network_is_traced_once_and_goes_with_its_model():
    model = functional(lambda x: layers.Dense(2)(layers.Flatten()(x)))
    first = network_of(model)
    assert network_of(model) is first
    alive = weakref.ref(model)
    del model, first
    gc.collect()
    assert alive() is None


def test_layers_that_the_logits_do_not_need_are_left_out():
    images = keras.Input((4,))
    features = layers.LayerNormalization()(images)
    logits = layers.Dense(2)(images)
    model = keras.Model(images, {"logits": logits, "features": features})
    certification.check_supported(model)


def test_layers_that_are_not_covered_are_all_named():
    images = keras.Input((4,))
    x = layers.LayerNormalization(name="first")(images)
    x = layers.Dense(4, activation="softplus", name="second")(x)
    logits = layers.Dense(2)(layers.Lambda(lambda x: x, name="third")(x))
    model = keras.Model(images, {"logits": logits, "features": logits}, name="mine")
    with pytest.raises(ValueError, match="'mine'") as error:
        certification.check_supported(model)
    second = "'second' (Dense: activation 'softplus')"
    for part in ("'first' (LayerNormalization", second, "'third'", "They cover", "MaxPooling2D"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match="'mine'"):
        BOUNDS[0].compiled(model)


class Doubled(layers.Dense):
    """A dense layer that computes something else."""

    def call(self, x):
        return 2 * super().call(x)


class Own(keras.Model):
    def call(self, x):
        return x


def _half():
    return layers.Dense(2, dtype="mixed_float16", name="it")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Doubled(2, name="it"), "Doubled"),
        (_half, "computes in float16"),
        (lambda: layers.ReLU(threshold=1.0, name="it"), "threshold=1"),
        (lambda: layers.LeakyReLU(negative_slope=2.0, name="it"), "negative_slope=2"),
        (lambda: layers.Activation("gelu", name="it"), "activation 'gelu'"),
        (lambda: layers.Normalization(mean=0.0, variance=1.0, invert=True, name="it"), "invert"),
        (lambda: layers.BatchNormalization(renorm=True, name="it"), "renorm"),
        (lambda: keras.Sequential([layers.Softmax(name="it")]), "Softmax"),
        (lambda: Own(name="it"), "Own"),
    ],
)
def test_settings_that_are_not_covered_are_refused(make, text):
    images = keras.Input((4,))
    x = make()(layers.Dense(4)(images))
    logits = layers.Dense(2, dtype="float32")(x)
    model = keras.Model(images, {"logits": logits, "features": logits})
    with pytest.raises(ValueError, match="'it'.*" + text):
        certification.check_supported(model)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda x: x + 1.0, "with a constant"),
        (lambda x: keras.ops.reshape(x, (-1, 2)), "across images"),
        (lambda x: keras.ops.exp(x), "Exp"),
    ],
)
def test_functions_that_are_not_covered_are_refused(make, text):
    images = keras.Input((4,))
    logits = layers.Dense(2)(make(images))
    model = keras.Model(images, {"logits": logits, "features": logits})
    with pytest.raises(ValueError, match=text):
        certification.check_supported(model)


def test_a_model_that_computes_something_else_than_its_layers_is_refused():
    dense = layers.Dense(2)
    model = functional(lambda x: dense(layers.Flatten()(x)))
    dense.call = lambda x, training=None: 3.0 * x[:, :2]
    with pytest.raises(ValueError, match="returns other logits than its layers"):
        certification.check_supported(model)


def test_open_sizes_are_refused():
    images = keras.Input((None, None, 1))
    logits = layers.Dense(2)(layers.GlobalAveragePooling2D()(images))
    model = keras.Model(images, {"logits": logits, "features": logits}, name="mine")
    with pytest.raises(ValueError, match="'mine' leaves sizes .* open.*input_shape"):
        certification.check_supported(model)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_a_model_that_is_quantized_later_is_refused():
    model = functional(lambda x: layers.Dense(2, name="it")(layers.Flatten()(x)))
    certification.check_supported(model)
    model.quantize("int8")
    with pytest.raises(ValueError, match="'it' .*quantized"):
        BOUNDS[0](model, tf.zeros([1, *SHAPE]), [0])


def test_a_single_sigmoid_is_two_classes():
    """The margin of class 1 is the logit."""
    own = keras.Sequential([keras.Input((2,)), layers.Dense(1, activation="sigmoid")])
    own.set_weights([np.array([[1.0], [-2.0]]), np.array([0.25])])
    model = kr.models.adapt(own)
    certification.check_supported(model)
    margins = BOUNDS[2](model, [[0.5, 0.25], [0.5, 0.25]], [1, 0])
    np.testing.assert_allclose(margins, [[0.25 - 0.15, 0.0], [0.0, -0.25 - 0.15]], atol=1e-5)


def test_ensembles_of_probabilities_are_refused():
    members = [kr.models.mlp((2, 2, 1), 3, hidden=(units,)) for units in (3, 4)]
    certification.check_supported(kr.models.ensemble(members, combine="logits"))
    for combine in ("probabilities", "vote"):
        with pytest.raises(ValueError, match=f"combine='{combine}'.*combine='logits'"):
            certification.check_supported(kr.models.ensemble(members, combine=combine))


@pytest.mark.parametrize("model", [lambda x: {"logits": x}, None, "sequential", "subclassed"])
def test_models_that_cannot_be_followed_are_refused(model):
    if model == "sequential":
        model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    elif model == "subclassed":
        model = Own()
    with pytest.raises(TypeError, match=r"models\.adapt"):
        certification.check_supported(model)


class OwnBall(kr.LinfBall):
    """A subclass, which may allow more than its base."""


@pytest.mark.parametrize("make", [certification.ibp, certification.crown, certification.crown_ibp])
def test_other_threat_models_are_refused(make):
    with pytest.raises(TypeError, match="the balls of this package only"):
        make(OwnBall(0.1))
    with pytest.raises(TypeError, match="expected a threat model"):
        make(0.1)
    other = type("NoNorm", (kr.LinfBall,), {"p": None})
    with pytest.raises(TypeError, match="A bound is defined in L1, L2 and Linf"):
        make(other(0.1))


@pytest.mark.parametrize("rows", [0, 1.5, True])
def test_rows_are_a_positive_integer(rows):
    for make in (certification.crown, certification.crown_ibp):
        with pytest.raises(ValueError, match="rows is"):
            make(BALL, rows=rows)


def test_invalid_batches_are_refused(network, batch):
    x, y = batch
    for images, labels, kind, text in (
        (tf.cast(x, tf.uint8), y, TypeError, "uint8"),
        (x + 1, y, ValueError, "Images have values"),
        (x * np.nan, y, ValueError, "no NaN"),
        (x[:, :5], y, ValueError, "expected \\[batch, 6, 6, 2\\]"),
        (x, y + 3, ValueError, "Labels run from"),
        (x, y[:2], ValueError, "Labels have shape"),
    ):
        for call in (BOUNDS[0], lambda _, *args: BOUNDS[0].compiled(network)(*args)):
            with pytest.raises(kind, match=text):
                call(network, images, labels)


def test_half_precision_images_and_one_hot_labels(network, batch):
    x, y = batch
    half = tf.cast(x, tf.float16)
    margins = BOUNDS[0](network, half, y)
    assert margins.dtype == tf.float32
    np.testing.assert_array_equal(margins, BOUNDS[0](network, tf.cast(half, tf.float32), y))
    one_hot = tf.one_hot(y, CLASSES)
    np.testing.assert_array_equal(BOUNDS[0](network, x, one_hot), BOUNDS[0](network, x, y))


def test_worst_logits_bound_the_loss(network, batch):
    """The cross-entropy of the worst logits is not below that of any image in the ball."""
    x, y = batch
    worst = certification.worst_logits(BOUNDS[0](network, x, y))
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits
    for seed in range(20):
        logits = network(BALL.sample(x, tf.constant([seed, 0])))["logits"]
        assert np.all(loss(y, logits) <= loss(y, worst))


def test_a_tie_is_not_certified():
    margins = [[0.0, 0.0, 1.0], [0.5, 0.0, 1e-30]]
    assert certification.is_certified(margins, [0, 1]).numpy().tolist() == [False, True]
