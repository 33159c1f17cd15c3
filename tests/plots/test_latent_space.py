"""Points have the given positions; colors and markers show classes and kinds."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from keras_robust.plots import latent_space
from keras_robust.plots.class_colors import CLASS_COLORS

POINTS = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])
ENTROPIES = [0.1, 0.2, 0.9, 0.4]
LABELS = [0, 3, 0, 3]
ATTACKED = [False, False, True, False]
DATA = (POINTS, ENTROPIES, LABELS, ATTACKED)
CLEAN = [0, 1, 3]


def scatters(axes):
    clean, attacked = axes.collections
    return clean, attacked


@pytest.mark.parametrize("narrow", [False, True])
def test_in_three_dimensions_the_entropy_is_the_height(narrow):
    figure = latent_space(*DATA, flat=False, narrow=narrow)
    axes = figure.axes[0]
    for dots, rows in zip(scatters(axes), (CLEAN, [2]), strict=True):
        places = np.ma.getdata(np.array(dots._offsets3d)).T
        np.testing.assert_allclose(places[:, :2], POINTS[rows])
        np.testing.assert_allclose(places[:, 2], np.array(ENTROPIES)[rows])
    assert axes.get_zlabel() == "Entropy (nats)" and axes.get_zlim()[0] == 0


@pytest.mark.parametrize("narrow", [False, True])
def test_flat_the_entropy_is_the_color_of_the_second_panel(narrow):
    figure = latent_space(*DATA, narrow=narrow)
    first, second, bar = figure.axes
    for axes in (first, second):
        for dots, rows in zip(scatters(axes), (CLEAN, [2]), strict=True):
            np.testing.assert_allclose(dots.get_offsets(), POINTS[rows])
        assert axes.get_xlabel() == "t-SNE, first coordinate"
    for dots, rows in zip(scatters(second), (CLEAN, [2]), strict=True):
        np.testing.assert_allclose(dots.get_array(), np.array(ENTROPIES)[rows])
        assert dots.get_clim() == (0.0, 0.9)
    assert "Entropy (nats)" in (bar.get_ylabel(), bar.get_xlabel())


@pytest.mark.parametrize("flat", [False, True])
def test_the_color_is_the_class(flat):
    clean, attacked = scatters(latent_space(*DATA, flat=flat).axes[0])
    np.testing.assert_allclose(
        clean.to_rgba(clean.get_array())[:, :3],
        [to_rgba(CLASS_COLORS[label])[:3] for label in (0, 3, 3)],
    )
    np.testing.assert_allclose(
        attacked.to_rgba(attacked.get_array())[:, :3], [to_rgba(CLASS_COLORS[0])[:3]]
    )


def test_markers_distinguish_clean_from_attacked():
    for flat in (False, True):
        figure = latent_space(*DATA, flat=flat)
        clean, attacked = scatters(figure.axes[0])
        corners = [len(dots.get_paths()[0].vertices) for dots in (clean, attacked)]
        assert corners[1] == 4 < corners[0]  # a closed triangle, and a circle
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["clean", "attacked"]


@pytest.mark.parametrize("flat", [False, True])
def test_the_fooled_ones_have_a_marker_of_their_own(flat):
    attacked, fooled = [False, True, True, True], [False, False, True, False]
    figure = latent_space(*DATA[:3], attacked, fooled=fooled, flat=flat)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["clean", "attacked, correct", "attacked, fooled"]
    last = figure.axes[0].collections[-1]  # above all others
    places = last.get_offsets() if flat else np.ma.getdata(np.array(last._offsets3d)).T[:, :2]
    np.testing.assert_allclose(places, POINTS[[2]])
    corners = [len(dots.get_paths()[0].vertices) for dots in figure.axes[0].collections]
    assert len(set(corners)) == 3


def test_the_bar_names_the_classes_that_are_there():
    names = ["ant", "bee", "cow", "dog"]
    bar = latent_space(*DATA, names, flat=False).axes[1]
    assert [text.get_text() for text in bar.get_yticklabels()] == ["ant", "dog"]
    assert bar.yaxis_inverted()  # from the top
    assert bar.get_ylabel() == "True class"


def test_flat_names_are_on_a_clean_image_of_their_class():
    axes = latent_space(*DATA, ["ant", "bee", "cow", "dog"]).axes[0]
    written = {text.get_text(): text.get_position() for text in axes.texts}
    assert written["ant"] == (0.0, 1.0)  # not the attacked image of the class
    assert written["dog"] in {(2.0, 3.0), (6.0, 7.0)}
    assert set(written) == {"ant", "dog"}


def test_many_classes_are_named_in_part():
    count = 100
    places = np.random.default_rng(0).normal(size=(count, 2))
    figure = latent_space(
        places, np.ones(count), np.arange(count), np.zeros(count, bool), flat=False
    )
    assert 10 <= len(figure.axes[1].get_yticks()) <= 24


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("attacked", [False, True])
def test_one_kind_alone_can_be_drawn(flat, attacked):
    figure = latent_space(POINTS, np.zeros(4), LABELS, [attacked] * 4, flat=flat)
    assert len(figure.axes[0].collections) == 1
    assert len(figure.legends[0].get_texts()) == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({0: np.zeros((4, 3))}, r"Points have shape \(4, 3\)"),
        ({0: np.zeros((0, 2))}, "n at least 1"),
        ({1: [0.1]}, r"Received 4 points and {'entropies': \(1,\)"),
        ({3: [True]}, r"'adversarial': \(1,\)"),
        ({1: [0.1, np.nan, 0.2, 0.3]}, "not finite"),
        ({2: [0, 1, 2, -1]}, "Classes run from -1 to 2; expected numbers of at least 0"),
        ({4: ["a", "b"]}, "Classes run from 0 to 3; expected numbers of 2 classes"),
    ],
)
def test_bad_points_are_refused(changes, text):
    arguments = [changes.get(index, part) for index, part in enumerate((*DATA, None))]
    with pytest.raises(ValueError, match=text):
        latent_space(*arguments)


@pytest.mark.parametrize("fooled", [[True], [True, False, True, False]])
def test_only_attacked_images_are_fooled(fooled):
    with pytest.raises(ValueError, match=r"fooled has shape .* some of the attacked images"):
        latent_space(*DATA, fooled=fooled)
