"""Transfer: against numbers derived by hand, and against attacks run one by one."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation import EnsembleTransfer, Transfer, black_box, transfer
from keras_robust.evaluation.transfer import correct_subsets

BALL = kr.LinfBall(0.1)
BIM = kr.attacks.bim(BALL, 2)
SETTINGS = {"attack": "PGD-20", "radius": 0.1, "samples": 10, "seed": 0}


@pytest.fixture(scope="module")
def members(make_classifier):
    return [make_classifier(seed=seed) for seed in range(3)]


def accuracy(model, x, y):
    return float((model(x)["logits"].numpy().argmax(axis=1) == y).mean())


def test_transferability_of_two_and_of_three():
    """a_12 - a_11 + a_21 - a_22 = 0.5 + 0.3; of three 0.7 - 0.2 + 0.5 - 0.3 + 0.4 - 0.4."""
    two = Transfer(("a", "b"), ((0.2, 0.7), (0.6, 0.3)), (0.9, 0.9), **SETTINGS)
    assert two.transferability == pytest.approx(0.8)
    assert two.of("a", "b") == 0.7
    rows = ((0.2, 0.8, 0.6), (0.4, 0.3, 0.6), (0.5, 0.3, 0.4))
    three = Transfer(("a", "b", "c"), rows, (0.9,) * 3, **SETTINGS)
    assert three.transferability == pytest.approx(0.5 + 0.2 + 0.0)


def test_metrics_of_three_members():
    """Members right on 4 images: all; none; the first two; the third. The ensemble on 2 of them."""
    right = np.array([[1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 0, 1]], bool)
    names = ("member_1", "member_2", "member_3", "ensemble")
    rows = (*((0.5,) * 4,) * 3, (0.5, 0.5, 0.5, 0.5))
    found = EnsembleTransfer(names, rows, (1.0,) * 4, **SETTINGS, subsets=correct_subsets(right))
    assert found.subsets == {"000": 0.25, "001": 0.25, "110": 0.25, "111": 0.25}
    assert found.subset("010") == 0.0
    assert (found.all_correct, found.all_wrong) == (0.25, 0.25)
    assert found.non_transferable == 1 - 0.5 - 0.25
    assert found.single == 0.5 - 0.25
    assert found.transferability == 0  # the ensemble is not a member
    for pattern in ("01", "0120", "01x"):
        with pytest.raises(ValueError, match="expected 0 or 1 for each of 3 members"):
            found.subset(pattern)


@pytest.mark.slow
def test_the_matrix_is_what_attacks_one_by_one_find(members, make_batch):
    """Five images in batches of two: the last one is padded, and counted once."""
    x, y = make_batch(5)
    model = kr.models.ensemble(members)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(2)
    found = transfer(model, data, BIM)
    everybody = [*members, model]
    assert found.names == ("member_1", "member_2", "member_3", "ensemble")
    assert found.clean == pytest.approx([accuracy(one, x, y) for one in everybody])
    for source, row in zip(everybody, found.accuracy, strict=True):
        x_adv = BIM(source, x, y)
        assert row == pytest.approx([accuracy(one, x_adv, y) for one in everybody])
    x_adv = BIM(model, x, y)
    patterns = np.array([m(x_adv)["logits"].numpy().argmax(axis=1) == y for m in members])
    assert found.subsets == pytest.approx(correct_subsets(patterns))
    assert (found.samples, found.attack, found.radius) == (5, "BIM-2", 0.1)
    assert transfer(kr.defenses.cce(model, BALL), data, BIM) == found  # a robust model around it
    assert black_box(dict(zip(found.names, everybody, strict=True)), data, BIM) == Transfer(
        found.names, found.accuracy, found.clean, found.attack, 0.1, 5, 0
    )


def test_restarts_and_limit(members, make_batch):
    models = {"one": members[0], "two": members[1]}
    lines = []
    found = black_box(
        models,
        make_batch(9),
        kr.attacks.restarts(kr.attacks.pgd(BALL), 2),
        limit=4,
        progress=lines.append,
    )
    assert found.samples == 4 and lines == ["transfer: 4 of 4 images"]


def test_the_table(members, make_batch):
    found = Transfer(("a|b", "c"), ((0.2, 0.7), (0.625, 0.3)), (0.9, 1.0), **SETTINGS)
    assert found.markdown().splitlines() == [
        "| Source \\\\ target | a\\|b | c |",
        "| --- | ---: | ---: |",
        "| no attack | 90.0% | 100.0% |",
        "| a\\|b | 20.0% | 70.0% |",
        "| c | 62.5% | 30.0% |",
    ]


def test_refused(members, make_batch):
    batch = make_batch(4)
    with pytest.raises(TypeError, match="transfer: the classifier is"):
        transfer(members[0], batch, BIM)
    with pytest.raises(ValueError, match="names for at least two models"):
        black_box({"one": members[0]}, batch, BIM)
    with pytest.raises(ValueError, match="expected a single batch. Pass the inner attack"):
        transfer(kr.models.ensemble(members), batch, kr.attacks.per_member(BIM))
    with pytest.raises(TypeError, match="attack is"):
        transfer(kr.models.ensemble(members), batch, BALL)
