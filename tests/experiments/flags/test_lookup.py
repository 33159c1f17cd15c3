from __future__ import annotations

import pytest

from keras_robust.core.validation import lookup
from keras_robust.experiments.flags.lookup import check_options, number


def test_chosen_returns_what_is_valid():
    assert lookup("norm", "l2", ["linf", "l2"]) == "l2"


def test_chosen_names_the_valid_and_the_closest():
    with pytest.raises(ValueError, match=r"no norm 'lnf'; expected one of linf, l2\. Did you mean"):
        lookup("norm", "lnf", ["linf", "l2"])


def test_chosen_guesses_nothing_where_nothing_is_close():
    with pytest.raises(ValueError, match=r"one of linf, l2\.$"):
        lookup("norm", "xyz", ["linf", "l2"])


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.3", 0.3), (2, 2.0), ("-1/2", -0.5), ("1e-3", 1e-3)]
)
def test_number(text, value):
    assert number("radius", text) == value


@pytest.mark.parametrize("text", ["", "x", "1/0", "1/2/3", None])
def test_number_refuses(text):
    with pytest.raises(ValueError, match="is not a radius; expected a number such as"):
        number("radius", text)


def test_options_are_the_arguments_but_the_first_and_the_seed():
    def defense(classifier, ball, *, beta, seed):
        del classifier, ball, beta, seed

    check_options("defense", "d", defense, 2, ["beta"])
    for option in ("ball", "seed", "btea"):
        with pytest.raises(ValueError, match=rf"'d' has no option '{option}'; there are beta\."):
            check_options("defense", "d", defense, 2, [option])


def test_a_function_without_options_says_so():
    with pytest.raises(ValueError, match="there are none"):
        check_options("model", "m", lambda x: x, 1, ["y"])
