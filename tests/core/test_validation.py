"""Validators: Python and NumPy scalars alike; everything else is refused in one sentence."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.core import validation
from keras_robust.core.validation import (
    check_ball,
    check_bounded,
    check_choice,
    check_integer,
    check_number,
    did_you_mean,
    is_number,
    lookup,
)

NAN, INF = math.nan, math.inf
INTEGERS = [2, 0, 2**62, np.int8(2), np.int32(2), np.int64(2), np.uint8(2), np.uint64(2)]
REALS = [2.5, 0.0, 1e308, Fraction(1, 3), np.float16(2.5), np.float32(2.5), np.float64(2.5)]
NOT_FINITE = [NAN, INF, -INF, np.float32("nan"), np.float64("inf")]
NOT_NUMBERS = [
    True,
    np.True_,
    "2",
    b"2",
    None,
    [2],
    (2,),
    2j,
    np.array(2),
    np.array([2.0]),
    tf.constant(2),
    tf.constant(2.0),
    tf.Variable(2.0),
    int,
]


def ids(value):
    return f"{type(value).__name__}-{value!r}"[:40]


@pytest.mark.parametrize("value", INTEGERS, ids=ids)
def test_integers(value):
    check_integer("x", value)
    check_number("x", value)
    assert is_number(value)


@pytest.mark.parametrize("value", REALS, ids=ids)
def test_real_numbers(value):
    check_number("x", value)
    assert is_number(value)
    with pytest.raises(ValueError, match=r"x is .*; expected an integer >= 0\."):
        check_integer("x", value)


@pytest.mark.parametrize("value", NOT_FINITE, ids=ids)
def test_numbers_that_are_not_finite(value):
    assert is_number(value)
    with pytest.raises(ValueError, match=r"x is .*; expected a finite number >= 0\."):
        check_number("x", value)
    with pytest.raises(ValueError, match=r"x is .*; expected a number in \[0, 1\]"):
        check_number("x", value, most=1)
    with pytest.raises(ValueError, match="expected an integer"):
        check_integer("x", value)


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=ids)
def test_values_that_are_not_numbers(value):
    assert not is_number(value)
    with pytest.raises(ValueError, match="expected a finite number >= 0"):
        check_number("x", value)
    with pytest.raises(ValueError, match="expected an integer >= 0"):
        check_integer("x", value)


@pytest.mark.parametrize(
    ("value", "least", "text"),
    [
        (-1, 0, r"n is -1; expected an integer >= 0\."),
        (0, 1, r"n is 0; expected an integer >= 1\."),
        (np.int64(-1), 0, r"n is np.int64\(-1\); expected an integer >= 0\."),
        (2**63, None, r"expected an integer\."),
        (-(2**63) - 1, None, r"expected an integer\."),
        (-6, -5, r"expected an integer\."),
    ],
)
def test_integers_out_of_range(value, least, text):
    with pytest.raises(ValueError, match=text):
        check_integer("n", value, least)


def test_bounds_of_integers_are_inclusive():
    check_integer("n", 1, 1)
    check_integer("n", -5, -5)
    for value in (-(2**63), 2**63 - 1, np.int64(-3)):
        check_integer("n", value, None)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "text"),
    [
        ({}, [0, 1e30], [-1e-9], "a finite number >= 0."),
        ({"least": 0.5}, [0.5], [0.49], "a finite number >= 0.5."),
        ({"above": 0}, [1e-30], [0, -1], "a finite number > 0."),
        ({"most": 1}, [0, 1], [1.01, -0.01], "a number in [0, 1]."),
        ({"below": 1}, [0, 0.99], [1, -0.01], "a number in [0, 1)."),
        ({"above": 0, "most": 1}, [1], [0, 1.01], "a number in (0, 1]."),
        ({"above": 0, "below": 1}, [0.5], [0, 1], "a number in (0, 1)."),
        ({"least": -1, "most": 1}, [-1, 1], [-1.1, 1.1], "a number in [-1, 1]."),
        ({"hint": " in pixels"}, [3], [-3], "a finite number >= 0 in pixels."),
    ],
)
@pytest.mark.parametrize("kind", [float, np.float32])
def test_bounds_of_numbers(bounds, inside, outside, text, kind):
    for value in inside:
        check_number("x", kind(value), **bounds)
    for value in outside:
        with pytest.raises(ValueError) as error:
            check_number("x", kind(value), **bounds)
        assert str(error.value) == f"x is {kind(value)!r}; expected {text}"


def test_choices():
    check_choice("mode", "eval", ("eval", "train"))
    check_choice("mode", None, (None, "train"))
    with pytest.raises(ValueError, match=r"mode is 'test'; expected one of None, 'train'\."):
        check_choice("mode", "test", (None, "train"))
    with pytest.raises(ValueError, match=r"mode is \['eval'\]; expected one of 'eval'\."):
        check_choice("mode", ["eval"], ("eval",))


@pytest.mark.parametrize("ball", [0.1, None, "linf", kr.LinfBall, kr.attacks.pgd(kr.LinfBall(0.1))])
def test_what_is_not_a_ball(ball):
    with pytest.raises(TypeError, match="expected a threat model, such as `keras_robust.LinfBall"):
        check_ball(ball)


def test_a_range_without_an_end():
    check_bounded("The attack", kr.L2Ball(0.1, bounds=(-1, 1)))
    for bounds in ((0, INF), (-INF, 1)):
        with pytest.raises(ValueError, match="The attack needs a finite range of the pixels; ball"):
            check_bounded("The attack", kr.L2Ball(0.1, bounds=bounds))
    with pytest.raises(TypeError, match="expected a threat model"):
        check_bounded("The attack", 0.1)


def test_names():
    assert lookup("solver", "min_max", ("min_max", "uniform")) == "min_max"
    with pytest.raises(ValueError) as error:
        lookup("solver", "minmax", ("min_max", "uniform"))
    assert str(error.value) == (
        "There is no solver 'minmax'; expected one of min_max, uniform. Did you mean 'min_max'?"
    )
    for name in (None, 3, ["min_max"]):
        with pytest.raises(ValueError, match=r"There is no solver .*uniform\.$"):
            lookup("solver", name, ("uniform",))
    assert did_you_mean("d", "abc", limit=2) == "b, c (the last 2 of 3)."
    assert did_you_mean("a", ["b", "b"]) == "b."
    # One swap of neighbors is nearer than two insertions, although more letters are shared.
    assert did_you_mean("pdg", ["pdpgd", "pgd"]).endswith("Did you mean 'pgd'?")
    assert did_you_mean("trads", ["trade", "trades"]).endswith("Did you mean 'trades'?")


@pytest.mark.parametrize(
    ("build", "argument"),
    [
        (lambda value: kr.losses.Adversarial(value), 2),
        (lambda value: kr.losses.KLConsistency(value), 6),
        (lambda value: kr.losses.Contrastive(temperature=value), 1),
        (lambda value: kr.AWP(value), 1),
        (lambda value: kr.DualVariable(value, value), 1),
        (lambda value: kr.DualVariable(period=value), 3),
    ],
)
def test_parts_take_numbers_of_python_and_numpy(build, argument):
    plain = build(argument)
    for kind in (np.int32, np.int64):
        assert build(kind(argument)) == plain
    for refused in (NAN, INF, True, "1", None, -1):
        with pytest.raises(ValueError, match=r" is .*; expected an? (finite number|integer)"):
            build(refused)


def test_this_is_the_table_of_all_validators():
    public = {
        name
        for name, member in vars(validation).items()
        if getattr(member, "__module__", "") == validation.__name__ and not name.startswith("_")
    }
    tested_elsewhere = {"check_norm"}  # tests/threat_models
    assert public - tested_elsewhere == {
        "check_ball",
        "check_bounded",
        "check_choice",
        "check_integer",
        "check_number",
        "did_you_mean",
        "is_number",
        "lookup",
    }
