"""IBP training: its step on paper, its ramp, its penalty, its initial weights."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.certification.interval import Interval
from keras_robust.losses.robust_loss import WorstCase
from keras_robust.training.certified.initialization import ibp_initialization
from keras_robust.training.certified.radius_ramp import RadiusRamp
from keras_robust.training.certified.regularizer import BoundRegularizer
from tests.defenses.conftest import BIAS, RATE, WEIGHTS, slope

BALL = kr.LinfBall(0.1)
AT_ONCE = {"warmup_steps": 0, "ramp_steps": 0, "regularization": 0.0}


def tiny():
    """Two layers and batch norm."""
    keras.utils.set_random_seed(0)
    return kr.models.strided_cnn((6, 6, 1), 3, (4,), (3,), (2,), (5,))


def log_softmax(z):
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


# A step.


def test_one_step_of_a_linear_classifier(make_linear, make_batch):
    """`0.25 CE(x) + 0.75 CE(-m)`, where a margin is smallest at a corner of the cut cube.

    `m_j = d . c - |d| . r` for `d = w_y - w_j` and the center and radius of `[x - 0.2, x + 0.2]`,
    cut with [0, 1].
    """
    x, y = make_batch(6, (4, 1, 1))
    model = kr.defenses.ibp(
        make_linear(WEIGHTS, BIAS), BALL, train_radius=0.2, clean_weight=0.25, **AT_ONCE
    )
    model.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
    flat = x.reshape(6, 4).astype("float64")
    low, high = np.maximum(flat - 0.2, 0), np.minimum(flat + 0.2, 1)
    center, radius = (low + high) / 2, (high - low) / 2

    def terms(parameters):
        w, bias = parameters[:4], parameters[4]
        clean = log_softmax(flat @ w + bias)
        d = w.T[y][:, None] - w.T[None]  # [batch, classes, pixels]
        margins = np.einsum("bjp,bp->bj", d, center) - np.einsum("bjp,bp->bj", abs(d), radius)
        worst = log_softmax(-(margins + bias[y][:, None] - bias))
        each = np.arange(6)
        return {"clean": -0.25 * clean[each, y].mean(), "worst_case": -0.75 * worst[each, y].mean()}

    parameters = np.concatenate([WEIGHTS, BIAS[None]])
    logs = model.train_on_batch(x, y, return_dict=True)
    expected = terms(parameters)
    assert {name: logs[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    moved = parameters - RATE * slope(lambda p: sum(terms(p).values()), parameters)
    np.testing.assert_allclose(np.vstack(model.classifier.get_weights()), moved, atol=2e-5)


def test_training_bounds_take_the_statistics_of_the_clean_batch(make_batch):
    """The bounds of a step are those of `certification` in training, without its pass for them."""
    x, y = map(tf.constant, make_batch(6))
    model = kr.defenses.ibp(tiny(), BALL, train_radius=0.15, **AT_ONCE)
    model.compile("sgd")
    _, outputs, _ = model.training_loss().gradients(
        (x, y, None), None, tf.constant(6), model.optimizer
    )
    bounds = kr.certification.ibp(kr.LinfBall(0.15))
    expected = kr.certification.worst_logits(bounds(tiny(), x, y, training=True))
    np.testing.assert_allclose(outputs["bounds"]["logits"], expected, rtol=1e-4, atol=1e-5)
    inference = kr.certification.worst_logits(bounds(tiny(), x, y))
    assert np.abs(inference - expected).max() > 0.1


def test_batch_norm_in_a_nested_model(make_batch):
    """It cannot be observed there; the statistics cost a pass, and are the same."""
    x, y = make_batch(6)
    inner = tiny()
    image = keras.Input((6, 6, 1))
    models = [tiny(), keras.Model(image, inner(image))]
    logs = []
    for classifier in models:
        model = kr.defenses.ibp(classifier, BALL, **AT_ONCE)
        model.compile("sgd", run_eagerly=True)
        logs.append(model.train_on_batch(x, y, return_dict=True))
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


def test_validation_bounds_at_the_ball(make_batch):
    """Whatever the radius and the weight of training are at present."""
    x, y = make_batch(9)
    model = kr.defenses.ibp(tiny(), BALL, train_radius=0.3, warmup_steps=5, steps=1)
    model.compile("sgd", run_eagerly=True)
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    margins = kr.certification.ibp(BALL)(model.classifier, x, y)
    verified = kr.certification.is_certified(margins, y).numpy()
    assert logs["verified_accuracy"] == pytest.approx(verified.mean())
    worst = kr.losses.cross_entropy(kr.certification.worst_logits(margins), tf.constant(y))
    assert logs["worst_case"] == pytest.approx(0.5 * float(tf.reduce_mean(worst)), rel=1e-5)
    assert logs["verified_accuracy"] <= logs["robust_accuracy"] <= logs["accuracy"]


def test_batches_of_unknown_size(make_batch):
    """As of a `tf.data` data set: the shapes of the bounds do not depend on it."""
    model = kr.defenses.ibp(tiny(), BALL, steps=1)
    model.compile("sgd")
    specs = (tf.TensorSpec([None, 6, 6, 1]), tf.TensorSpec([None], tf.int64))
    logs = tf.function(model.test_step, autograph=False).get_concrete_function(specs)
    assert "verified_accuracy" in logs.structured_outputs


def test_weight_perturbation_moves_the_bounds_too(make_batch):
    """The gradient at the perturbed weights, as if the classifier had these weights."""
    x, y = make_batch(6)
    settings = {**AT_ONCE, "clean_weight": 0.0}
    model = kr.defenses.ibp(tiny(), BALL, weight_perturbation=kr.AWP(0.1), **settings)
    model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    before = [w.numpy() for w in model.trainable_variables]
    model.train_on_batch(x, y)
    steps = [old - w.numpy() for old, w in zip(before, model.trainable_variables, strict=True)]

    def gradients(values):
        plain = kr.defenses.ibp(tiny(), BALL, **settings)
        for variable, value in zip(plain.trainable_variables, values, strict=True):
            variable.assign(value)
        plain.compile("sgd")
        batch = (tf.constant(x), tf.constant(y), None)
        return plain.training_loss().gradients(batch, None, tf.constant(6), plain.optimizer)[0]

    perturbed = kr.AWP(0.1).perturbed([tf.constant(w) for w in before], gradients(before))
    for step, expected in zip(steps, gradients(perturbed), strict=True):
        np.testing.assert_allclose(step, expected, rtol=1e-3, atol=1e-5)


# The ramp.


def test_radius_and_weight_follow_the_ramp(make_batch):
    """Linear in four steps after one: kappa is `1 - 0.6 share`."""
    x, y = make_batch(6)
    model = kr.defenses.ibp(
        tiny(), BALL, train_radius=0.2, clean_weight=0.4, warmup_steps=1, ramp_steps=4,
        ramp="linear", regularization=0.0,
    )  # fmt: skip
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    logs = []
    for _ in range(6):
        model.reset_metrics()
        logs.append(model.train_on_batch(x, y, return_dict=True))
    radii = [0.2 * share for share in (0, 0.25, 0.5, 0.75, 1, 1)]
    assert [log["radius"] for log in logs] == pytest.approx(radii)
    clean = [log["clean"] / logs[0]["clean"] for log in logs]
    assert clean == pytest.approx([1 - 0.6 * radius / 0.2 for radius in radii], rel=1e-4)
    assert logs[0]["worst_case"] == 0 and logs[0]["verified_accuracy"] == logs[0]["accuracy"]


def test_a_smooth_ramp():
    """`(256 / 13) t^4` up to a quarter, `(16 t - 3) / 13` after it: equal there, with slope 16/13.

    Both follow from the fourth power and its tangent at 1/4, scaled so that the end is 1.
    """
    ramp = RadiusRamp(1.0, warmup_steps=0, ramp_steps=1000)
    shares = [float(ramp.share(step - 1)) for step in (0, 100, 250, 500, 1000, 2000)]
    assert shares == pytest.approx([0, 256 / 13 * 1e-4, 1 / 13, 5 / 13, 1, 1], abs=1e-6)
    assert all(float(ramp.share(step)) == 1.0 for step in (999, 1000, 5000))
    left, right = (ramp.share(249) - ramp.share(248)), (ramp.share(250) - ramp.share(249))
    assert float(right) == pytest.approx(16 / 13 / 1000, rel=1e-3)
    assert float(left) == pytest.approx(float(right), rel=1e-2)


def test_the_largest_radius():
    assert RadiusRamp.beyond(BALL, None, 1, 2, "linear") == RadiusRamp(1.1 * 0.1, 1, 2, "linear")
    with pytest.raises(ValueError, match=r"train_radius is 0.05; expected a finite number >= 0.1"):
        kr.defenses.ibp(tiny(), BALL, train_radius=0.05)


# The penalty.


def test_the_penalty_on_paper():
    """One rectifier with two active and one inactive values, one that crosses, in two images.

    The mean width of the images is 1, of the inputs 3: tightness is (1/2 - 1/3) / (1/2) = 1/3.
    Centers are 4, 2 (active), -1 (inactive) and 3 others at 0: the sums are 6 and 1, whose ratio
    1/6 gives 2/3. The mean is 5/6, the squared deviations are 361/36 + 49/36 and 121/36: the ratio
    121/410 gives 1 - 242/410.
    """
    images = Interval(tf.zeros([2, 3]), tf.ones([2, 3]))
    center = tf.constant([[4.0, 2.0, -1.0], [0.0, 0.0, 0.0]])
    radius = tf.constant([[1.5, 1.0, 0.5], [2.0, 2.0, 2.0]])
    each = Interval(center - radius, center + radius)
    expected = 1 / 3 + 2 / 3 + 1 - 242 / 410
    penalty = BoundRegularizer(0.5, tolerance=0.5)
    assert float(penalty.penalty(images, [each])) == pytest.approx(expected)
    assert float(penalty(images, [each, each], 0.75)) == pytest.approx(0.5 * 0.25 * expected)


def test_the_penalty_has_a_finite_gradient_where_nothing_is_active():
    center = tf.Variable(tf.zeros([2, 3]))
    with tf.GradientTape() as tape:
        point = Interval(center, center)
        value = BoundRegularizer().penalty(point, [point])
    assert float(value) == 0.0
    gradient = tape.gradient(value, center)
    assert gradient is None or np.isfinite(gradient.numpy()).all()


def test_the_penalty_ends_with_the_ramp(make_batch):
    x, y = make_batch(6)
    logs = []
    for steps in ({"ramp_steps": 4}, {"ramp_steps": 1}):
        model = kr.defenses.ibp(tiny(), BALL, warmup_steps=0, ramp="linear", **steps)
        model.compile("sgd", run_eagerly=True)
        logs.append(model.train_on_batch(x, y, return_dict=True)["regularization"])
    assert logs[0] > 0.01 and logs[1] == 0


# Initial weights.


def test_initial_weights():
    """`sqrt(2 pi) / fan_in` in every layer but the last; biases and batch norm stay."""
    classifier = kr.models.small_cnn((8, 8, 1), 3, variant="mnist", dropout=0.0)
    before = {w.path: w.numpy() for w in classifier.weights}
    ibp_initialization(classifier, seed=1)
    kernels = [w for w in classifier.weights if w.path.endswith("kernel")][:-1]
    for weight in kernels:
        fan_in = math.prod(weight.shape[:-1])
        assert float(np.std(weight)) * fan_in == pytest.approx(math.sqrt(2 * math.pi), rel=0.15)
        assert np.any(weight.numpy() != before[weight.path])
    drawn = {weight.path for weight in kernels}
    for weight in classifier.weights:
        assert weight.path in drawn or np.all(weight.numpy() == before[weight.path])


def test_initial_weights_of_members_and_of_depthwise_kernels():
    """Each member has draws of its own; a depthwise kernel of 3 x 3 has nine inputs."""
    inputs = keras.Input((9, 9, 64))
    x = keras.layers.Flatten()(keras.layers.DepthwiseConv2D(3, name="depthwise")(inputs))
    single = keras.Model(inputs, {"logits": keras.layers.Dense(3)(x), "features": x})
    ibp_initialization(single)
    spread = float(np.std(single.get_layer("depthwise").kernel))
    assert spread * 9 == pytest.approx(math.sqrt(2 * math.pi), rel=0.1)
    members = [kr.models.mlp((2, 2, 1), 3, hidden=(4,)) for _ in range(2)]
    ibp_initialization(kr.models.ensemble(members))
    first, second = (member.get_layer("fc1").kernel.numpy() for member in members)
    assert np.abs(first).max() < 4 and np.any(first != second)


def test_the_weights_are_kept_unless_asked_for(make_batch):
    classifier = tiny()
    before = classifier.get_weights()
    kr.defenses.ibp(classifier, BALL)
    for value, old in zip(classifier.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)
    model = kr.defenses.ibp(classifier, BALL, initialization="ibp", seed=3)
    assert np.any(classifier.get_weights()[0] != before[0])
    drawn = classifier.get_weights()
    again = kr.RobustModel.from_config.__func__(type(model), model.get_config())
    assert again.ramp == model.ramp and again.bounds == model.bounds
    for value, old in zip(classifier.get_weights(), drawn, strict=True):
        np.testing.assert_array_equal(value, old)


# What is refused.


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"clean_weight": 1.5}, r"WorstCase: clean_weight is 1.5; expected a number in \[0, 1\]"),
        ({"ramp_steps": -1}, "RadiusRamp: ramp_steps is -1"),
        ({"warmup_steps": 2.5}, "RadiusRamp: warmup_steps is 2.5"),
        ({"ramp": "cosine"}, "RadiusRamp: shape is 'cosine'; expected one of 'smooth', 'linear'"),
        ({"regularization": -1.0}, "BoundRegularizer: weight is -1.0"),
        ({"initialization": "he"}, "initialization is 'he'; expected one of None, 'ibp'"),
    ],
)
def test_invalid_options(options, text):
    with pytest.raises(ValueError, match=text):
        kr.defenses.ibp(tiny(), BALL, **options)


def test_a_layer_without_bounds_is_named():
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Flatten()(keras.layers.LayerNormalization(name="odd")(inputs))
    outputs = {"logits": keras.layers.Dense(3)(x), "features": x}
    with pytest.raises(ValueError, match=r"do not cover.*'odd' \(LayerNormalization"):
        kr.defenses.ibp(keras.Model(inputs, outputs), BALL)


def test_bounds_and_their_loss_belong_together(make_classifier):
    with pytest.raises(ValueError, match=r"WorstCase needs certified bounds.*defenses.ibp"):
        kr.RobustModel(make_classifier(), None, WorstCase())
    model = kr.defenses.ibp(tiny(), BALL)
    with pytest.raises(ValueError, match=r"Clean does not read certified bounds"):
        model.rebuilt(loss=kr.losses.Clean())
    with pytest.raises(TypeError, match=r"SumOfLosses.*expected a `keras_robust.losses.WorstCase`"):
        model.rebuilt(loss=kr.losses.SumOfLosses((WorstCase(),)))
    both = kr.losses.SumOfLosses((WorstCase(), kr.losses.Adversarial()))
    with pytest.raises(ValueError, match=r"requires 'bounds' and 'adversarial'.*one of the two"):
        kr.RobustModel(make_classifier(), kr.attacks.pgd(BALL), both)


@pytest.mark.parametrize(
    ("name", "text"), [("udr", "does not take fixed steps"), ("adr", "attack is None")]
)
def test_it_is_no_base_of_defenses_that_craft(name, text):
    with pytest.raises(ValueError, match=text):
        getattr(kr.defenses, name)(tiny(), BALL, base="ibp")


def test_the_direction_of_verified_accuracy_is_known():
    model = kr.defenses.ibp(tiny(), BALL)
    assert model.directions["verified_accuracy"] == "max" and model.directions["radius"] == ""
    assert "verified_accuracy" in model.evaluated_names()
    assert "radius" not in model.evaluated_names()
