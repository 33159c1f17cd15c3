"""Transfer attacks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import fgsm, multi_targeted, per_member, pgd, restarts, transfer
from keras_robust.attacks import worst_of as worst
from keras_robust.attacks.crafting.base import Attack
from keras_robust.evaluation import evaluate

BALL = kr.LinfBall(0.1)
GREY = tf.fill([2, 3], 0.5)
Y = tf.constant([0, 0])


def pixels(x):
    return {"logits": tf.convert_to_tensor(x)}


def turned(x):
    """Classes 1 and 2 change places."""
    return {"logits": tf.gather(x, [0, 2, 1], axis=1)}


@pytest.fixture(autouse=True)
def eager():
    tf.config.run_functions_eagerly(True)


@dataclasses.dataclass(frozen=True)
class Moves(Attack):
    """Adds numbers to the pixels."""

    by: tuple[float, ...]
    ball: kr.LinfBall = BALL
    name: str = "moves"

    def craft(self, forward, x, y, seed, targets):
        return x + tf.constant([self.by])

    def at_radius(self, radius, step_size=None):
        return self


# Crafting.


def test_only_the_source_is_queried():
    """The margin's gradient on `turned` is -1 at the label, and 1 at pixel 2, its class 1.

    (Of two equal classes the margin takes both, half each: the sign is the same.)
    """
    x = tf.constant([[0.5, 0.2, 0.4], [0.5, 0.4, 0.2]])

    def never(x):
        raise AssertionError("the model attacked was queried")

    attack = transfer(fgsm(BALL, loss="margin"), turned)
    # The likeliest other class of `turned` is that of pixel 2, and of pixel 1.
    moved = [[-0.1, 0.0, 0.1], [-0.1, 0.1, 0.0]]
    np.testing.assert_allclose(attack(never, x, Y) - x, moved, atol=1e-6)


def test_the_worst_round_for_the_model_attacked_is_kept():
    """Class 1 of `pixels` is pixel 1, of `turned` pixel 2; margins are of the larger of both."""
    one, two = Moves((0.0, 0.1, 0.0)), Moves((0.0, 0.0, 0.05))

    def first(x):
        return {"logits": x[:, :2]}

    def last(x):
        return {"logits": tf.gather(x, [0, 2], axis=1)}

    attack = transfer(worst(one, two), first)
    np.testing.assert_allclose(attack(last, GREY, Y), two(last, GREY, Y))
    np.testing.assert_allclose(worst(one, two)(first, GREY, Y), one(first, GREY, Y))


def test_the_likeliest_targets_are_those_of_the_model_attacked():
    """Which for the first image of `pixels` is class 2, of `turned` class 1."""
    x = tf.constant([[0.5, 0.2, 0.4], [0.5, 0.4, 0.2]])
    aimed = multi_targeted(fgsm(BALL, loss="margin", targeted=True), n_target_classes=1)
    found = transfer(aimed, turned)(pixels, x, Y) - x
    # Towards class 2 the source raises its own output 2, pixel 1; and vice versa.
    np.testing.assert_allclose(found, [[-0.1, 0.1, 0.0], [-0.1, 0.0, 0.1]], atol=1e-6)


def test_rounds_of_one_attack_stay_of_one():
    attack = transfer(restarts(pgd(BALL, 2), 3), turned, "b")
    rounds = attack.rounds(3)
    assert [part.fold for part in rounds] == [0, 1, 2]
    assert len({id(part.attack) for part in rounds}) == 1
    assert rounds[0].attack == transfer(pgd(BALL, 2), turned, "b")


def test_names_and_radii():
    attack = transfer(pgd(BALL, 20), turned, "runs/b")
    assert attack.name == "PGD-20 from runs/b" and attack.ball == BALL
    assert transfer(restarts(pgd(BALL, 2), 3), turned, "b").name == "PGD-2 x 3 from b"
    assert transfer(pgd(BALL, 2), pixels).name == "PGD-2 from another model"
    smaller = attack.at_radius(0.05, 0.01)
    assert smaller == transfer(pgd(kr.LinfBall(0.05), 20, 0.01), turned, "runs/b")
    assert attack != transfer(pgd(BALL, 20), pixels, "runs/b")


def test_a_robust_model_is_its_classifier(tiny_classifier):
    model = kr.defenses.pgd_at(tiny_classifier, BALL, steps=1)
    attack = transfer(pgd(BALL, 2), model)
    assert attack.source is tiny_classifier and attack.name == "PGD-2 from tiny"
    with pytest.raises(ValueError, match="Cannot serialize the Keras model 'tiny' inside a config"):
        attack.get_config()


def test_refused():
    with pytest.raises(TypeError, match=r"TransferAttack: the attack is LinfBall"):
        transfer(BALL, turned)
    with pytest.raises(
        TypeError, match=r"TransferAttack: the source is 'runs/b'; expected a Keras"
    ):
        transfer(pgd(BALL), "runs/b")
    with pytest.raises(ValueError, match="returns one batch per member"):
        transfer(per_member(pgd(BALL)), turned)
    with pytest.raises(ValueError, match="PGD-10 from a is already crafted on another model"):
        transfer(transfer(pgd(BALL), turned, "a"), turned)
    with pytest.raises(ValueError, match="is targeted"):
        worst(transfer(pgd(BALL, targeted=True), turned))


# In an evaluation. The margins of images are 0.01 k, k = 1 to 20, and of the radius 0.1 an attack
# on `sharp` lowers them by 0.2: it fools all, but perhaps the last.

MARGINS = 0.01 * np.arange(1, 21)
X = np.stack([0.5 + MARGINS / 2, 0.5 - MARGINS / 2, 0 * MARGINS], 1).astype("float32") + 1e-4
LABELS = np.zeros(20, int)


def sharp(x):
    return {"logits": 10 * tf.convert_to_tensor(x)}


@tf.custom_gradient
def misled(x):
    """The identity with the negative gradient."""
    return tf.identity(x), lambda gradient: -gradient


def masked(x):
    return {"logits": 10 * misled(tf.convert_to_tensor(x))}


def test_a_report_lists_it_with_the_others():
    attacks = [pgd(BALL, 3), transfer(pgd(BALL, 3), sharp, "a twin")]
    report = evaluate(sharp, (X, LABELS), attacks)
    own, twin = report.attacks
    assert twin.name == "PGD-3 from a twin" and twin.accuracy == own.accuracy
    assert "source" not in twin.description.replace("source_name a twin", "")
    assert report.warnings == ()  # no less than the attack on the model itself


def test_a_report_warns_where_it_does_better_than_white_box_attacks():
    """White-box attacks follow a wrong gradient and fool nothing: the gradient is masked."""
    attacks = [pgd(BALL, 3), transfer(pgd(BALL, 3), sharp, "a twin")]
    report = evaluate(masked, (X, LABELS), attacks)
    assert report.attacks[0].accuracy == 1.0 and report.attacks[1].accuracy <= 0.05
    (warning,) = report.warnings
    assert warning == (
        "The transfer attack PGD-3 from a twin leaves an accuracy of "
        f"{report.attacks[1].accuracy:.1%}, all white-box attacks together 100.0%. White-box "
        "attacks should be stronger: gradients may be masked."
    )


def test_a_report_of_transfer_attacks_only_warns():
    report = evaluate(sharp, (X, LABELS), transfer(pgd(BALL, 3), sharp))
    (warning,) = report.warnings
    assert warning.startswith("All attacks are transfer attacks")


def test_a_source_of_other_classes_is_refused_before_any_attack():
    said = []
    attacks = [pgd(BALL, 3), transfer(pgd(BALL, 3), lambda x: {"logits": x[:, :2]})]
    with pytest.raises(ValueError, match="crafted on a model with 2 classes; expected 3, as in"):
        evaluate(sharp, (X, LABELS), attacks, progress=said.append)
    assert said == ["clean accuracy 1.0000 on 20 images"]


def test_checkpoints_belong_to_their_source(tmp_path):
    """Another source of the same name starts anew, the same source resumes."""
    files = []
    for source in (sharp, pixels, sharp):
        attack = transfer(pgd(BALL, 1, 0.02, loss="margin", initialization="none"), source, "b")
        evaluate(sharp, (X + np.float32([0, 0, 0.3]), LABELS), attack, resume_dir=tmp_path)
        files.append(len(list(tmp_path.iterdir())))
    assert files == [1, 2, 2]
