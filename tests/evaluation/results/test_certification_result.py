"""The result of a certification: counts, curves and refusals."""

from __future__ import annotations

import pytest

from keras_robust.evaluation import CertificationResult
from keras_robust.evaluation.results.parts import wilson_interval

RADII = (None, 0.0, 0.1, 0.3, 0.3)


def result(**changes):
    fields = {
        "name": "IBP",
        "method": "ibp",
        "threat_model": "a ball",
        "radius": 0.2,
        "radii": (0.1, 0.2, 0.3),
        "certified_radii": RADII,
        "seconds": 2.0,
    }
    return CertificationResult(**{**fields, **changes})


def test_counts():
    """Four of five images are classified correctly; two are certified at 0.2, as at 0.3."""
    found = result()
    assert found.correct == (False, True, True, True, True)
    assert found.certified == (False, False, False, True, True)
    assert found.counts == {"images": 5, "correct": 4, "certified": 2}
    assert (found.clean_accuracy, found.certified_accuracy) == (0.8, 0.4)
    assert found.clean_interval == wilson_interval(0.8, 5)
    assert found.certified_interval == wilson_interval(0.4, 5)
    assert not found.smoothed and result(method="smoothing").smoothed


def test_the_curve_begins_at_the_clean_accuracy_and_never_rises():
    assert result().curve().radii == (0.0, 0.1, 0.2, 0.3)
    assert result().curve().accuracies == (0.8, 0.6, 0.4, 0.4)
    # Between the radii: certified at the next larger one, a lower bound; beyond them: nothing.
    curve = result().curve([0.35, 0.15, 0.05, 0])
    assert curve.radii == (0.0, 0.05, 0.15, 0.35) and curve.accuracies == (0.8, 0.6, 0.4, 0.0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"certified_radii": ()}, "IBP has no certified_radii; expected one per image"),
        ({"certified_radii": (-0.1,)}, "certified_radii is -0.1; expected"),
        ({"radii": (0.2, 0.1)}, "expected increasing radii with 0.2"),
        ({"radii": (0.1, 0.3)}, "expected increasing radii with 0.2"),
        ({"refuted": (5,)}, "refuted contains image 5; expected less than 5"),
        ({"settings": {"rows": [1]}}, "settings is .*; expected names with numbers"),
        ({"settings": 3}, "settings is 3"),
        ({"seconds": -1}, "seconds is -1"),
        ({"name": None}, "name is None; expected a string"),
    ],
)
def test_invalid_values_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        result(**changes)
