"""Gradients of a soft-ball attack, on paper."""

from __future__ import annotations

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation import gradient_strengths

X = np.array([[0.5, 0.5], [0.5, 0.5]], "float32")


def soft(**settings):
    rule = kr.step_rules.SoftBallStep(0.2, multiplier=0.0, tau=0.5, **settings)
    attack = kr.attacks.pgd(kr.LinfBall(0.1), 1, 0.2, loss="margin", initialization="none")
    return kr.replace(attack, step_rule=rule)


@pytest.mark.parametrize(
    ("penalty", "pull"),
    [
        ("elementwise", (0.2 - 0.1) / 0.5),  # the part outside
        ("pixelwise", 0.2 / 0.5),
        ("l2", 0.2),  # half the square of the image, 0.04, is inside the radius
    ],
)
def test_both_gradients(penalty, pull):
    """The margin of label 0 rises by `z_1 - 3 z_0`: the step ends at (-0.2, 0.2), unpenalized by
    a multiplier of 0, which the gradient of the cost leaves out."""
    found = gradient_strengths(
        lambda x: {"logits": x * [3.0, 1.0]}, (X, [0, 0]), soft(penalty=penalty)
    )
    np.testing.assert_allclose(found.push, [[-3, 1]] * 2)
    np.testing.assert_allclose(found.pull, [[-pull, pull]] * 2, rtol=1e-5)
    assert found.quantiles(1.0) == pytest.approx((3, pull))


def test_another_step_rule():
    with pytest.raises(ValueError, match="step rule FixedStep.*expected a `SoftBallStep`"):
        gradient_strengths(lambda x: {"logits": x}, (X, [0, 0]), kr.attacks.fgsm(kr.LinfBall(0.1)))
