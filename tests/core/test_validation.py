"""The checks of arguments, which take NumPy's numbers like Python's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.core.validation import (
    check_choice,
    check_integer,
    check_number,
    is_number,
    lookup,
)


@pytest.mark.parametrize("kind", [int, np.int8, np.int32, np.int64, np.uint8])
def test_integers(kind):
    check_integer("steps", kind(1), 1)
    check_number("rate", kind(1), 0, 1)
    with pytest.raises(ValueError, match=r"steps is .*; expected a whole number >= 2"):
        check_integer("steps", kind(1), 2)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, np.True_, None, "3", 2**63, np.float32(1)])
def test_values_that_are_not_positive_integers(value):
    with pytest.raises(ValueError, match=r"steps is .*; expected a whole number >= 1"):
        check_integer("steps", value, 1)


def test_any_integer():
    check_integer("seed", -(2**63), None)
    with pytest.raises(ValueError, match="seed is 0.5; expected a whole number\\.$"):
        check_integer("seed", 0.5, None)


@pytest.mark.parametrize("kind", [float, np.float16, np.float32, np.float64])
def test_numbers(kind):
    check_number("rate", kind(0.5))
    check_number("rate", kind(0.5), above=0, below=1)
    for number in (kind(-1), kind(math.nan), kind(math.inf)):
        with pytest.raises(ValueError, match=r"rate is .*; expected a finite number >= 0"):
            check_number("rate", number)
    with pytest.raises(ValueError, match=r"expected a number in \(0, 0.5\), such as 0.1\.$"):
        check_number("rate", kind(0.5), above=0, below=0.5, hint=", such as 0.1")


@pytest.mark.parametrize("value", [True, np.True_, None, "0.5", 1j, np.ones(1), [0.5]])
def test_values_that_are_not_numbers(value):
    assert not is_number(value)
    with pytest.raises(ValueError, match="rate is .*; expected a finite number"):
        check_number("rate", value)


def test_tensors_are_not_numbers():
    assert not is_number(tf.constant(0.5)) and is_number(np.float32(0.5))


def test_choices_and_names():
    check_choice("norm", "l2", ("l1", "l2"))
    with pytest.raises(ValueError, match="norm is 'l3'; expected one of 'l1', 'l2'"):
        check_choice("norm", "l3", ("l1", "l2"))
    assert lookup("norm", "l2", ("l1", "l2")) == "l2"
    with pytest.raises(ValueError, match=r"no norm None; expected one of l1, l2"):
        lookup("norm", None, ("l1", "l2"))
