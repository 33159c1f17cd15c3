"""AutoAttack: which attacks it runs, in what order, with what settings."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import auto_attack
from keras_robust.attacks.crafting.base import Round

LINF, L2, L1 = kr.LinfBall(0.1), kr.L2Ball(0.5), kr.L1Ball(3.0)


def runs(attack, classes):
    """Names of the rounds in order, each with how often it is run."""
    names = [part.attack.name for part in attack.rounds(classes)]
    kinds = list(dict.fromkeys(names))
    return [(kind, names.count(kind)) for kind in kinds]


@pytest.mark.parametrize("ball", [LINF, L2], ids=["linf", "l2"])
def test_standard(ball):
    assert runs(auto_attack(ball), 10) == [
        ("APGD-CE-100", 1),
        ("APGD-DLR-T-100", 9),
        ("targeted FAB-100", 9),
        ("Square", 1),
    ]
    assert auto_attack(ball).rounds(10)[-1].attack.queries == 5000


def test_standard_in_l1():
    assert runs(auto_attack(L1), 10) == [
        ("APGD-CE-100", 5),
        ("APGD-DLR-T-100", 5),
        ("targeted FAB-100", 9),
        ("Square", 1),
    ]
    first, aimed, *_ = (part.attack for part in auto_attack(L1).rounds(10)[4:])
    for attack in (first, aimed):
        assert attack._schedule() == [(3.0, 30), (2.0, 30), (1.0, 40)]


def test_plus():
    assert runs(auto_attack(LINF, "plus"), 10) == [
        ("APGD-CE-100", 5),
        ("APGD-DLR-100", 5),
        ("FAB-100", 5),
        ("Square", 1),
        ("APGD-DLR-T-100", 9),
        ("targeted FAB-100", 9),
    ]


def test_rand():
    attack = auto_attack(LINF, "rand")
    assert runs(attack, 10) == [("APGD-CE-100", 1), ("APGD-DLR-100", 1)]
    assert {part.attack.eot_iter for part in attack.rounds(10)} == {20}


@pytest.mark.parametrize(
    ("version", "classes", "names"),
    [
        ("standard", 4, "APGD-CE-100 x 1, APGD-DLR-T-100 x 3, targeted FAB-100 x 3, Square x 1"),
        ("standard", 3, "APGD-CE-100 x 1, APGD-DLR-100 x 1, targeted FAB-100 x 2, Square x 1"),
        ("standard", 2, "APGD-CE-100 x 1, targeted FAB-100 x 1, Square x 1"),
        ("standard", 1000, "APGD-CE-100 x 1, APGD-DLR-T-100 x 9, targeted FAB-100 x 9, Square x 1"),
        ("plus", 3, "APGD-CE-100 x 5, APGD-DLR-100 x 5, FAB-100 x 5, Square x 1, "
                    "targeted FAB-100 x 2"),
        ("plus", 2, "APGD-CE-100 x 5, FAB-100 x 5, Square x 1, targeted FAB-100 x 1"),
        ("rand", 2, "APGD-CE-100 x 1"),
    ],
)  # fmt: skip
def test_with_few_classes_and_with_many(version, classes, names):
    found = runs(auto_attack(LINF, version), classes)
    assert ", ".join(f"{name} x {count}" for name, count in found) == names


def test_each_round_has_a_seed_of_its_own():
    folds = [part.fold for part in auto_attack(L1, "plus").rounds(10)]
    assert folds == list(range(len(folds)))


def test_targets_are_the_likeliest_classes_but_the_label():
    """By the clean logits (3, 9, 5, 7): of label 1 it is 3, then 2; of label 3 it is 1, then 2."""
    logits = tf.constant([[3.0, 9.0, 5.0, 7.0]] * 2)
    y = tf.constant([1, 3])
    assert Round(None, rank=1).targets(y, logits).numpy().tolist() == [3, 1]
    assert Round(None, rank=2).targets(y, logits).numpy().tolist() == [2, 2]
    ranks = [part.rank for part in auto_attack(LINF).rounds(1000)]
    assert ranks == [None, *range(1, 10), *range(1, 10), None]


def test_parts_follow_the_radius():
    smaller = auto_attack(LINF, steps=7).at_radius(0.05)
    assert smaller == auto_attack(kr.LinfBall(0.05), steps=7)
    for part in smaller.rounds(4):
        assert part.attack.ball == kr.LinfBall(0.05)


@pytest.mark.parametrize("classes", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_few_classes_run(classes):
    """A linear model falls where the radius times the dual norm exceeds the margin."""
    weights = np.random.default_rng(0).normal(size=(6, classes))
    x = np.random.default_rng(1).uniform(0.4, 0.6, (24, 6))

    def model(x):
        return {"logits": (x - 0.5) @ tf.constant(weights, x.dtype)}

    ball = kr.LinfBall(0.03)
    logits = model(tf.constant(x))["logits"].numpy()
    y = logits.argmax(axis=1)
    report = kr.evaluation.evaluate(model, (x, y), auto_attack(ball, steps=10, queries=5))
    across = np.abs(weights[:, None, :] - weights[:, :, None]).sum(axis=0)[y]
    gaps = logits.max(axis=1, keepdims=True) - logits
    falls = ((0.03 * across > gaps) & (np.arange(classes) != y[:, None])).any(axis=1)
    assert report.worst_case_accuracy == pytest.approx(1 - falls.mean())
    assert 0.1 < falls.mean() < 0.9


def test_what_is_refused():
    with pytest.raises(ValueError, match="version is 'custom'; expected one of 'standard', 'plus'"):
        auto_attack(LINF, "custom")
    with pytest.raises(ValueError, match="queries is 0"):
        auto_attack(LINF, queries=0)
    with pytest.raises(ValueError, match="steps is -1"):
        auto_attack(LINF, steps=-1)
    with pytest.raises(TypeError, match=r"ball is 0.1"):
        auto_attack(0.1)
