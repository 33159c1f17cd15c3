"""No false success: fooled images are misclassified, and combinations lose none of them."""

from __future__ import annotations

import numpy as np
import property_attacks as attacks
import property_draws as draw
import pytest
import tensorflow as tf
from property_attacks import ROWS, SETTINGS, Trial, margins, one_trial
from property_draws import BATCHES, hold, in_draws

import keras_robust as kr
from keras_robust.attacks import fgsm, mim, multi_targeted, pgd, restarts, worst_of
from keras_robust.evaluation.running.attack_runner import AttackRunner

BALL = kr.LinfBall(0.2)
COMBINED = {
    # AutoAttack ignores the step size that a trial gives its members.
    **{
        name: row
        for name, row in ROWS.items()
        if "linf" in row.norms and len(row.build(BALL).rounds(3)) > 1 and name != "auto_attack"
    },
    "nested": ROWS["worst_of"]._replace(
        build=lambda ball: worst_of(
            fgsm(ball),
            restarts(pgd(ball, 2, loss="margin"), 2),
            multi_targeted(pgd(ball, 2, targeted=True)),
        )
    ),
    "restarts of worst_of": ROWS["worst_of"]._replace(
        build=lambda ball: restarts(worst_of(mim(ball, 1), pgd(ball, 1)), 2)
    ),
}
every_combination = pytest.mark.parametrize("name", COMBINED)


class Parts:
    """A combination in one setting, and each of its members on its own."""

    def __init__(self, name, setting):
        self.whole = Trial(COMBINED[name], kr.LinfBall, SETTINGS[setting])
        self.rounds = self.whole.attack.rounds(attacks.CLASSES)
        targeted_attacks = {p.attack: (p.offset or p.rank) is not None for p in self.rounds}
        row = COMBINED[name]
        self.members = {
            attack: Trial(
                row._replace(build=lambda _, attack=attack: attack, targeted=targeted),
                kr.LinfBall,
                SETTINGS[setting],
                self.whole.model,
            )
            for attack, targeted in targeted_attacks.items()
        }

    def run_members(self, x, y, seed, radius, size):
        for part in self.rounds:
            targets = part.targets(y, self.whole.logits(x))
            targets = y if targets is None else targets
            member = self.members[part.attack]
            yield member.run(x, y, targets, tf.cast(part.seed(seed), tf.int64), radius, size)


@every_combination
@in_draws(2500)
def test_a_combination_is_never_worse_than_a_member(name, draws):
    """Nor than the clean image: it fools the model wherever a member does, with the largest margin.

    `margins` recomputes both from the returned images.
    """
    first = list(COMBINED).index(name)
    here = [(first + k) % len(SETTINGS) for k in range(2)]
    for setting in here:
        case = Parts(name, setting)

        def check(batch, case=case):
            whole = case.whole
            # Tied logits, half of the time: then a margin of 0 may be right or wrong.
            kinds = ["coarse"] if batch.random.random() < 0.5 else list(attacks.SCALES)
            whole.model.change(batch.random, kinds)
            x, y, targets, seed, radius, size = whole.draw(batch)
            found = whole.run(x, y, targets, seed, radius, size)
            margin, wrong = margins(whole.logits(found), y)
            for member in [x, *case.run_members(x, y, seed, radius, size)]:
                logits = whole.logits(member).numpy()
                member_margin, member_wrong = margins(logits, y)
                # Two graphs may round the same logits differently; an exact tie is decided.
                slack = 1e-5 * np.abs(logits).max(axis=1)
                decided = (np.abs(member_margin) > slack) | (member_margin == 0)
                assert (wrong >= member_wrong)[decided].all()
                assert (margin >= member_margin - slack)[wrong == member_wrong].all()
            return len(margin)

        hold(-(-draws // len(here)), BATCHES, check)


def numpy_logits(model, x):
    """The logits of the classifier, computed in NumPy and float64."""
    x = draw.exact(x).reshape(len(x), draw.PIXELS)
    first, second, scale = (draw.exact(v.numpy()) for v in (model.first, model.second, model.scale))
    return scale * (np.tanh((x - model.low) / (model.high - model.low) @ first) @ second)


UNTARGETED = {name: row for name, row in ROWS.items() if not row.targeted}


@in_draws(10_000)
def test_a_report_counts_only_misclassified_images(draws):
    """Accuracies, fooled images and the worst case, recomputed from the adversarial images."""
    seen = 0
    count = min(draws, 2000)
    names = [name for name, row in UNTARGETED.items() if "l2" in row.norms]
    random = np.random.default_rng(0)
    while seen < draws:
        bounds = draw.BOUNDS[random.integers(3)]
        model = attacks.Classifier(bounds, tf.float32)
        model.change(random)
        model.coarse.assign(False)
        ball = kr.L2Ball(0.4 * (bounds[1] - bounds[0]), bounds)
        x = draw.images(random, count, (2, 3, 2), bounds, tf.float32).astype("float32")
        y = np.where(
            random.random(count) < 0.8,
            model(tf.constant(x))["logits"].numpy().argmax(axis=1),
            random.integers(0, attacks.CLASSES, count),
        )
        chosen = [names[(seen // count * 3 + k) % len(names)] for k in range(3)]
        named = {name: UNTARGETED[name].build(ball) for name in chosen}
        runner = AttackRunner(model, (x, y), None, seen, lambda line: None)
        robust = np.ones(count, bool)
        for name, attack in named.items():
            run = runner.run(name, attack)
            check_run(model, run, runner, y)
            robust &= run.robust
        report = kr.evaluation.evaluate(model, (x, y), named, seed=seen)
        assert report.worst_case_accuracy == robust.mean()
        assert report.worst_case_accuracy <= min(a.accuracy for a in report.attacks)
        assert report.clean_accuracy == runner.correct.mean()
        seen += count
    assert seen >= draws


def check_run(model, run, runner, y):
    """Fooled: correct before, misclassified now. Robust: correct before and now. Up to rounding."""
    logits = numpy_logits(model, run.images)
    margin, _ = margins(logits, y)
    slack = 1e-4 * np.abs(logits).max(axis=1, initial=1e-30)
    fooled = runner.correct & ~run.robust
    assert not (run.robust & ~runner.correct).any()
    assert (margin[fooled] >= -slack[fooled]).all()
    assert (margin[run.robust] <= slack[run.robust]).all()


@pytest.mark.parametrize("name", UNTARGETED)
@in_draws(800)
def test_a_constant_model_is_never_fooled(name, draws):
    """It predicts the first class, so that images of that class cannot be misclassified."""
    case = one_trial(name)

    def check(batch):
        case.model.change(batch.random)
        case.model.scale.assign(0.0)
        x, _, targets, *rest = case.draw(batch)
        y = tf.zeros(tf.shape(x)[:1], tf.int64)
        _, wrong = margins(case.logits(case.run(x, y, targets, *rest)), y)
        assert not wrong.any()
        return len(wrong)

    hold(draws, BATCHES, check)
