"""Cells have the given numbers; rows are sources."""

from __future__ import annotations

import numpy as np
import pytest

from keras_robust.plots import transfer_matrix

NAMES = ["a", "b"]
MATRIX = [[0.1, 0.8], [0.7, 0.2]]


@pytest.mark.parametrize("narrow", [False, True])
def test_cells_are_the_numbers(narrow):
    axes = transfer_matrix(NAMES, MATRIX, clean=[0.99, 0.98], narrow=narrow).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.99, 0.98], *MATRIX])
    assert [text.get_text() for text in axes.texts] == ["99.0", "98.0", "10.0", "80.0", "70.0",
                                                        "20.0"]  # fmt: skip
    assert [label.get_text() for label in axes.get_yticklabels()] == ["no attack", "a", "b"]
    assert [label.get_text() for label in axes.get_xticklabels()] == NAMES


def test_many_models_have_no_numbers():
    names = [f"model {number}" for number in range(12)]
    axes = transfer_matrix(names, np.full((12, 12), 0.5)).axes[0]
    assert not axes.texts


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((NAMES, [[0.1, 0.2]]), r"shape \(1, 2\) for 2 names"),
        (([], np.zeros((0, 0))), "for 0 names"),
        ((NAMES, MATRIX, [0.9]), r"clean has shape \(1,\)"),
        ((NAMES, [[0.1, 1.8], [0.7, 0.2]]), "outside"),
        ((NAMES, [[0.1, np.nan], [0.7, 0.2]]), "outside"),
    ],
    ids=["not square", "no names", "too few clean", "above one", "not a number"],
)
def test_invalid_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        transfer_matrix(*arguments)
