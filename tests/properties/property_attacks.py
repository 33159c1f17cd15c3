"""Attacks of the contract table on a classifier with adjustable defects, in any dtype."""

from __future__ import annotations

import numpy as np
import property_draws as draw
import property_reference as reference
import tensorflow as tf

from keras_robust.core.numerics import upcast_half
from tests.contracts.attack_table import CLASSES
from tests.contracts.attack_table import ROWS as TABLE

# Left out: attacks on ensembles, which run another row on each member or the same attack on other
# tasks, and transfer attacks, which run another row on another model. Attacks in L0 alone are in
# test_l0.py.
ROWS = {
    name: row
    for name, row in TABLE.items()
    if row.per_image and not row.members and not row.transferred and row.norms != ("l0",)
}
# Dtype, bounds and shape of an image.
SETTINGS = (
    (tf.float32, (0.0, 1.0), (2, 3, 2)),
    (tf.float64, (-1.0, 3.0), (12,)),
    (tf.float16, (0.0, 255.0), (2, 3, 2)),
    (tf.bfloat16, (-0.1, 0.7), (12,)),
)


SCALES = {
    "plain": 3.0,
    "huge": 1e30,
    "constant": 0.0,
    "coarse": 0.5,
    "saturated": 1e4,
    "tiny": 1e-30,
    "poisoned": 3.0,
}


class Classifier:
    """Two layers; their weights and the defects of the gradient are variables, so one trace serves.

    Takes images of any dtype and computes in float32 or float64. `scale` makes logits
    huge, vanishing or constant; `coarse` rounds them to integers, so that many are tied;
    `poison` is added to the gradient in the images whose first pixel is in the lower half of the
    range, in every pixel where it is not 0.
    """

    def __init__(self, bounds, dtype):
        self.low, self.high = bounds
        self.dtype = reference.wide(dtype)
        self.first = tf.Variable(tf.zeros([draw.PIXELS, 8], self.dtype))
        self.second = tf.Variable(tf.zeros([8, CLASSES], self.dtype))
        self.scale = tf.Variable(tf.ones([], self.dtype))
        self.coarse = tf.Variable(False)
        self.poison = tf.Variable(tf.zeros([draw.PIXELS], self.dtype))

    def __call__(self, x):
        x = tf.reshape(upcast_half(x), [-1, draw.PIXELS])

        @tf.custom_gradient
        def poisoned(x):
            is_poisoned = x[:, :1] < (self.low + self.high) / 2
            return tf.identity(x), lambda g: tf.where(is_poisoned, g + self.poison, g)

        hidden = tf.tanh((poisoned(x) - self.low) / (self.high - self.low) @ self.first)
        logits = self.scale * (hidden @ self.second)
        to_integer = tf.round(logits) - logits  # exact, and so is its sum with the logits
        return {"logits": logits + tf.stop_gradient(tf.where(self.coarse, to_integer, 0))}

    def change(self, random, kinds=tuple(SCALES)):
        """New weights of one of the kinds; saturated: a softmax of zeros and ones exactly."""
        kind = random.choice(kinds)
        self.coarse.assign(kind == "coarse")
        self.first.assign(random.normal(size=self.first.shape))
        self.second.assign(random.normal(size=self.second.shape))
        self.scale.assign(SCALES[kind])
        poison = random.choice([0.0, np.nan, np.inf, -np.inf, 1e35], draw.PIXELS)
        self.poison.assign(poison if kind == "poisoned" else np.zeros(draw.PIXELS))


class Trial:
    """One attack in one kind of ball and one setting, compiled once for all radii and steps."""

    def __init__(self, row, kind, setting, model=None):
        self.row = row
        self.dtype, self.bounds, self.shape = setting
        self.width = self.bounds[1] - self.bounds[0]
        self.model = model or Classifier(self.bounds, self.dtype)
        self.attack = self.row.build(kind(self.width / 5, self.bounds))
        real = reference.wide(self.dtype)
        self.run = tf.function(
            self._run,
            autograph=False,
            input_signature=[
                tf.TensorSpec([None, *self.shape], self.dtype),
                tf.TensorSpec([None], tf.int64),
                tf.TensorSpec([None], tf.int64),
                tf.TensorSpec([2], tf.int64),
                tf.TensorSpec([], real),
                tf.TensorSpec([], real),
            ],
        )
        self.logits = tf.function(lambda x: self.model(x)["logits"], autograph=False)

    def _run(self, x, y, targets, seed, radius, size):
        attack = self.attack.at_radius(radius, size)
        extra = {"targets": targets} if self.row.targeted else {}
        return attack(self.model, x, y, seed=seed, **extra)

    def draw(self, batch):
        """Images, labels, targets and seed, radius and step of a batch, as tensors."""
        random, real = batch.random, reference.wide(self.dtype)
        x = draw.images(random, batch.count, self.shape, self.bounds, self.dtype)
        y = random.integers(0, CLASSES, batch.count)
        targets = (y + random.integers(1, CLASSES, batch.count)) % CLASSES
        return (
            tf.constant(x, self.dtype),
            tf.constant(y, tf.int64),
            tf.constant(targets, tf.int64),
            tf.constant([batch.seed, batch.count], tf.int64),
            tf.constant(draw.rounded(batch.radius * self.width, real), real),
            tf.constant(draw.rounded(batch.size * self.width, real), real),
        )


def margins(logits, y):
    """The margins (best other logit minus that of the label) and misclassifications, in NumPy."""
    logits, y = np.asarray(logits, np.float64), np.asarray(y)
    own = np.take_along_axis(logits, y[:, None], 1)
    others = np.where(np.arange(logits.shape[1]) == y[:, None], -np.inf, logits)
    return others.max(axis=1) - own[:, 0], logits.argmax(axis=1) != y


def trial(name, kind, setting, trials={}):  # noqa: B006, the default is a cache
    """The trial; compiled at its first use."""
    key = (name, kind, setting)
    if key not in trials:
        trials[key] = Trial(ROWS[name], kind, SETTINGS[setting])
    return trials[key]


def kinds_of(name):
    """The balls of the properties in which an attack is defined."""
    return [kind for norm, kind in reference.BALLS.items() if norm in ROWS[name].norms]


def one_trial(name):
    """A trial of an attack, in a ball and a setting that differ from attack to attack."""
    number = 7 * list(ROWS).index(name)
    kinds = kinds_of(name)
    return trial(name, kinds[number // len(SETTINGS) % len(kinds)], number % len(SETTINGS))
