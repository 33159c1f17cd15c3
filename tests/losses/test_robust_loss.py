"""Losses on outputs: their terms, what they need, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import losses
from keras_robust.core.types import RobustLoss
from keras_robust.losses.robust_loss import Adversarial, Clean, SumOfLosses, check_loss, total

Y = tf.constant([0, 1])
CLEAN = {"logits": tf.constant([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]])}
MOVED = {"logits": tf.constant([[0.0, 1.0, 2.0], [2.0, 0.0, 1.0]])}
ON_CLEAN = losses.cross_entropy(CLEAN["logits"], Y)
ON_MOVED = losses.cross_entropy(MOVED["logits"], Y)


def test_clean():
    loss = Clean()
    assert (loss.term_names, loss.required_outputs) == (("clean",), {"clean"})
    np.testing.assert_array_equal(loss(Y, None, CLEAN)["clean"], ON_CLEAN)


def test_adversarial_needs_clean_outputs_only_where_they_weigh():
    loss = Adversarial()
    assert (loss.term_names, loss.required_outputs) == (("adversarial",), {"adversarial"})
    terms = loss(Y, MOVED, None)
    assert set(terms) == {"adversarial"}
    np.testing.assert_array_equal(terms["adversarial"], ON_MOVED)


def test_adversarial_with_weights():
    loss = Adversarial(clean_weight=0.5, adversarial_weight=2.0)
    assert (loss.term_names, loss.required_outputs) == (
        ("adversarial", "clean"),
        {"adversarial", "clean"},
    )
    terms = loss(Y, MOVED, CLEAN)
    np.testing.assert_allclose(terms["adversarial"], 2 * ON_MOVED)
    np.testing.assert_allclose(terms["clean"], 0.5 * ON_CLEAN)


def test_the_worst_case_is_weighed_against_the_clean_images():
    """0.25 CE(x) + 0.75 CE(worst); verified where no other class reaches the label."""
    loss = losses.WorstCase(0.25)
    assert loss.term_names == ("clean", "worst_case")
    assert loss.required_outputs == {"clean", "bounds"}
    worst = {"logits": tf.constant([[0.0, -1.0, -2.0], [0.0, 0.0, -1.0]])}
    values = loss(Y, worst, CLEAN)
    np.testing.assert_allclose(values["clean"], 0.25 * ON_CLEAN)
    np.testing.assert_allclose(
        values["worst_case"], 0.75 * losses.cross_entropy(worst["logits"], Y)
    )
    assert values["verified_accuracy"].numpy().tolist() == [1.0, 0.0]
    nan = {"logits": tf.fill([2, 3], math.nan)}
    assert loss(Y, nan, CLEAN)["verified_accuracy"].numpy().tolist() == [0.0, 0.0]


def test_sum_has_the_terms_of_its_parts():
    loss = SumOfLosses((Adversarial(), Clean()))
    assert (loss.term_names, loss.required_outputs) == (
        ("adversarial", "clean"),
        {"adversarial", "clean"},
    )
    terms = loss(Y, MOVED, CLEAN)
    np.testing.assert_array_equal(terms["adversarial"], ON_MOVED)
    np.testing.assert_array_equal(terms["clean"], ON_CLEAN)


def test_sum_of_sums():
    assert SumOfLosses((SumOfLosses((Clean(),)), Adversarial())).term_names == (
        "clean",
        "adversarial",
    )


class Counting(RobustLoss):
    """A loss of a whole batch that counts it."""

    term_names, required_outputs = ("spread",), frozenset({"clean"})
    logged_statistics, batch_level = ("size",), True

    def __call__(self, y, adversarial, clean):
        value = tf.reduce_sum(tf.abs(clean["logits"] - tf.reduce_mean(clean["logits"], 0)), axis=1)
        return {"spread": value, "size": tf.fill(tf.shape(value), float(len(value)))}


def test_sum_has_the_statistics_of_its_parts_and_is_of_a_batch_if_one_is():
    both = SumOfLosses((Clean(), Counting()))
    assert both.term_names == ("clean", "spread")
    assert both.logged_statistics == ("size",) and both.batch_level
    one = SumOfLosses((Clean(),))
    assert one.logged_statistics == () and not one.batch_level and not one.per_member
    with pytest.raises(ValueError, match="a term 'size', 'spread'; expected different"):
        SumOfLosses((Counting(), SumOfLosses((Counting(),))))


def test_a_loss_defines_its_terms_and_inherits_the_rest():
    class Nothing(RobustLoss):
        term_names = ("nothing",)

        def __call__(self, y, adversarial, clean):
            return {"nothing": tf.zeros(tf.shape(y))}

    loss = Nothing()
    check_loss(loss)
    assert loss.required_outputs == {"clean", "adversarial"} and loss.logged_statistics == ()
    assert not loss.batch_level and not loss.per_member

    class WithoutTerms(RobustLoss):
        def __call__(self, y, adversarial, clean):
            return {}

    with pytest.raises(TypeError, match="abstract.* term_names"):
        WithoutTerms()


def test_a_loss_of_the_interface_before_0_2_is_refused():
    class Former:
        names, needs = ("clean",), frozenset({"clean"})

        def __call__(self, y, adversarial, clean):
            return {"clean": tf.zeros(tf.shape(y))}

    with pytest.raises(TypeError, match=r"expected a robust loss.*subclass of .*RobustLoss"):
        check_loss(Former())


def test_statistics_are_logged_and_not_minimized(
    make_robust, make_classifier, make_batch, fit_once
):
    """The step is that of the term alone."""
    found = []
    for loss in (Counting(), SumOfLosses((Counting(),))):
        model = make_robust(make_classifier(dropout=0), attack=None, loss=loss)
        history = fit_once(model, *make_batch(6))
        assert history["size"] == [6.0] and history["loss"] == history["spread"]
        found.append(model.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_total_adds_terms():
    np.testing.assert_allclose(total({"a": ON_CLEAN, "b": ON_MOVED}), ON_CLEAN + ON_MOVED)


@pytest.mark.parametrize("weight", [-1, math.nan, math.inf, "1", None, True])
@pytest.mark.parametrize("name", ["clean_weight", "adversarial_weight"])
def test_weights_are_refused(name, weight):
    with pytest.raises(ValueError, match=rf"Adversarial: {name} is .*finite number >= 0"):
        Adversarial(**{name: weight})


def test_no_weight_at_all():
    with pytest.raises(ValueError, match=r"both weights are 0"):
        Adversarial(0.0, 0.0)


def test_sum_of_nothing():
    with pytest.raises(ValueError, match=r"parts is empty"):
        SumOfLosses(())


def test_sum_of_two_of_a_name():
    with pytest.raises(ValueError, match=r"a term 'clean'; expected different names"):
        SumOfLosses((Clean(), Adversarial(clean_weight=1.0)))
