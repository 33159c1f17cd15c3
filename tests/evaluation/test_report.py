"""Reports round-trip exactly, and refuse out-of-range values."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_robust.evaluation.report import Report, load_reports
from keras_robust.evaluation.results.example_images import ExampleImages
from keras_robust.evaluation.results.parts import (
    AttackResult,
    Curve,
    Detection,
    DetectorResult,
    wilson_interval,
)

SHARES = st.floats(0, 1)


def test_wilson_interval_by_hand():
    """p = 1/2, n = 100, z = 2: middle (0.5 + 4/200) / 1.04 = 0.5; half-width
    2 sqrt(0.25 / 100 + 4 / 40000) / 1.04 = 2 sqrt(0.0026) / 1.04 = 0.0980581.
    """
    low, high = wilson_interval(0.5, 100, z=2.0)
    assert low == pytest.approx(0.4019419, abs=1e-7)
    assert high == pytest.approx(0.5980581, abs=1e-7)


def test_wilson_interval_at_the_ends():
    """At p = 0 the ends are 0 and z^2 / (n + z^2); at p = 1 they mirror that."""
    assert wilson_interval(0.0, 96, z=2.0) == pytest.approx((0.0, 0.04))
    assert wilson_interval(1.0, 96, z=2.0) == pytest.approx((0.96, 1.0))
    assert wilson_interval(1.0, 10)[1] == 1.0 and wilson_interval(0.0, 10)[0] == 0.0


@given(SHARES, st.integers(1, 10**7))
def test_wilson_interval_holds_the_share(accuracy, samples):
    low, high = wilson_interval(accuracy, samples)
    assert 0 <= low <= accuracy <= high <= 1


def test_intervals_of_a_report_use_all_its_samples(make_report):
    report = make_report()
    assert report.clean_interval == wilson_interval(0.96, 100)
    assert report.worst_case_interval == wilson_interval(0.5, 100)
    assert report.attack_intervals == (wilson_interval(0.81, 100), wilson_interval(0.5, 100))


def test_json_round_trip_is_exact(make_report):
    for report in (
        make_report(),
        make_report(detection=None, examples=None, confusion_clean=None, curves=(), attacks=()),
        make_report(radius=8 / 255, clean_accuracy=1 / 3, defense='"TRADES"\n✓ </script>'),
    ):
        again = Report.from_json(report.to_json())
        assert again == report
        assert again.to_json() == report.to_json()


@settings(max_examples=50, deadline=None)
@given(st.text(), SHARES, st.lists(SHARES, min_size=1), st.lists(st.floats(-1e9, 1e9)))
def test_json_round_trip_of_any_numbers_and_names(name, accuracy, accuracies, scores):
    report = Report(
        name, name, name, name, accuracy, 3, 0, accuracy, (), accuracy,
        curves=(Curve(name, tuple(range(len(accuracies))), accuracies),),
        detection=Detection(
            0.5, accuracy, accuracy, name, scores,
            DetectorResult(name, accuracy, accuracy, scores, accuracy, (accuracy, accuracy)),
        ),
        versions={name: name}, warnings=(name,), command=name,
    )  # fmt: skip
    assert Report.from_json(report.to_json()) == report


def test_numpy_numbers_become_python_ones(make_report):
    report = make_report(
        clean_accuracy=np.float32(0.7), samples=np.int64(5), confusion_clean=np.eye(2, dtype=int)
    )
    assert type(report.clean_accuracy) is float and type(report.samples) is int
    assert report.confusion_clean == ((1, 0), (0, 1))
    assert Report.from_json(report.to_json()) == report


def test_json_has_one_field_a_line_and_names_its_schema(make_report):
    lines = make_report().to_json().splitlines()
    assert lines[1] == '  "schema_version": 4,'
    assert len(lines) == 3 + len(dataclasses.fields(Report))


def test_a_report_of_another_schema_is_refused(make_report):
    text = make_report().to_json().replace('"schema_version": 4', '"schema_version": 5')
    with pytest.raises(
        ValueError, match="schema version 5; this release of keras_robust reads 2, 3, 4"
    ):
        Report.from_json(text)


def test_what_is_not_a_report_is_refused(make_report):
    document = json.loads(make_report().to_json())
    del document["seed"]
    with pytest.raises(ValueError, match=r"fields missing \['seed'\], unknown \['sed'\]"):
        Report.from_json(json.dumps({**document, "sed": 1}))
    with pytest.raises(ValueError, match="schema version None"):
        Report.from_json("{}")
    with pytest.raises(ValueError, match="JSON of one report"):
        Report.from_json("[]")


def test_examples_are_frozen_and_compared_by_value(make_report):
    one, other = make_report().examples, make_report().examples
    assert one == other and hash(one) == hash(other)
    brighter = dataclasses.replace(one, adversarial=np.ones_like(one.clean))
    assert one != brighter
    with pytest.raises(ValueError, match="read-only"):
        one.clean[0] = 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"clean_accuracy": 96.0}, r"clean_accuracy is 96.0; expected a number in \[0, 1\]"),
        ({"worst_case_accuracy": math.nan}, "worst_case_accuracy is nan; expected a number"),
        ({"radius": -0.1}, "radius is -0.1"),
        ({"samples": 0}, "samples is 0; expected an integer >= 1"),
        ({"confusion_clean": ((1, 2),)}, r"confusion_clean has 1 rows of \[2\] columns"),
        ({"confusion_adversarial": ((1, 2), (3,))}, "confusion_adversarial has 2 rows"),
        ({"confusion_clean": ((1.5, 0), (0, 1))}, "confusion_clean is 1.5"),
        ({"attacks": (AttackResult("A", "", 0, 0, 0, 0),) * 2}, "attacks have the names"),
        ({"class_names": ("ant",), "confusion_clean": None, "confusion_adversarial": None},
         "examples contain class 1"),
    ],
)  # fmt: skip
def test_impossible_reports_are_refused(make_report, changes, text):
    with pytest.raises(ValueError, match=text):
        make_report(**changes)


def test_impossible_parts_are_refused():
    with pytest.raises(ValueError, match="accuracy is 1.5"):
        AttackResult("A", "", 0.1, 1.5, 1, 1)
    with pytest.raises(ValueError, match="seconds is -1"):
        AttackResult("A", "", 0.1, 0.5, 1, -1)
    with pytest.raises(ValueError, match="2 radii and 1 accuracies"):
        Curve("A", (0.0, 0.1), (0.5,))
    with pytest.raises(ValueError, match="expected increasing radii"):
        Curve("A", (0.1, 0.1), (0.5, 0.4))
    with pytest.raises(ValueError, match="clean_scores is inf; expected a finite number"):
        Detection(0.1, 0.1, 0.1, "s", (math.inf,), DetectorResult("A", 0.1, 0.1, ()))
    with pytest.raises(ValueError, match="scores is nan"):
        DetectorResult("A", 0.1, 0.1, (math.nan,))
    with pytest.raises(ValueError, match="evasion_rate is -0.1"):
        DetectorResult("A", 0.1, -0.1, ())
    image = np.zeros((1, 2, 2, 1))
    with pytest.raises(ValueError, match="expected"):
        ExampleImages(image[0], image[0], (0,), (0,), (0,))
    with pytest.raises(ValueError, match="expected the same"):
        ExampleImages(image, image[:, :1], (0,), (0,), (0,))
    with pytest.raises(ValueError, match="2 labels for 1 example images"):
        ExampleImages(image, image, (0, 1), (0,), (0,))


def test_a_threshold_set_by_hand_has_no_rate_asked_for(make_report):
    by_hand = dataclasses.replace(make_report().detection, false_alarm_rate=None)
    report = make_report(detection=by_hand)
    assert Report.from_json(report.to_json()) == report


def test_a_report_of_before_there_were_checks_has_none(make_report):
    document = json.loads(make_report().to_json())
    del document["checks"]
    assert Report.from_json(json.dumps(document)) == make_report(checks=())


def test_load_reports_names_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a report\.json or its directory"):
        load_reports(tmp_path)
