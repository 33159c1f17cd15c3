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


def test_the_title_tells_attack_radius_and_number_of_images():
    figure = transfer_matrix(NAMES, MATRIX, attack="PGD-20", radius=8 / 255, samples=1000)
    assert figure.axes[0].get_title() == "PGD-20, radius 0.03137, n = 1,000"
    assert transfer_matrix(NAMES, MATRIX).axes[0].get_title() == ""


@pytest.mark.parametrize("narrow", [False, True])
def test_names_are_whole(narrow):
    names = ["mnist_cce_robustness_with_three_members", "b"]
    axes = transfer_matrix(names, MATRIX, narrow=narrow).axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert labels[0].get_text().replace("\n", "") == names[0]


@pytest.mark.parametrize("clean", [None, [0.9, 0.8]])
def test_white_box_cells_have_a_frame(clean):
    axes = transfer_matrix(NAMES, MATRIX, clean).axes[0]
    found = [patch.get_xy() for patch in axes.patches]
    first = 0 if clean is None else 1
    assert found == [(-0.5, first - 0.5), (0.5, first + 0.5)]


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
