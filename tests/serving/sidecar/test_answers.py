"""Answers of TensorFlow Serving over REST, in rows and in columns, and other ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from keras_robust.serving.sidecar.answers import outputs_of, predict_target, signature_of

ROWS = [
    {"detection_score": 0.25, "is_adversarial": False, "classes": 3, "probabilities": [0.5, 0.5]},
    {"detection_score": 4, "is_adversarial": True, "classes": 1, "probabilities": [0.1, 0.9]},
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


@pytest.mark.parametrize("document", [{"predictions": ROWS}, {"outputs": COLUMNS}])
def test_rows_and_columns_say_the_same(document):
    found = outputs_of(json.dumps(document).encode())
    assert sorted(found) == ["classes", "detection_score", "is_adversarial"]
    np.testing.assert_array_equal(found["detection_score"], [0.25, 4.0])
    assert found["is_adversarial"].dtype == bool and found["classes"].tolist() == [3, 1]


@pytest.mark.parametrize("document", [{"predictions": [[0.1], [0.2]]}, {"outputs": {"y": [1]}}])
def test_a_signature_without_a_detector_has_nothing_to_read(document):
    assert outputs_of(json.dumps(document).encode()) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b'{"error": "no"}', b"[" * 100_000, b"\xff",
        b'{"outputs": {"detection_score": ["high"]}}', b'{"outputs": {"detection_score": 1}}',
        b'{"outputs": {"detection_score": [1, 2], "is_adversarial": [true]}}',
        b'{"outputs": {"detection_score": [[1], [2, 3]]}}',
    ],
)  # fmt: skip
def test_other_answers_are_refused(content):
    with pytest.raises(ValueError):
        outputs_of(content)


def test_paths_and_signatures():
    assert predict_target("/V1/models/digits/versions/12:predict?x=1").version == 12
    for path in ("/v1/models/digits", "/v1/models/a/b:predict", "/v1/models/digits:classify", "*"):
        assert predict_target(path) is None
    assert signature_of(b'{"instances": []}') == "serving_default"
    assert signature_of(rb'{"instances": ["\"signature_name\": \"x\""]}') == "serving_default"
