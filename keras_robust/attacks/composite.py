"""Attacks made of attacks: restarts, the worst of several, every class as target.

For every image they keep a result that is misclassified, if there is one, and among equals the one
with the largest margin (the best other logit minus the label's), beginning with the clean image
itself. So a combination is never weaker than its parts.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting import objectives
from keras_robust.attacks.crafting.base import Attack, AttackWrapper, Round, check_attack
from keras_robust.attacks.crafting.gradient_ascent import noinline
from keras_robust.core.config import replace, serializable
from keras_robust.core.numerics import broadcast_to_images
from keras_robust.core.types import (
    Ball,
    Forward,
    Images,
    Labels,
    Logits,
    PerExample,
    Radius,
    Scalar,
)
from keras_robust.core.validation import check_integer
from keras_robust.losses import classification as losses


def _check_part(owner: str, attack: Attack) -> None:
    check_attack(f"{owner}: the attack", attack)
    if attack.per_member:
        raise ValueError(
            f"{owner}: the attack {attack.name} returns one batch per member; expected one that "
            "returns a single batch. Put `keras_robust.attacks.per_member` around the whole."
        )


def _check_untargeted(owner: str, attack: Attack) -> None:
    _check_part(owner, attack)
    if attack.takes_targets:
        raise ValueError(
            f"{owner}: the attack {attack.name} is targeted; expected an untargeted one, as the "
            "result that is worst for the true label is kept. Wrap it in "
            "`keras_robust.attacks.multi_targeted` first."
        )


class Combination(Attack):
    """Runs its rounds on the whole batch and keeps the worst result of each image."""

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """The worst of the rounds, which choose their own targets."""
        objectives.refuse_targets(self.name, targets)
        clean = forward(x)["logits"]
        batch = x.shape[:1]
        margin, fooled = losses.margin(clean, y), losses.misclassified(clean, y)
        worst = _Worst(x, tf.ensure_shape(margin, batch), tf.ensure_shape(fooled, batch))
        for series in _series(self.rounds(clean.shape[-1])):
            worst = _run(series, worst, forward, x, y, clean, seed)
        return worst.x


class _Worst(NamedTuple):
    """The worst result of each image so far."""

    x: Images
    margin: PerExample
    fooled: tf.Tensor

    def updated(self, candidate: Images, logits: Logits, y: Labels) -> _Worst:
        """The worse of it and a candidate."""
        margin, wrong = losses.margin(logits, y), losses.misclassified(logits, y)
        # Tied logits have margin 0 and may be classified either way, which `larger` ignores.
        better = tf.where(tf.equal(wrong, self.fooled), margin > self.margin, wrong)
        x = tf.where(broadcast_to_images(better, self.x), candidate, self.x)
        # Not `maximum`, with which one NaN would exclude all later candidates.
        margin = tf.where(better, margin, self.margin)
        found = _Worst(x, margin, self.fooled | better & wrong)
        return _Worst(
            *(tf.ensure_shape(new, old.shape) for new, old in zip(found, self, strict=True))
        )


def _series(rounds: tuple[Round, ...]) -> list[tuple[Round, ...]]:
    """The rounds, those in a row that run one attack in the same way together."""
    groups = itertools.groupby(
        rounds, lambda part: (id(part.attack), part.offset is None, part.rank is None)
    )
    return [tuple(group) for _, group in groups]


def _run(
    series: tuple[Round, ...], worst: _Worst, forward: Forward, x: Images, y: Labels,
    clean: Logits, seed: tf.Tensor,
) -> _Worst:  # fmt: skip
    """Runs a series of rounds; several are a loop, so that a graph holds the attack once."""
    attack = series[0].attack

    def run(part: Round, worst: _Worst) -> _Worst:
        targets = part.targets(y, clean)
        candidate = craft(x, y, part.seed(seed), targets)
        return worst.updated(candidate, forward(candidate)["logits"], y)

    craft: Callable[..., Images] = functools.partial(attack.craft, forward)
    if len(series) == 1:
        return run(series[0], worst)
    craft = noinline(craft)
    settings = [
        tf.constant([setting or 0 for setting in column], tf.int32)
        for column in zip(*(part[1:] for part in series), strict=True)
    ]

    def body(index: tf.Tensor, worst: _Worst) -> tuple[tf.Tensor, _Worst]:
        fold, offset, rank = (column[index] for column in settings)
        part = Round(
            attack,
            fold,
            None if series[0].offset is None else offset,
            None if series[0].rank is None else rank,
        )
        return index + 1, run(part, worst)

    _, worst = tf.while_loop(
        lambda index, _: index < len(series), body, (tf.constant(0), worst), parallel_iterations=1
    )
    return worst


@serializable
class Restarts(AttackWrapper, Combination):
    """Several runs of an attack with different seeds; keeps the worst result of each image.

    Args:
        attack: the attack to repeat.
        count: the number of runs, >= 1.

    Raises:
        TypeError: not an attack.
        ValueError: a count below 1; a targeted or per-member attack, or one without randomness.

    Example:
        >>> from keras_robust import LinfBall, attacks
        >>> attack = Restarts(attacks.pgd(LinfBall(0.3), steps=40), count=5)
        >>> len(attack.rounds(classes=10))
        5
    """

    attack: Attack
    count: int

    def __post_init__(self) -> None:
        check_integer("Restarts: count", self.count, 1)
        _check_untargeted("Restarts", self.attack)
        if self.count > 1 and not self.attack.is_random:
            raise ValueError(
                f"Restarts: the attack {self.attack.name} does not depend on the seed, so all "
                f"{self.count} runs would give the same result; expected an attack with a random "
                "start or search."
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        """The attack's name and the number of runs."""
        return f"{self.attack.name} x {self.count}"

    def rounds(self, classes: int) -> tuple[Round, ...]:
        """`count` times the rounds of the attack, each with a seed of its own."""
        parts = self.attack.rounds(classes)
        return tuple(
            part._replace(fold=part.fold + repeat * len(parts))
            for repeat in range(self.count)
            for part in parts
        )


@serializable
class WorstOf(Combination):
    """Several attacks in one ball; keeps the worst result of each image.

    Args:
        attacks: a tuple of attacks that share a ball.

    Raises:
        TypeError: a part that is not an attack.
        ValueError: no attacks, different balls, a targeted or per-member attack.

    Example:
        >>> from keras_robust import LinfBall, attacks
        >>> ball = LinfBall(0.3)
        >>> attack = WorstOf((attacks.pgd(ball), attacks.mim(ball)))
        >>> len(attack.rounds(classes=10))
        2
    """

    attacks: tuple[Attack, ...]

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ValueError("WorstOf: no attacks were received; expected at least one.")
        for attack in self.attacks:
            _check_untargeted("WorstOf", attack)
        # Inside a compiled attack the radius is a tensor, and the balls have been compared before.
        known = [a.ball for a in self.attacks if isinstance(a.ball.radius, (int, float))]
        if any(ball != known[0] for ball in known):
            raise ValueError(
                f"WorstOf: the attacks have different balls, {', '.join(map(str, known))}; "
                "expected one threat model for all."
            )

    @property
    def ball(self) -> Ball:  # type: ignore[override]
        """The attacks' threat model."""
        return self.attacks[0].ball

    @property
    def name(self) -> str:  # type: ignore[override]
        """The names of the attacks."""
        return "worst of " + ", ".join(attack.name for attack in self.attacks)

    @property
    def gradient_steps(self) -> int | None:
        """The most steps of any of the attacks."""
        steps = [a.gradient_steps for a in self.attacks if a.gradient_steps is not None]
        return max(steps, default=None)

    @property
    def is_random(self) -> bool:
        """Whether any of the attacks depends on the seed."""
        return any(attack.is_random for attack in self.attacks)

    def rounds(self, classes: int) -> tuple[Round, ...]:
        """The rounds of every attack in turn, each with a seed of its own."""
        parts = [part for attack in self.attacks for part in attack.rounds(classes)]
        return tuple(part._replace(fold=number) for number, part in enumerate(parts))

    def at_radius(self, radius: Radius, step_size: Scalar | None = None) -> WorstOf:
        """The same attacks in a ball of another radius."""
        return replace(self, attacks=tuple(a.at_radius(radius, step_size) for a in self.attacks))


@serializable
class MultiTargeted(AttackWrapper, Combination):
    """A targeted attack run towards every class but the label; keeps each image's worst result.

    Args:
        attack: a targeted attack.
        n_target_classes: aim at this many classes only, the likeliest ones of the clean image; None
            for all of them.

    Raises:
        TypeError: not an attack.
        ValueError: an untargeted or per-member attack, or `n_target_classes` below 1.

    Example:
        >>> from keras_robust import LinfBall, attacks
        >>> attack = MultiTargeted(attacks.pgd(LinfBall(0.3), targeted=True))
        >>> len(attack.rounds(classes=10))
        9

    Reference: Gowal et al., "An Alternative Surrogate Loss for PGD-based Adversarial Testing"
    (2019), section 4; the likeliest classes: Croce and Hein, "Reliable Evaluation of Adversarial
    Robustness" (2020), section 5.
    """

    attack: Attack
    n_target_classes: int | None = None

    def __post_init__(self) -> None:
        _check_part("MultiTargeted", self.attack)
        if not self.attack.takes_targets:
            raise ValueError(
                f"MultiTargeted: the attack {self.attack.name} is untargeted; expected a targeted "
                "one, such as `keras_robust.attacks.pgd(ball, targeted=True)`."
            )
        if self.n_target_classes is not None:
            check_integer("MultiTargeted: n_target_classes", self.n_target_classes, 1)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The attack's name, marked as multi-targeted."""
        return f"multi-targeted {self.attack.name}"

    @property
    def takes_targets(self) -> bool:
        """It chooses the targets itself."""
        return False

    def rounds(self, classes: int) -> tuple[Round, ...]:
        """One round for every class but the label, or for the likeliest of them."""
        if self.n_target_classes is not None:
            ranks = range(1, min(self.n_target_classes, classes - 1) + 1)
            return tuple(Round(self.attack, rank, rank=rank) for rank in ranks)
        return tuple(Round(self.attack, offset, offset) for offset in range(1, classes))


restarts = Restarts
multi_targeted = MultiTargeted


def worst_of(*attacks: Attack) -> WorstOf:
    """The worst of several attacks in one ball; see `WorstOf`."""
    return WorstOf(attacks)
