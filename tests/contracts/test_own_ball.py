"""A threat model of the user's own goes through every attack that takes any, the others refuse it.

A weighted Linf ball that has the members of `keras_robust.types.Ball` and no class of the library
among its bases. A new attack takes a side in `ANY_BALL` or `SOME_NORMS`.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from tests.contracts.attack_table import CLASSES, ONE_LOOP, ROWS, RUN_OTHERS

ANY_BALL = {
    "apgd",
    "bim",
    "boundary",
    "carlini_wagner",
    "deepfool",
    "ead",
    "fab",
    "fgsm",
    "hop_skip_jump",
    "in_each_ball",
    "mim",
    "multi_targeted",
    "multi_task",
    "per_member",
    "pgd",
    "r_fgsm",
    "restarts",
    "smooth_adv",
    "spsa",
    "transfer",
    "union_pgd",
    "worst_of",
}
SOME_NORMS = {
    "auto_attack",
    "brendel_bethge",
    "ddn",
    "fast_auto_attack",
    "fmn",
    "pdpgd",
    "pgd_l0",
    "sigma_zero",
    "sparse_rs",
    "square",
}


def weights(x):
    """By how much more than the radius a pixel may change, growing from row to row."""
    return tf.linspace(tf.constant(0.5, x.dtype), 2.0, x.shape[1])[:, None, None]


@keras.saving.register_keras_serializable("tests")
@dataclasses.dataclass(frozen=True)
class WeightedLinf:
    """Every pixel may change by at most its weight times the radius."""

    p: ClassVar[float | None] = None
    radius: float
    bounds: tuple[float, float] = (0.0, 1.0)

    def replace(self, *, radius=None, bounds=None):
        return WeightedLinf(
            self.radius if radius is None else radius, self.bounds if bounds is None else bounds
        )

    def limits(self, x):
        return tf.cast(self.radius, x.dtype) * weights(x)

    def clip(self, x):
        return tf.clip_by_value(x, *self.bounds)

    def sample(self, x, seed):
        noise = tf.random.stateless_uniform(tf.shape(x), seed, -1, 1, x.dtype)
        return self.clip(x + self.limits(x) * noise)

    def sample_sphere(self, x, seed):
        noise = tf.random.stateless_uniform(tf.shape(x), seed, -1, 1, x.dtype)
        largest = tf.reduce_max(tf.abs(noise), axis=[1, 2, 3], keepdims=True)
        return self.clip(x + self.limits(x) * noise / largest)

    def project(self, x_adv, x):
        limits = self.limits(x)
        return self.clip(tf.clip_by_value(x_adv, x - limits, x + limits))

    def steepest(self, gradient):
        return weights(gradient) * tf.sign(gradient)

    def distance(self, x_adv, x):
        delta = tf.convert_to_tensor(x_adv) - x
        return tf.reduce_max(tf.abs(delta) / weights(delta), axis=[1, 2, 3])

    def dual_norm(self, gradient):
        return tf.reduce_sum(tf.abs(gradient) * weights(gradient), axis=[1, 2, 3])

    def project_onto_hyperplane(self, x, normal, value):
        """`d = clip(-sign(value normal) t w)`; bisection finds the `t` that reaches the plane."""
        low, high = self.bounds[0] - x, self.bounds[1] - x
        value = value[:, None, None, None]
        direction = -tf.sign(value) * tf.sign(normal) * weights(x)
        span = tf.constant((self.bounds[1] - self.bounds[0]) / 0.5, x.dtype)
        least, most = tf.zeros_like(value), span * tf.ones_like(value)
        for _ in range(40):
            t = (least + most) / 2
            step = tf.clip_by_value(direction * t, low, high)
            covered = -tf.sign(value) * tf.reduce_sum(normal * step, axis=[1, 2, 3], keepdims=True)
            enough = covered >= tf.abs(value)
            least, most = tf.where(enough, least, t), tf.where(enough, t, most)
        return tf.clip_by_value(direction * most, low, high)

    def get_config(self):
        return {"radius": self.radius, "bounds": list(self.bounds)}

    @classmethod
    def from_config(cls, config):
        return cls(config["radius"], tuple(config["bounds"]))


BALL = WeightedLinf(0.08)
MEMBERS = [name for name in vars(kr.types.Ball) if not name.startswith("_")]


def rows(names):
    return [name for name in ROWS if name.split()[0] in names]


def test_every_attack_takes_a_side():
    assert set(kr.attacks.__all__) == ANY_BALL | SOME_NORMS
    assert not ANY_BALL & SOME_NORMS


def test_a_ball_is_what_has_the_members():
    assert isinstance(BALL, kr.types.Ball)
    assert not any(cls.__module__.startswith("keras_robust") for cls in WeightedLinf.__mro__)


def is_repetition(name):
    """Whether an attack meets the ball inside of another row, or in the loop of `pgd`."""
    return " " in name or ROWS[name].slow or name in (*RUN_OTHERS, *ONE_LOOP, "multi_task")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * is_repetition(name)) for name in rows(ANY_BALL)],
)
def test_results_are_inside_it(name, models, batch):
    row, x = ROWS[name], tf.constant(batch[0])
    model = models[row.members]
    y = row.labels(model, batch)
    targets = {"targets": (y + 1) % CLASSES} if row.targeted else {}
    attack = row.build(BALL)
    compiled, changed = attack.compiled(model), []
    for radius in (BALL.radius, BALL.radius / 2, 0.0):
        ball = BALL.replace(radius=radius)
        for x_adv in tf.nest.flatten(compiled(x, y, 1, radius, **targets)):
            assert x_adv.shape == x.shape and x_adv.dtype == x.dtype
            assert np.isfinite(x_adv).all()
            assert ball.distance(x_adv, x).numpy().max() <= radius * (1 + 1e-5)
            assert x_adv.numpy().min() >= 0 and x_adv.numpy().max() <= 1
            changed.append(bool(np.any(x_adv != x)))
    assert changed[0] and not changed[-1]
    assert attack.at_radius(0.01, step_size=0.01).ball == BALL.replace(radius=0.01)


@pytest.mark.parametrize("name", rows(SOME_NORMS))
def test_other_attacks_refuse_it_at_once(name):
    with pytest.raises(TypeError, match=r"is defined in L.*; ball is WeightedLinf\("):
        ROWS[name].build(BALL)


@pytest.mark.slow
def test_a_ball_that_names_its_norm_goes_through_them_too(models, batch):
    """With weights of 1 it is the Linf ball, which `p` may say."""

    class Plain(WeightedLinf):
        p = np.inf

        def replace(self, *, radius=None, bounds=None):
            return Plain(self.radius if radius is None else radius, bounds or self.bounds)

        def limits(self, x):
            return tf.cast(self.radius, x.dtype)

    for name in ("square", "brendel_bethge"):
        x, y = batch[0], ROWS[name].labels(models[0], batch)
        x_adv, expected = (
            ROWS[name].build(ball).compiled(models[0])(x, y)
            for ball in (Plain(0.08), kr.LinfBall(0.08))
        )
        if name == "square":
            np.testing.assert_allclose(x_adv, expected, atol=1e-6)
        assert np.abs(x_adv - x).max() <= 0.08 * (1 + 1e-5)


def test_it_is_used_and_not_another_norm(models, batch):
    """FGSM changes every pixel by its own limit; FAB's distances are measured with the weights."""
    x = tf.clip_by_value(batch[0], 0.2, 0.8)
    y = ROWS["fab"].labels(models[0], (x, None))
    moved = tf.abs(kr.attacks.fgsm(BALL)(models[0], x, y) - x)
    expected = np.where(moved > 0, BALL.limits(x), 0)  # a pixel without a gradient stays
    np.testing.assert_allclose(moved, expected, atol=1e-6)
    assert np.mean(moved > 0) > 0.5
    far = WeightedLinf(4.0)
    x_adv = kr.attacks.fab(far, 10).compiled(models[0])(x, y)
    plain = kr.attacks.fab(kr.LinfBall(1.0), 10).compiled(models[0])(x, y)
    fooled = kr.losses.misclassified(models[0](x_adv)["logits"], y).numpy()
    assert fooled.all()
    assert np.mean(far.distance(x_adv, x)) < np.mean(far.distance(plain, x))


def test_a_config_holds_it():
    attack = kr.attacks.apgd(BALL, 3)
    stored = keras.saving.serialize_keras_object(attack)
    assert keras.saving.deserialize_keras_object(stored) == attack


def test_an_evaluation_reports_it(models, batch):
    report = kr.evaluation.evaluate(models[0], batch, kr.attacks.pgd(BALL, 2))
    assert report.radius == BALL.radius and "WeightedLinf" in report.threat_model


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("factory", [kr.attacks.pgd, kr.attacks.apgd, kr.attacks.fab])
def test_what_lacks_a_member_is_refused_by_its_name(factory, member):
    partial = type("Partial", (), {name: None for name in MEMBERS if name != member})
    with pytest.raises(TypeError, match=rf"Partial.*which lacks {member}; expected a threat model"):
        factory(partial())
