"""Checks fail on models made to fail them, and pass on a plain one.

Images of the bumpy models are a single pixel at 0.5; the label is class 0, whose output is 0, and
that of class 1 is a function of `u`, the change of the pixel: the image is fooled where it is > 0.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation import Check, evaluate, sanity_checks
from keras_robust.evaluation.sanity_checks import _CHECKS

RANDOM = np.random.default_rng(0)
FIRST, SECOND = (RANDOM.normal(size=size).astype("float32") for size in ((6, 16), (16, 3)))
BALL = kr.LinfBall(0.05)
X = RANDOM.random((40, 6)).astype("float32")


def plain(x):
    return {"logits": tf.tanh((x - 0.5) @ FIRST) @ SECOND}


Y = plain(X)["logits"].numpy().argmax(1)
MIDDLE = (np.floor(X * 8) + 0.5) / 8  # of the steps of `rounded`
EIGHTHS = MIDDLE, plain(MIDDLE)["logits"].numpy().argmax(1)
GRAY = np.full((40, 1), 0.5, "float32"), np.zeros(40, int)


def rounded(x):
    return plain((tf.floor(x * 8) + 0.5) / 8)


def rounded_with_a_gradient(x):
    """Hands the gradient through the rounding (straight through)."""
    return plain(x + tf.stop_gradient((tf.floor(x * 8) + 0.5) / 8 - x))


def saturated(x):
    return {"logits": 1e4 * plain(x)["logits"]}


def random(x):
    return plain(x + tf.random.normal(tf.shape(x), stddev=0.01))


def softmax(x):
    return {"logits": tf.nn.softmax(plain(x)["logits"])}


@tf.custom_gradient
def backwards(x):
    """The identity, whose gradient leads the wrong way."""
    return tf.identity(x), lambda gradient: -gradient


def bumpy(of_change):
    return lambda x: {"logits": tf.concat([0 * x, of_change(x - 0.5)], axis=1)}


# A hill at 0.02 below zero, flat land, and what is fooled beyond 0.048, where no slope leads.
hill = bumpy(lambda u: tf.nn.relu(0.03 - tf.abs(u - 0.02)) - 1 + 3 * tf.cast(u > 0.048, u.dtype))
# A peak at 0.02, above zero within 0.01.
peak = bumpy(lambda u: 0.01 - tf.abs(u - 0.02))


def named(model, data, *only, ball=BALL, **settings):
    found = sanity_checks(model, data, ball, only=only or None, **settings)
    return {one.name: one for one in found}


@pytest.mark.parametrize(
    "ball",
    [pytest.param(BALL, id="linf"), pytest.param(kr.L2Ball(0.15), id="l2", marks=pytest.mark.slow)],
)
def test_a_plain_model_passes_all(ball):
    found = named(plain, (X, Y), ball=ball)
    assert set(found) == set(_CHECKS)
    assert [one for one in found.values() if not one.passed] == []
    assert found["radius"].value == found["repeatability"].value == 0


def test_a_ball_of_the_users_own_has_all_checks_but_square(own_ball):
    found = named(plain, (X, Y), ball=own_ball(0.05), steps=5)
    assert set(_CHECKS) - set(found) == {"gradient-free attacks"}
    with pytest.raises(TypeError, match="Square is defined in"):
        named(plain, (X, Y), "gradient-free attacks", ball=own_ball(0.05), steps=5)


def test_a_rounded_input_has_no_gradient_and_hides_small_changes():
    """In the middle of a step, 1/16 from its ends, a hundredth of the radius changes nothing."""
    found = named(rounded, EIGHTHS, ball=kr.LinfBall(0.07))
    assert not found["gradients"].passed and found["gradients"].value == 1
    assert not found["small changes"].passed and found["small changes"].value == 1
    assert not {"one step", "steps", "radius"} & set(found)  # need a gradient


def test_a_gradient_handed_through_the_rounding_does_not_hide_it():
    found = named(rounded_with_a_gradient, EIGHTHS, "gradients", "small changes")
    assert found["gradients"].passed
    assert not found["small changes"].passed and found["small changes"].value == 1


def test_saturated_outputs_have_no_gradient_where_attacks_could_follow_it():
    found = named(saturated, (X, Y), "gradients", "radius", "gradient-free attacks")
    assert not found["gradients"].passed and found["gradients"].value > 0.9
    # The model predicts what the plain one does: it can be fooled everywhere, and PGD fails.
    assert not found["radius"].passed and found["radius"].value > 0.1
    # The margin does not saturate, so nothing is left for an attack without gradients.
    assert found["gradient-free attacks"].passed


def test_multiples_of_the_radius_stay_within_the_range():
    """Twice 0.4 is within the range of a pixel, four times is not, which an `LinfBall` refuses."""
    (found,) = sanity_checks(plain, (X, Y), kr.LinfBall(0.4), only=["radius"], steps=2)
    assert "at 1, 2 times the radius and with unlimited changes" in found.message


def test_noise_fails_repeatability():
    found = named(random, (X, Y), "repeatability", "small changes")
    assert not found["repeatability"].passed and found["repeatability"].value > 0.01
    assert found["small changes"].passed


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_a_softmax_in_the_logits_is_seen_whatever_its_scale(scale):
    def scaled(x):
        return {"logits": scale * softmax(x)["logits"]}

    (found,) = sanity_checks(scaled, (X, Y), BALL, only=["logits"])
    assert not found.passed and found.value < 1e-5


def test_a_log_softmax_passes():
    """It is the logits up to a shift, which does not change any loss."""
    found = sanity_checks(
        lambda x: {"logits": tf.math.log(softmax(x)["logits"])}, (X, Y), BALL, only=["logits"]
    )
    assert found[0].passed


def test_one_step_beats_many_on_a_hill():
    """One step of 0.05 lands beyond 0.048; PGD ascends the hill, or stays where it is flat, and is
    beyond 0.048 only if it started there, as 2% do."""
    (found,) = sanity_checks(hill, GRAY, BALL, only=["one step"])
    assert not found.passed and found.value > 0.9
    assert found.message.startswith("The accuracy is 0.0% after one step (FGSM) and ")


def test_too_few_steps_fail_a_check():
    """Steps of 2.5 * 0.05 / 4 = 0.031 end anywhere within 0.031 of the peak, so beyond 0.01 in two
    thirds of the images; steps of a quarter of that end within 0.008, and fool all."""
    (found,) = sanity_checks(peak, GRAY, BALL, only=["steps"], steps=4)
    assert not found.passed and found.value == pytest.approx(2 / 3, abs=0.2)
    assert "use more steps" in found.message


def test_a_gradient_that_leads_the_wrong_way():
    found = named(lambda x: plain(backwards(x)), (X, Y), "radius", "gradient-free attacks")
    assert not found["radius"].passed and found["radius"].value > 0.9
    assert not found["gradient-free attacks"].passed


def test_outputs_that_are_not_finite_are_left_to_the_report():
    def ill(x):
        logits = plain(x)["logits"]
        return {"logits": tf.where(x[:, :1] < 0.2, np.nan, logits)}

    found = named(ill, (X, Y), "gradients", "logits", "repeatability", "small changes")
    assert [one.passed for one in found.values()].count(False) <= 1  # some have no gradient
    assert found["repeatability"].value == 0 and found["logits"].value > 0


def test_checks_are_part_of_the_report():
    found = sanity_checks(softmax, (X, Y), BALL, only=["logits", "repeatability"])
    report = evaluate(softmax, (X, Y), kr.attacks.fgsm(BALL), checks=found)
    assert report.checks == found
    assert [one.passed for one in found] == [False, True]


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match=r"only names \['speed'\]; expected some of gradients"):
        sanity_checks(plain, (X, Y), BALL, only=["speed"])
    with pytest.raises(ValueError, match=r"ball.radius is 0.0; expected a finite number > 0"):
        sanity_checks(plain, (X, Y), kr.LinfBall(0.0))
    with pytest.raises(ValueError, match="none of the 40 images correctly"):
        sanity_checks(plain, (X, (Y + 1) % 3), BALL)
    with pytest.raises(ValueError, match="value is nan"):
        Check("steps", True, np.nan, "")


def test_the_number_of_images_and_warnings_are_said():
    lines = []
    x, y = np.full((7, 2), 0.5, "float32"), np.arange(7) % 2
    settings = {"only": ["gradients"], "limit": 6, "progress": lines.append}
    (check,) = sanity_checks(lambda x: {"logits": x}, (x, y), kr.LinfBall(0.1), **settings)
    assert check.message.endswith("Measured on 6 images.")
    assert any(line.startswith("warning: The clean accuracy of 50.0%") for line in lines)
