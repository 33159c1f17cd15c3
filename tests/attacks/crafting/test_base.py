"""The base class of attacks: checks, results, compilation."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks.crafting.base import Round
from keras_robust.attacks.crafting.inputs import as_seed, check_batch

X = np.full([4, 2, 2, 1], 0.5, "float32")
Y = np.array([0, 1, 2, 0])
BALL = kr.LinfBall(0.1)
WEIGHTS = np.array([[1.0, -1.0, 0.5], [0.0, 2.0, -1.0], [0.3, 0.1, -0.2], [1.0, 1.0, 1.5]])


@pytest.fixture(scope="module")
def model(make_linear):
    return make_linear(WEIGHTS, shape=(2, 2, 1))


def function(x):
    """The same classifier, as a function."""
    return {"logits": tf.reshape(x, [-1, 4]) @ tf.constant(WEIGHTS, x.dtype)}


@pytest.fixture(scope="module")
def attack():
    return kr.attacks.pgd(BALL, steps=3)


# Calling an attack.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shape_and_dtype_are_those_of_the_images(attack, dtype):
    x_adv = attack(function, X.astype(dtype), Y)
    assert x_adv.dtype == dtype and x_adv.shape == X.shape


def test_a_double_batch_on_a_single_model(model, attack):
    assert attack(model, X.astype("float64"), Y).dtype == tf.float64


def test_keras_models_functions_and_robust_models_agree(model, attack):
    robust = kr.RobustModel(model, attack, kr.losses.Adversarial())
    expected = attack(function, X, Y, seed=4)
    np.testing.assert_allclose(attack(model, X, Y, seed=4), expected, atol=1e-6)
    np.testing.assert_allclose(attack(robust, X, Y, seed=4), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64", "uint16", "uint64"])
def test_labels_of_every_integer_type(model, dtype):
    """Keras's own MNIST and CIFAR-10 have uint8 labels."""
    for loss in ("cross_entropy", "margin", "dlr", kr.objectives.LabelLoss(labels="predicted")):
        attack = kr.attacks.fgsm(BALL, loss=loss)
        expected = attack(model, X, Y)
        np.testing.assert_array_equal(attack(model, X, Y.astype(dtype)), expected)


def test_compiled_takes_labels_of_eight_bits(model, attack):
    compiled = attack.compiled(model)
    np.testing.assert_array_equal(compiled(X, Y.astype("uint8")), compiled(X, Y))
    assert compiled.traces() == 1


def test_labels_of_200_classes_in_eight_bits():
    """(199 + 199) mod 200 = 198, which eight bits could not hold on the way."""
    y = np.array([199], "uint8")
    _, widened, _ = check_batch(X[:1], y, None, (0, 1))
    assert int(Round(None, offset=199).targets(widened, tf.zeros([1, 200]))[0]) == 198


def test_lists_are_accepted(attack):
    assert attack(function, X.tolist(), Y.tolist()).shape == X.shape


def test_a_model_without_the_contract(attack):
    with pytest.raises(TypeError, match=r"expected a dictionary with 'logits'.*adapt"):
        attack(keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)]), X, Y)


# Batches.


@pytest.mark.parametrize(
    ("x", "y", "error", "match"),
    [
        ((X * 255).astype("uint8"), Y, TypeError, r"dtype uint8.*Divide uint8 images by 255"),
        (X * 255, Y, ValueError, r"values from 127.5 to 127.5; expected \[0, 1\].*bounds"),
        (X - 0.6, Y, ValueError, r"values from -0.1.*expected \[0, 1\]"),
        (np.where(X > 0, np.nan, X), Y, ValueError, r"no NaN"),
        (X, Y.astype("float32"), TypeError, r"Labels have dtype float32.*argmax"),
        (X, Y + 0.5, TypeError, r"Labels have dtype float64.*one-hot.*argmax"),
        (X, np.eye(3)[Y] * 0.5, ValueError, r"shape \(4, 3\).*one class number per image"),
        (X, Y[:, None, None], ValueError, r"shape \(4, 1, 1\).*shape \[batch\]"),
        (X, Y[:2], ValueError, r"shape \(2,\) for images of shape \(4, 2, 2, 1\)"),
        (X, Y + 1, ValueError, r"Labels run from 1 to 3; expected 0 to 2"),
        (X, Y - 1, ValueError, r"Labels run from -1 to 1; expected 0 to 2"),
        (None, Y, TypeError, r"Images are None; expected an array or a tensor"),
        ([[0.5], [0.5, 0.5]], Y, TypeError, r"Images are \[\[0.5\].*of images of one size"),
        (X, None, TypeError, r"Labels are None; expected.*one class number per image"),
        (X, [[0], [1, 2]], TypeError, r"Labels are \[\[0\].*one class number per image"),
    ],
)
def test_a_bad_batch(model, attack, x, y, error, match):
    with pytest.raises(error, match=match):
        attack(model, x, y)
    with pytest.raises(error, match=match):
        attack.compiled(model)(x, y)


@pytest.mark.parametrize(
    ("targets", "error", "match"),
    [
        (Y[:1], ValueError, r"Targets have shape \(1,\)"),
        (Y + 5, ValueError, r"Targets run from 5 to 7; expected 0 to 2"),
        (Y * 1.0, TypeError, r"Targets have dtype float"),
        (None, ValueError, r"without targets"),
    ],
)
def test_bad_targets(model, targets, error, match):
    attack = kr.attacks.pgd(BALL, targeted=True)
    with pytest.raises(error, match=match):
        attack(model, X, Y, targets=targets)


def test_negative_labels_of_a_model_whose_classes_are_not_known(attack):
    with pytest.raises(ValueError, match=r"Labels run from -1 to 1; expected class numbers >= 0"):
        attack(function, X, Y - 1)


def test_infinite_pixels():
    with pytest.raises(ValueError, match="to inf; expected"):
        kr.attacks.fgsm(kr.L2Ball(0.1, (-np.inf, np.inf)))(function, X + np.inf, Y)


def test_images_on_bounds_that_their_dtype_rounds():
    """-0.1 in float32 is a little less than -0.1, and 0.7 in float16 a little more than 0.7."""
    for dtype in ("float16", "float32"):
        attack = kr.attacks.fgsm(kr.LinfBall(0.1, (-0.1, 0.7)))
        x = np.full([2, 2, 2, 1], [[[-0.1], [0.7]]], dtype)
        x_adv = attack(function, x, Y[:2]).numpy()
        assert x_adv.min() >= x.min() and x_adv.max() <= x.max()


def test_other_bounds_admit_other_images(attack):
    wide = kr.attacks.pgd(kr.LinfBall(0.1, (-1.0, 1.0)))
    assert wide(function, X - 0.6, Y).shape == X.shape


def test_dtypes_and_shapes_are_checked_in_a_graph_too(model, attack):
    with pytest.raises(TypeError, match="Divide uint8"):
        tf.function(lambda: attack(model, tf.zeros([4, 2, 2, 1], tf.uint8), Y))()
    with pytest.raises(ValueError, match="one class number per image"):
        tf.function(lambda: attack(model, X, np.eye(3, dtype=int)))()


# Seeds.


@pytest.mark.parametrize(
    ("seed", "pair"),
    [
        (7, [7, 0]),
        (np.int64(7), [7, 0]),
        (2**40, [2**40, 0]),
        ((7, 8), [7, 8]),
        (tf.constant(7), [7, 0]),
        (tf.constant([7, 8]), [7, 8]),
        (np.uint8(7), [7, 0]),
    ],
)
def test_seeds(seed, pair):
    assert as_seed(seed).numpy().tolist() == pair


@pytest.mark.parametrize("seed", [None, 1.5, True, "7", (1, 2, 3), [[1, 2]], 2**70])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match=r"seed is .*expected an integer"):
        as_seed(seed)


def test_seeds_and_seed_tensors_agree(attack):
    first = attack(function, X, Y, seed=7)
    np.testing.assert_array_equal(first, attack(function, X, Y, seed=(7, 0)))
    np.testing.assert_array_equal(first, attack(function, X, Y, seed=tf.constant([7, 0])))


def test_other_seeds_start_elsewhere():
    start = kr.attacks.pgd(BALL, steps=0)
    assert np.any(start(function, X, Y, seed=7) != start(function, X, Y, seed=8))


# Rounds.


def test_an_attack_is_one_round(attack):
    (only,) = attack.rounds(10)
    assert only == Round(attack) and only.targets(tf.constant(Y), None) is None


def test_rounds_fold_their_number_into_the_seed():
    seeds = [Round(None, fold).seed(5).numpy().tolist() for fold in range(4)]
    assert len({tuple(seed) for seed in seeds}) == 4
    assert Round(None, 2).seed((5, 0)).numpy().tolist() == seeds[2]


def test_rounds_count_targets_from_the_label():
    targets = Round(None, offset=2).targets(tf.constant([0, 1, 2]), tf.zeros([3, 3]))
    assert targets.numpy().tolist() == [2, 0, 1]


# Compiled attacks.


def test_compiled_is_the_attack(model, attack):
    compiled = attack.compiled(model)
    np.testing.assert_allclose(compiled(X, Y), attack(model, X, Y), atol=1e-6)
    np.testing.assert_allclose(compiled(X, Y, 3), attack(model, X, Y, seed=3), atol=1e-6)
    expected = attack.at_radius(0.25)(model, X, Y, seed=3)
    np.testing.assert_allclose(compiled(X, Y, 3, 0.25), expected, atol=1e-6)


def test_compiled_is_traced_once_for_seeds_and_radii(model, attack):
    compiled = attack.compiled(model)
    for seed in (0, 1, (2, 3), tf.constant([1, 1])):
        for radius in (0, 0.1, np.float32(0.2), tf.constant(0.3)):
            compiled(X, Y, seed, radius)
    assert compiled.traces() == 1


def test_compiled_is_traced_twice_for_batch_sizes(model, attack):
    compiled = attack.compiled(model)
    for count in (4, 3, 2, 1, 4):
        assert compiled(X[:count], Y[:count]).shape == X[:count].shape
    assert compiled.traces() <= 2


def test_compiled_follows_the_weights(make_linear):
    """The graph reads the variables; it does not keep the values of when it was traced."""
    model = make_linear(WEIGHTS, shape=(2, 2, 1))
    compiled = kr.attacks.fgsm(BALL).compiled(model)
    first = compiled(X, Y)
    dense = model.layers[-1]
    dense.set_weights([-WEIGHTS, np.zeros(3)])
    assert np.any(compiled(X, Y) != first)
    np.testing.assert_allclose(compiled(X, Y), kr.attacks.fgsm(BALL)(model, X, Y), atol=1e-6)


def test_compiled_passes_targets(model):
    attack = kr.attacks.fgsm(BALL, targeted=True)
    targets = (Y + 1) % 3
    found = attack.compiled(model)(X, Y, targets=targets)
    np.testing.assert_allclose(found, attack(model, X, Y, targets=targets), atol=1e-6)


@pytest.mark.parametrize(
    "radius", [-0.1, float("nan"), float("inf"), tf.constant(-0.1), "0.1", np.array([0.1, 0.2])]
)
def test_compiled_refuses_a_bad_radius(model, attack, radius):
    with pytest.raises((TypeError, ValueError), match="radius is"):
        attack.compiled(model)(X, Y, radius=radius)
