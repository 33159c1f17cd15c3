"""What all tests share: a quiet TensorFlow, a clean state, and models small enough to be quick."""

from __future__ import annotations

import gc
import os
import random

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the first import of TensorFlow

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr

# Every run tries the same examples: a test that fails, fails again.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True, max_examples=40)
hypothesis.settings.load_profile("same")
gc.set_threshold(200_000, 50, 100)  # tracing makes millions of objects: a fifteenth of the time
tf.get_logger().setLevel("ERROR")  # one model after another is traced on purpose
# A second device for the tests of `tf.distribute`; it has to be there before the first is used.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

pytest_plugins = ["tests.run_fixtures"]


def pytest_collection_finish() -> None:
    """What is imported stays: no collection of garbage has to look at it again."""
    gc.freeze()


SHAPE = (6, 6, 1)
CLASSES = 3
FGSM = kr.attacks.fgsm(kr.LinfBall(0.1))


@pytest.fixture(autouse=True)
def clean_state():
    """Seeds before a test; the dtype policy and eager functions put back after it.

    Keras draws the seeds of weights and of dropout from Python's generator, and the library passes
    its own: TensorFlow's global seed decides nothing, and setting it throws away every compiled
    kernel, a tenth of a second a test. `keras.utils.clear_session` is not called either: it would
    rob session fixtures of their state, and nothing depends on the names that Keras counts up.
    """
    random.seed(0)
    np.random.seed(0)
    yield
    keras.config.set_dtype_policy("float32")
    tf.config.run_functions_eagerly(False)


def build_classifier(shape=SHAPE, classes=CLASSES, *, seed=0, dropout=0.25, regularizer=None):
    """A random convolutional classifier whose batch norm has seen other images already."""
    random.seed(seed)
    inputs = keras.Input(shape)
    x = keras.layers.Rescaling(4.0, -2.0)(inputs)
    x = keras.layers.Conv2D(4, 3, strides=2, kernel_regularizer=regularizer)(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = keras.layers.Activation("tanh")(x)
    x = keras.layers.Flatten()(x)
    features = keras.layers.Dropout(dropout)(x) if dropout else x
    logits = keras.layers.Dense(classes, dtype="float32", name="logits")(features)
    model = keras.Model(inputs, {"logits": logits, "features": features}, name="tiny")
    statistics = model.layers[3].non_trainable_variables
    for variable, value in zip(statistics, (0.3, 1.7), strict=True):
        variable.assign(tf.fill(variable.shape, value))
    return model


def build_linear(weights, bias=None, shape=None):
    """`logits = flat(x) @ weights + bias`, whose adversarial examples are formulas."""
    weights = np.asarray(weights, "float32")
    bias = np.zeros(weights.shape[1], "float32") if bias is None else np.asarray(bias, "float32")
    inputs = keras.Input(shape or (weights.shape[0], 1, 1))
    features = keras.layers.Flatten()(inputs)
    dense = keras.layers.Dense(weights.shape[1], dtype="float32")
    model = keras.Model(inputs, {"logits": dense(features), "features": features}, name="linear")
    dense.set_weights([weights, bias])
    return model


def build_robust(classifier, attack=FGSM, loss=None, optimizer=None, eager=True, **settings):
    """A model ready to train; eager, so that a test of one step need not trace it."""
    loss = loss or kr.losses.Adversarial()
    model = kr.RobustModel(classifier, attack, loss, **settings)
    model.compile(optimizer or keras.optimizers.SGD(1.0), run_eagerly=eager)
    return model


def fit_one_batch(model, x, y, **settings):
    """One step of `fit` on all examples in their order; its history."""
    return model.fit(x, y, batch_size=len(x), shuffle=False, verbose=0, **settings).history


def build_batch(count, shape=SHAPE, classes=CLASSES, seed=0):
    """Random images over the whole range, and labels that name every class."""
    images = np.random.default_rng(seed).random((count, *shape)).astype("float32")
    return images, np.arange(count) % classes


@pytest.fixture(scope="session")
def make_classifier():
    """`build_classifier`: a new small classifier at every call."""
    return build_classifier


@pytest.fixture(scope="session")
def make_linear():
    """`build_linear`: a linear classifier with given weights."""
    return build_linear


@pytest.fixture(scope="session")
def make_robust():
    """`build_robust`: a compiled `RobustModel` around a classifier, attacked by FGSM."""
    return build_robust


@pytest.fixture(scope="session")
def fit_once():
    """`fit_one_batch`: one step of `fit` on a whole data set."""
    return fit_one_batch


@pytest.fixture(scope="session")
def make_batch():
    """`build_batch`: images and labels as NumPy arrays."""
    return build_batch


@pytest.fixture
def tiny_classifier():
    """A small classifier of this test's own: convolution, batch norm, dropout; 3 classes."""
    return build_classifier()


@pytest.fixture(scope="session")
def tiny_batch():
    """Eight images `[8, 6, 6, 1]` and their labels `[8]`."""
    return build_batch(8)


def read_variables(model):
    """Copies of all variables of a model: weights, statistics, seeds of random layers."""
    return [variable.numpy() for variable in model.variables]


@pytest.fixture(scope="session")
def values_of():
    """`read_variables`: copies of all variables of a model."""
    return read_variables


@pytest.fixture(scope="session")
def two_replicas():
    """A strategy of two replicas on this processor."""
    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
