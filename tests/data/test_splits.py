"""Stratified splits and the size of the validation part."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from keras_robust.data.splits import Arrays, stratified_split, validation_count


def test_shares_are_rounded_to_the_largest_remainder():
    """7 of 20 with classes of 10, 6, 4: 3.5, 2.1, 1.4 become 4, 2, 1."""
    labels = np.repeat([0, 1, 2], [10, 6, 4])
    kept, drawn = stratified_split(labels, 7)
    assert np.bincount(labels[drawn]).tolist() == [4, 2, 1]
    assert np.bincount(labels[kept]).tolist() == [6, 4, 3]


def test_ties_of_remainders_go_to_the_smaller_label():
    """3 of 8 with classes of 4 and 4: 1.5 each."""
    labels = np.array([1, 0] * 4)
    _, drawn = stratified_split(labels, 3)
    assert np.bincount(labels[drawn]).tolist() == [2, 1]


def test_the_rows_are_those_of_random_state_zero():
    labels = np.array([1, 0, 1, 0, 1, 0, 1, 0, 1, 0])
    generator = np.random.RandomState(0)
    expected = [*generator.permutation([1, 3, 5, 7, 9])[:2]]
    expected += [*generator.permutation([0, 2, 4, 6, 8])[:2]]
    assert stratified_split(labels, 4)[1].tolist() == sorted(expected)


@hypothesis.given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=40), part=st.floats(0, 1))
@hypothesis.settings(deadline=None, max_examples=60, derandomize=True)
def test_every_row_is_kept_or_drawn_in_proportion_to_its_class(labels, part):
    labels, count = np.array(labels), round(part * len(labels))
    kept, drawn = stratified_split(labels, count)
    assert len(drawn) == count
    assert sorted([*kept, *drawn]) == list(range(len(labels)))
    for label in np.unique(labels):
        exact = count * np.mean(labels == label)
        assert abs(np.sum(labels[drawn] == label) - exact) < 1


def test_arrays_hold_out_images_with_their_labels():
    arrays = Arrays(np.arange(10)[:, None, None, None], np.arange(10) % 2)
    kept, held_out = arrays.hold_out(4)
    assert len(kept) == 6 and len(held_out) == 4
    for part in (kept, held_out):
        np.testing.assert_array_equal(part.images[:, 0, 0, 0] % 2, part.labels)


@pytest.mark.parametrize(
    ("validation", "count"), [(0, 0), (0.0, 0), (1, 1), (0.25, 5), (0.999, 20), (19, 19)]
)
def test_validation_is_a_fraction_or_a_number(validation, count):
    assert validation_count(validation, 20) == count


@pytest.mark.parametrize("value", [np.int32(5), np.float32(0.25), np.float64(0.25)])
def test_numbers_of_numpy_are_numbers(value):
    assert validation_count(value, 20) == 5


@pytest.mark.parametrize(
    ("validation", "text"),
    [
        *((value, r"expected a number in \[0, 1\), or an integer below 20")
          for value in (1.0, -0.1, None, "0.1", float("nan"))),
        (20, "validation is 20; expected an integer below 20"),
        (-1, "validation is -1; expected an integer >= 0"),
        (True, "validation is True; expected an integer"),
    ],
)  # fmt: skip
def test_other_validation_is_refused(validation, text):
    with pytest.raises(ValueError, match=text):
        validation_count(validation, 20)
