"""A fast ensemble of attacks: the verdicts of AutoAttack at a fraction of its passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_robust.attacks.apgd import Apgd
from keras_robust.attacks.black_box.square import Square
from keras_robust.attacks.black_box.square_proposals import NORMS
from keras_robust.attacks.crafting import objectives
from keras_robust.attacks.crafting.adaptive_step_rules import adaptive_rule
from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.initialization import OnSphere
from keras_robust.core import random
from keras_robust.core.config import replace, serializable
from keras_robust.core.labels import of_other_classes
from keras_robust.core.numerics import broadcast_to_images
from keras_robust.core.types import (
    Ball,
    Forward,
    Images,
    Labels,
    Logits,
    Objective,
    PerExample,
    Radius,
)
from keras_robust.core.validation import check_integer, check_norm, check_number
from keras_robust.losses import classification as losses

_LEAST_CLASSES_OF_DLR = 3  # needs more, where it has targets
_Craft = Callable[[Forward, "_Part"], Images]
_TARGET_CLASSES = 9
_NEAREST = 3  # target classes of the long search
_P_INIT = 0.1  # of Square, which starts from the best point and not from stripes


@serializable
class FastEnsemble(Attack):
    """Short attacks first; what one of them found is the start of the next.

    1. APGD on the cross-entropy.
    2. Targeted APGD on each of the nine likeliest classes of the worst point so far, in the order
       of its margins, from that point.
    3. A longer targeted APGD on the three classes that came closest, where the margin shrank enough
       for a boundary to be in reach.
    4. Square from the worst point, on the rest.

    An image leaves as soon as it is misclassified. A batch shrinks inside the attack, so that the
    others cost nothing more.

    Differs: from AutoAttack, of which it is an estimate: an image that it leaves may fall to that
    one. docs/results/evaluation.md compares the two, image by image.

    Args:
        ball: the threat model: an `LinfBall`, an `L2Ball` or an `L1Ball`, or a ball of your own in
            one of these norms.
        stage_steps: of APGD in the first attack, toward each class, and toward the closest ones.
        queries: of Square.
        reach: the part of the clean margin above which an image counts as far from every boundary
            after the second attack, in (0, 1]; such an image is left to Square.

    Raises:
        TypeError: a ball in another norm.
        ValueError: an argument out of range; when called, targets.

    Example:
        >>> from keras_robust import LinfBall
        >>> x, y = tf.constant([[0.7, 0.3], [0.9, 0.1]]), tf.constant([0, 0])
        >>> x_adv = fast_auto_attack(LinfBall(0.25))(lambda x: {"logits": 9 * x}, x, y)
        >>> tf.argmax(x_adv, axis=1).numpy().tolist()
        [1, 0]

    Reference: its parts are those of Croce and Hein, "Reliable Evaluation of Adversarial Robustness
    with an Ensemble of Diverse Parameter-free Attacks" (2020).
    """

    ball: Ball
    _: dataclasses.KW_ONLY
    stage_steps: tuple[int, int, int] = (10, 20, 60)
    queries: int = 400
    reach: float = 0.9
    name = "fast ensemble of APGD and Square"

    def __post_init__(self) -> None:
        check_norm("fast_auto_attack", self.ball, NORMS)
        for steps in self.stage_steps:
            check_integer("fast_auto_attack: stage_steps", steps, 1)
        check_integer("fast_auto_attack: queries", self.queries, 1)
        check_number("fast_auto_attack: reach", self.reach, above=0, most=1)

    @property
    def gradient_steps(self) -> int:
        """The steps of the longest run of APGD."""
        return max(self.stage_steps)

    def at_radius(self, radius: Radius, step_size: float | None = None) -> FastEnsemble:
        """The same attacks in a ball of another radius, from which their step sizes follow."""
        del step_size
        return replace(self, ball=self.ball.replace(radius=radius))

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """Runs the attacks on the images that are left."""
        objectives.refuse_targets("fast_auto_attack", targets)
        search = _Search(forward, x, y, seed)
        clean = forward(x)["logits"]
        found = _Found(x, clean, losses.margin(clean, y), losses.misclassified(clean, y))
        far = self.reach * found.margin
        first, each, closest = self.stage_steps
        start = OnSphere()(self.ball, x, seed)
        apgd = self._apgd(first, objectives.get("cross_entropy"))
        found = search.run(apgd, found, 0, start=start)
        loss = "dlr" if clean.shape[-1] > _LEAST_CLASSES_OF_DLR else "margin"
        targeted = objectives.get(loss, targeted=True)
        found = search.toward(found, _TARGET_CLASSES, self._apgd(each, targeted), 10)
        near = found.margin > far
        found = search.toward(found, _NEAREST, self._apgd(closest, targeted), 30, near)
        return search.run(self._square, found, 1).x

    def _apgd(self, steps: int, objective: Objective) -> _Craft:
        """APGD from given points."""
        rule = adaptive_rule(self.ball, steps)

        def craft(forward: Forward, part: _Part) -> Images:
            attack = Apgd(self.ball, objective, rule, steps, lambda ball, x, seed: part.start)
            return attack.craft(forward, part.x, part.y, part.seed, part.targets)

        return craft

    def _square(self, forward: Forward, part: _Part) -> Images:
        attack = Square(self.ball, self.queries, p_init=_P_INIT)
        whole = part.rows, part.batch
        return attack.search(forward, part.x, part.y, part.seed, part.start, whole)


fast_auto_attack = FastEnsemble


class _Found(NamedTuple):
    """The worst point of each image so far."""

    x: Images
    logits: Logits
    margin: PerExample
    fooled: tf.Tensor


class _Part(NamedTuple):
    """The images of a batch that an attack runs on."""

    rows: tf.Tensor
    batch: tf.Tensor  # the number of images in the batch
    x: Images
    y: Labels
    start: Images
    seed: tf.Tensor
    targets: Labels | None


class _Search:
    """Runs attacks on the part of a batch that is left."""

    def __init__(self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor):
        self._forward, self._x, self._y, self._seed = forward, x, y, seed

    def run(
        self,
        craft: _Craft,
        found: _Found,
        fold: int | tf.Tensor,
        targets: Labels | None = None,
        among: tf.Tensor | None = None,
        start: Images | None = None,
    ) -> _Found:
        """Runs an attack on the images that are left, or some; by default from the worst points."""
        starts = found.x if start is None else start
        left = ~found.fooled if among is None else among & ~found.fooled
        rows = tf.where(left)[:, 0]
        seed = random.fold_in(self._seed, fold)

        def attacked() -> _Found:
            x, y, start = (tf.gather(whole, rows) for whole in (self._x, self._y, starts))
            goal = None if targets is None else tf.gather(targets, rows)
            part = _Part(rows, tf.shape(self._x)[0], x, y, start, seed, goal)
            candidate = craft(self._forward, part)
            logits = self._forward(candidate)["logits"]
            margin, wrong = losses.margin(logits, y), losses.misclassified(logits, y)
            return _updated(found, rows, _Found(candidate, logits, margin, wrong))

        return tf.cond(tf.size(rows) > 0, attacked, lambda: found)

    def toward(
        self, found: _Found, count: int, craft: _Craft, fold: int, among: tf.Tensor | None = None
    ) -> _Found:
        """Runs a targeted attack on the likeliest classes of the worst points, one by one."""
        classes = found.logits.shape[-1]
        others = of_other_classes(found.logits, self._y)
        ranked = tf.math.top_k(others, min(count, classes - 1)).indices
        order = tf.cast(ranked, self._y.dtype)

        def body(index: tf.Tensor, found: _Found) -> tuple[tf.Tensor, _Found]:
            return index + 1, self.run(craft, found, fold + index, order[:, index], among)

        _, found = tf.while_loop(
            lambda index, _: index < order.shape[1],
            body,
            (tf.constant(0), found),
            parallel_iterations=1,
        )
        return found


def _updated(found: _Found, rows: tf.Tensor, new: _Found) -> _Found:
    """Writes what is worse into the rows of the batch."""
    old = _Found(*(tf.gather(whole, rows) for whole in found))
    better = new.fooled | (new.margin > old.margin)
    parts = []
    for whole, one, other in zip(found, new, old, strict=True):
        part = tf.where(broadcast_to_images(better, one), one, other)
        part = tf.tensor_scatter_nd_update(whole, rows[:, None], part)
        parts.append(tf.ensure_shape(part, whole.shape))
    return _Found(*parts)
