"""What the rows of `attack_table.py` are run on."""

from __future__ import annotations

import numpy as np
import pytest

import keras_robust as kr
from tests.contracts.attack_table import CLASSES


@pytest.fixture(scope="module")
def models(make_classifier):
    """A classifier, and an ensemble, by their number of members."""
    members = [make_classifier(classes=CLASSES, seed=seed) for seed in range(3)]
    return {0: members[0], 2: kr.models.ensemble(members[1:])}


@pytest.fixture(scope="module")
def batch(make_batch):
    """Images with pixels on both ends of the range."""
    x, y = make_batch(6, classes=CLASSES)
    return np.clip(1.4 * x - 0.2, 0, 1), y
