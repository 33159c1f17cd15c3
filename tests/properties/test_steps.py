"""Single steps from any point of the ball, along any gradient, of any size."""

from __future__ import annotations

import numpy as np
import property_draws as draw
import property_reference as reference
import pytest
import tensorflow as tf
from property_draws import BATCHES, hold, in_draws

import keras_robust as kr
from keras_robust.attacks.crafting import step_rules
from keras_robust.attacks.crafting.step_rules import (
    FixedStep,
    MeanGradientStep,
    MomentumStep,
    PenalizedStep,
    Point,
    SoftBallStep,
    UnprojectedStep,
)

RULES = {
    "fixed": FixedStep,
    "mean gradient": MeanGradientStep,
    "momentum": MomentumStep,
    "momentum of 0": lambda size: MomentumStep(size, 0.0),
    "momentum, exploding": lambda size: MomentumStep(size, 1e30),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
every_ball = pytest.mark.parametrize("kind", reference.BALLS.values(), ids=reference.BALLS)
every_dtype = pytest.mark.parametrize("dtype", draw.DTYPES, ids=lambda dtype: dtype.name)


def test_every_rule_is_here():
    """Of those that project onto the ball."""
    public = {getattr(step_rules, name) for name in step_rules.__all__}
    rules = {member for member in public if hasattr(member, "update")}
    assert rules - {SoftBallStep, PenalizedStep, UnprojectedStep} == {
        type(build(1.0)) for build in RULES.values()
    }


class Walk:
    """A few steps of one rule around a batch, with new gradients at each."""

    def __init__(self, rule, kind, dtype, batch):
        random = batch.random
        bounds = draw.BOUNDS[random.integers(len(draw.BOUNDS))]
        self.shape = draw.SHAPES[random.integers(len(draw.SHAPES))]
        width = bounds[1] - bounds[0]
        self.batch, self.random, self.dtype = batch, random, dtype
        self.x = draw.images(random, batch.count, self.shape, bounds, dtype)
        radius = tf.constant(batch.radius * width, reference.wide(dtype))
        self.ball = kr.replace(kind(0.0, bounds), radius=radius)
        self.width, self.rule = width, rule(batch.size * width)
        self.centre = tf.constant(self.x, dtype)
        self.now = self.ball.sample(self.centre, tf.constant([batch.seed, 3], tf.int64))
        self.state = self.rule.init(self.ball, self.now)

    def step(self, gradient):
        point = Point(tf.constant(0), self.now, None, tf.constant(gradient, self.dtype))
        self.now, self.state = self.rule.update(self.ball, self.centre, point, self.state)
        assert self.now.dtype == self.dtype and self.now.shape == self.x.shape
        return draw.exact(self.now.numpy())


@every_dtype
@every_ball
@every_rule
@in_draws(300)
def test_steps_stay_inside(rule, kind, dtype, draws):
    def check(batch):
        walk = Walk(rule, kind, dtype, batch)
        for _ in range(3):
            gradient = draw.gradients(walk.random, batch.count, walk.shape, dtype)
            moved = walk.step(gradient)
            reference.assert_inside(walk.ball, float(walk.ball.radius), moved, walk.x, dtype)
        return len(walk.x)

    hold(draws, BATCHES, check)


@every_ball
@every_rule
@in_draws(1000)
def test_a_step_is_at_most_its_size(rule, kind, draws):
    """A projection brings a point of the ball and one a step away no further apart; in the norm of
    the ball a step has its size, and no norm here is smaller than Linf nor larger than L1."""

    def check(batch):
        walk = Walk(rule, kind, tf.float64, batch)
        before = draw.exact(walk.now.numpy())
        after = walk.step(draw.gradients(walk.random, batch.count, walk.shape, tf.float64))
        euclidean = {kr.LinfBall: draw.PIXELS**0.5, kr.L2Ball: 1.0, kr.L1Ball: 1.0}[kind]
        if rule is MeanGradientStep:  # all of the gradient in one value, in units of the range
            euclidean = draw.PIXELS * walk.width
        length = reference.norm(kr.L2Ball, reference.flat(after) - reference.flat(before))
        slack = 1e-12 * float(walk.ball.radius) + 1e-13 * np.abs(walk.x).max(initial=1)
        assert (length <= euclidean * walk.rule.size * (1 + 1e-12) + slack).all()
        return len(walk.x)

    hold(draws, BATCHES, check)


@every_dtype
@every_ball
@every_rule
@in_draws(300)
def test_the_first_step_follows_the_gradient(rule, kind, dtype, draws):
    """From the image itself, whatever the size and the bounds cut off: every pixel moves along the
    sign of its gradient, or not at all."""

    def check(batch):
        walk = Walk(rule, kind, dtype, batch)
        walk.now = walk.centre
        gradient = draw.gradients(walk.random, batch.count, walk.shape, dtype)
        moved = walk.step(gradient) - walk.x
        subnormal = np.abs(moved) < draw.TINY[reference.wide(dtype)]  # may be 0 to a processor
        assert (np.where(subnormal, 0, moved) * np.sign(gradient) >= 0).all()
        return len(walk.x)

    hold(draws, BATCHES, check)
