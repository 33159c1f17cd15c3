"""The table of attacks: one row per public attack, with the promises that it makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import (
    apgd,
    auto_attack,
    bim,
    boundary,
    brendel_bethge,
    carlini_wagner,
    ddn,
    deepfool,
    ead,
    fab,
    fast_auto_attack,
    fgsm,
    fmn,
    hop_skip_jump,
    in_each_ball,
    mim,
    multi_targeted,
    multi_task,
    pdpgd,
    per_member,
    pgd,
    pgd_l0,
    r_fgsm,
    restarts,
    sigma_zero,
    smooth_adv,
    sparse_rs,
    spsa,
    square,
    transfer,
    union_pgd,
    worst_of,
)
from keras_robust.core.types import Ball

registered = keras.saving.register_keras_serializable("tests")
CLASSES = 4
BALLS = {
    "linf": kr.LinfBall(0.08),
    "l2": kr.L2Ball(0.5),
    "l1": kr.L1Ball(1.2),
    "l0": kr.L0Ball(6.0),
}
LP = ("linf", "l2", "l1")
# Attacks that run others, and steps of the one loop: they meet the ball inside of what they run.
RUN_OTHERS = (
    *("restarts", "worst_of", "multi_targeted", "transfer", "per_member", "smooth_adv"),
    "in_each_ball",
)
ONE_LOOP = ("fgsm", "r_fgsm", "bim", "mim", "union_pgd")


@registered
def darker(x, p):
    """A transformation with a strength."""
    return x * (1 - 0.5 * p)


@registered
def mirrored(x):
    """A transformation without one."""
    return tf.reverse(x, [-1])


@registered
def source_model(x):
    """A linear source model of a transfer attack, for images of any shape."""
    x = tf.reshape(x, [tf.shape(x)[0], -1])
    weights = tf.sin(2.0 * tf.reshape(tf.range(x.shape[1] * CLASSES, dtype=x.dtype), [-1, CLASSES]))
    return {"logits": (x - 0.5) @ weights}


TRANSFORMATIONS = kr.tasks.Transformations((darker, mirrored), stochastic=True)


class Row(NamedTuple):
    """An attack, and the promises that it makes."""

    build: Callable[[Ball], kr.Attack]
    random: bool = True  # its result depends on the seed
    targeted: bool = False  # it takes targets
    with_steps: Callable | None = None  # (ball, steps, step size) -> the attack of that length
    members: int = 0  # size of the ensemble that it attacks; 0: any classifier
    per_image: bool = True  # the result of an image does not depend on its batch
    transferred: bool = False  # it crafts on a source model
    minimum_norm: bool = False  # it moves only images that it can have misclassified
    norms: tuple[str, ...] = (*LP, "l0")  # in which it is defined; others are refused
    slow: bool = False  # only the slow run has it: it shares its machinery with another row

    def labels(self, model, batch):
        """The labels of the batch; for minimum-norm attacks the model's own predictions, since
        they leave an image alone that is misclassified already."""
        x, y = batch
        return model(x)["logits"].numpy().argmax(axis=1) if self.minimum_norm else y


def pgd_row(**options):
    """The row of `pgd` with these options."""
    return Row(
        lambda ball: pgd(ball, 3, **options),
        random=options.get("initialization") != "none",
        targeted=options.get("targeted", False),
        with_steps=lambda ball, steps, size: pgd(ball, steps, size, **options),
    )


ROWS = {
    "apgd": Row(lambda ball: apgd(ball, 3)),
    "apgd targeted dlr": Row(lambda ball: apgd(ball, 3, loss="dlr", targeted=True), targeted=True),
    "auto_attack": Row(lambda ball: auto_attack(ball, steps=2, queries=3), norms=LP),
    "fast_auto_attack": Row(
        lambda ball: fast_auto_attack(ball, stage_steps=(2, 1, 1), queries=3),
        norms=LP,
        minimum_norm=True,  # it leaves misclassified images alone as well
        slow=True,
    ),
    "fgsm": Row(fgsm, random=False),
    "fgsm targeted": Row(lambda ball: fgsm(ball, targeted=True), random=False, targeted=True),
    "r_fgsm": Row(r_fgsm),
    "bim": Row(lambda ball: bim(ball, 3), random=False, with_steps=bim),
    "mim": Row(lambda ball: mim(ball, 3), random=False, with_steps=mim),
    "mim transferable": Row(
        lambda ball: mim(
            ball,
            2,
            nesterov=True,
            transferability=kr.transferability.Transferability(0.5, kernel=3, scales=2, samples=2),
        )
    ),
    "pgd": pgd_row(),
    "pgd margin": pgd_row(loss="margin"),
    "pgd dlr": pgd_row(loss="dlr"),
    "pgd kl": pgd_row(loss="kl"),
    "pgd gaussian": pgd_row(loss="kl", initialization="gaussian"),
    "pgd adaptive": pgd_row(loss=kr.objectives.AdaptiveObjective("least_confidence")),
    "pgd without a random start": pgd_row(initialization="none"),
    "pgd predicted": pgd_row(loss=kr.objectives.LabelLoss(labels="predicted")),
    "pgd targeted": pgd_row(targeted=True),
    "pgd targeted margin": pgd_row(targeted=True, loss="margin"),
    "pgd targeted dlr": pgd_row(targeted=True, loss="dlr"),
    "multi_targeted": Row(lambda ball: multi_targeted(pgd(ball, 2, loss="margin", targeted=True))),
    "restarts": Row(lambda ball: restarts(pgd(ball, 2), 2)),
    "smooth_adv": Row(
        lambda ball: smooth_adv(
            pgd(ball, 3, initialization="none"),
            sigma=0.2 * (ball.bounds[1] - ball.bounds[0]),
            samples=3,
        )
    ),
    "square": Row(lambda ball: square(ball, 25), norms=LP),
    "union_pgd": Row(lambda ball: union_pgd(ball, 3), with_steps=union_pgd),
    "in_each_ball": Row(lambda ball: in_each_ball(pgd, ball, steps=3)),
    "worst_of": Row(lambda ball: worst_of(pgd(ball, 2), mim(ball, 2))),
    "spsa": Row(lambda ball: spsa(ball, 3, n_directions=8)),
    "multi_task": Row(
        lambda ball: multi_task(ball, 3, tasks=TRANSFORMATIONS, solver="min_norm", loss="margin")
    ),
    "multi_task members": Row(lambda ball: multi_task(ball, 3), members=2),
    "multi_task universal": Row(
        lambda ball: multi_task(ball, 3, tasks=kr.tasks.Universal(3), solver="cagrad", loss="kl"),
        per_image=False,
    ),
    "carlini_wagner": Row(
        lambda ball: carlini_wagner(ball, 12, 0.04, initial_const=50.0, binary_search_steps=2),
        random=False,
        minimum_norm=True,
        norms=LP,
    ),
    "carlini_wagner targeted": Row(
        lambda ball: carlini_wagner(
            ball, 12, 0.04, initial_const=50.0, binary_search_steps=1, targeted=True
        ),
        random=False,
        targeted=True,
        minimum_norm=True,
        norms=LP,
    ),
    "brendel_bethge": Row(lambda ball: brendel_bethge(ball, 1), minimum_norm=True, norms=LP),
    "fab": Row(lambda ball: fab(ball, 3), random=False, minimum_norm=True, norms=LP),
    "fab targeted": Row(
        lambda ball: fab(ball, 3, targeted=True),
        random=False,
        targeted=True,
        minimum_norm=True,
        norms=LP,
    ),
    "ddn": Row(
        lambda ball: ddn(ball, 8, initial_norm=0.3),
        random=False,
        minimum_norm=True,
        norms=("l2",),
        slow=True,
    ),
    "deepfool": Row(
        lambda ball: deepfool(ball, 3), random=False, minimum_norm=True, norms=LP, slow=True
    ),
    "ead": Row(
        lambda ball: ead(ball, 8, learning_rate=0.1, initial_const=10.0, binary_search_steps=2),
        random=False,
        minimum_norm=True,
        slow=True,
    ),
    "fmn": Row(lambda ball: fmn(ball, 8), random=False, minimum_norm=True),
    "fmn targeted": Row(
        lambda ball: fmn(ball, 8, targeted=True),
        random=False,
        targeted=True,
        minimum_norm=True,
        slow=True,
    ),
    "pdpgd": Row(
        lambda ball: pdpgd(ball, 12, learning_rate=0.03),
        random=False,
        minimum_norm=True,
        norms=LP,
        slow=True,
    ),
    "pgd_l0": Row(lambda ball: pgd_l0(ball, 3), norms=("l0",)),
    "pgd_l0 targeted": Row(
        lambda ball: pgd_l0(ball, 3, targeted=True), targeted=True, norms=("l0",)
    ),
    "sparse_rs": Row(lambda ball: sparse_rs(ball, 25), norms=("l0",)),
    "sigma_zero": Row(
        lambda ball: sigma_zero(ball, 8), random=False, minimum_norm=True, norms=("l0",)
    ),
    "boundary": Row(lambda ball: boundary(ball, 15), minimum_norm=True, norms=LP),
    "hop_skip_jump": Row(
        lambda ball: hop_skip_jump(ball, 1, n_directions=8), minimum_norm=True, norms=LP
    ),
    "per_member": Row(lambda ball: per_member(pgd(ball, 3)), members=2),
    "transfer": Row(lambda ball: transfer(pgd(ball, 3), source_model), transferred=True),
}
