"""Matrices show fractions of the true class, and the counts."""

from __future__ import annotations

import numpy as np
import pytest

from keras_robust.plots import confusion_matrix

CLEAN = [[9, 1, 0], [0, 8, 2], [0, 0, 0]]
ATTACKED = [[4, 6, 0], [5, 0, 5], [0, 0, 0]]


@pytest.mark.parametrize("narrow", [False, True])
def test_shades_are_fractions_of_the_true_class(narrow):
    figure = confusion_matrix(CLEAN, ATTACKED, ["a", "b", "c"], narrow=narrow)
    clean, attacked = figure.axes[:2]
    np.testing.assert_allclose(
        clean.images[0].get_array(), [[0.9, 0.1, 0], [0, 0.8, 0.2], [0, 0, 0]]
    )
    np.testing.assert_allclose(
        attacked.images[0].get_array(), [[0.4, 0.6, 0], [0.5, 0, 0.5], [0, 0, 0]]
    )
    assert clean.images[0].get_clim() == attacked.images[0].get_clim() == (0.0, 1.0)


def test_counts_are_in_their_cells():
    axes = confusion_matrix(CLEAN, None, ["a", "b", "c"]).axes[0]
    found = {(*text.get_position(), text.get_text()) for text in axes.texts}
    assert found == {(0, 0, "9"), (1, 0, "1"), (1, 1, "8"), (2, 1, "2")}


def test_rows_are_true_classes():
    axes = confusion_matrix(CLEAN, None, ["ant", "bee", "cow"]).axes[0]
    assert axes.get_ylabel() == "True class" and axes.get_xlabel() == "Predicted class"
    assert [text.get_text() for text in axes.get_yticklabels()] == ["ant", "bee", "cow"]


def test_panels_are_side_by_side_or_one_below_the_other():
    wide = confusion_matrix(CLEAN, ATTACKED).axes
    narrow = confusion_matrix(CLEAN, ATTACKED, narrow=True).axes
    assert wide[0].get_subplotspec().colspan != wide[1].get_subplotspec().colspan
    assert narrow[0].get_subplotspec().rowspan != narrow[1].get_subplotspec().rowspan


def test_many_classes_get_no_numbers_and_few_names():
    axes = confusion_matrix(np.eye(100, dtype=int)).axes[0]
    assert not axes.texts
    assert len(axes.get_xticks()) <= 24 and axes.get_xticks()[0] == 0


def test_long_names_are_cut():
    axes = confusion_matrix([[1]], None, ["a very long name of a class"]).axes[0]
    assert axes.get_yticklabels()[0].get_text() == "a very…class"


def test_bad_matrices_are_refused():
    with pytest.raises(ValueError, match="expected at least one confusion matrix"):
        confusion_matrix(None)
    with pytest.raises(ValueError, match=r"'Clean' has shape \(2, 3\)"):
        confusion_matrix([[1, 2, 3], [4, 5, 6]])
    with pytest.raises(ValueError, match=r"'Attacked' has shape \(1, 1\); expected \(2, 2\)"):
        confusion_matrix([[1, 0], [0, 1]], [[1]], ["a", "b"])
