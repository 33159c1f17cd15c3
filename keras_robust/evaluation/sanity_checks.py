"""Sanity checks for gradient masking.

A model whose gradients vanish, are random, or are hidden behind a step looks robust to
gradient-based attacks without being so. Each check looks for one sign of that, and reports the
number that decided.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

import keras_robust.attacks as attacks
from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.gradient_ascent import NoGradient, value_and_gradient
from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.core.classifier import as_forward
from keras_robust.core.graphs import compiled
from keras_robust.core.types import Ball
from keras_robust.core.validation import check_ball, check_integer, check_number
from keras_robust.evaluation.rendering.wording import percent
from keras_robust.evaluation.results.parts import Check, FooledImages
from keras_robust.evaluation.running.adversarial_images import distance_limit, distances_between
from keras_robust.evaluation.running.attack_runner import AttackRunner
from keras_robust.evaluation.running.batching import Data, Model, Progress
from keras_robust.evaluation.running.model_warnings import is_random, repeat_gap
from keras_robust.evaluation.running.run_state import AttackRunState
from keras_robust.losses import classification as losses
from keras_robust.threat_models.balls import LinfBall
from keras_robust.threat_models.masks import support_of

# A loss that changes by less in the whole ball is lost in the rounding of float32.
_NEGLIGIBLE = 1e-7
_VANISHING = 0.1  # fraction of images whose gradient may vanish
_QUERIES = 1000  # of Square, per image that PGD did not fool
_MORE_STEPS = 4  # times the steps
_LARGER = (2.0, 4.0)  # times the radius


class _CheckRunner:
    """Runs the attacks of the checks, and computes what several checks share."""

    def __init__(self, runner: AttackRunner, ball: Ball, steps: int):
        self.runner, self.ball, self.steps = runner, ball, steps
        self.fooled: list[FooledImages] = []

    @functools.cached_property
    def slopes(self) -> np.ndarray | None:
        """First-order increase of the loss within the ball, `[n]`; None without a gradient.

        The radius times the dual norm of the gradient.
        """
        forward = as_forward(self.runner.model)

        @compiled
        def slope(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            _, gradient = value_and_gradient(
                lambda x_adv: losses.cross_entropy(forward(x_adv)["logits"], y), x
            )
            steepest = gradient * self.ball.steepest(gradient)
            return self.ball.radius * tf.reduce_sum(steepest, axis=range(1, x.shape.rank))

        runner, parts = self.runner, []
        try:
            for rows, real in runner.batches(len(runner.x)):
                parts.append(slope(tf.constant(runner.x[rows]), runner.y[rows]).numpy()[:real])
        except NoGradient:
            return None
        return np.concatenate(parts)

    @functools.cached_property
    def baseline(self) -> AttackRunState:
        """PGD with the given steps at the given radius."""
        return self.pgd(self.steps)

    def pgd(
        self, steps: int, ball: Ball | None = None, radius: float | None = None
    ) -> AttackRunState:
        """Runs PGD on all correctly classified images."""
        return self.run(attacks.pgd(ball or self.ball, steps), radius)

    def run(
        self, attack: Attack, radius: float | None = None, alive: np.ndarray | None = None
    ) -> AttackRunState:
        """Runs an attack on the images `alive`, default those classified correctly."""
        name = f"check by {attack.name}"
        run = self.runner.run(name, attack, radius, alive)
        fooled = (self.runner.correct if alive is None else alive) & ~run.robust
        self._keep(name, np.flatnonzero(fooled), run.images)
        return run

    def _keep(self, name: str, rows: np.ndarray, images: np.ndarray) -> None:
        """Keeps the fooled images that lie inside the ball, whatever ball the attack ran in."""
        if not len(rows):
            return
        distances = distances_between(self.ball, images[rows], self.runner.x[rows])
        rows = rows[distances <= distance_limit(float(self.ball.radius))]
        if len(rows):
            self.fooled.append(FooledImages(name, self.runner.x[rows], images[rows]))

    def check(self, name: str) -> Check:
        """Runs one check; its result has the images that its attacks fooled."""
        before = len(self.fooled)
        result = _CHECKS[name](name, self)
        message = f"{result.message} Measured on {len(self.runner.x):,} images."
        return dataclasses.replace(result, message=message, fooled=tuple(self.fooled[before:]))

    def loss(self, run: AttackRunState) -> float:
        """The mean cross-entropy on the attacked images of a run."""
        correct = self.runner.correct
        logits = tf.constant(self.runner.logits(run.images[correct]))
        return float(tf.reduce_mean(losses.cross_entropy(logits, self.runner.y[correct])))


def sanity_checks(
    model: Model,
    data: Data,
    ball: Ball,
    *,
    only: Iterable[str] | None = None,
    steps: int = 20,
    limit: int | None = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Check, ...]:
    """Runs sanity checks for gradient masking; each fails on one sign of it.

    - `gradients`: the gradient of the loss vanishes, or does not exist.
    - `logits`: the outputs are probabilities, a softmax before the loss.
    - `repeatability`: the outputs for the same images differ between two calls.
    - `small changes`: the outputs do not change under a random perturbation of a hundredth of the
      radius, as behind a rounding of the input.
    - `one step`: FGSM is stronger than PGD.
    - `steps`: four times the steps change the accuracy, or lower the loss.
    - `radius`: a larger ball makes PGD weaker, or PGD fails where any change is allowed (which a
      mask does not allow).
    - `gradient-free attacks`: Square (random search) fools images that PGD with cross-entropy and
      with margin loss did not; in L1, L2 and Linf only.

    Passing them is not a proof of robustness. The checks based on PGD are skipped for a model
    without a gradient. Transfer attacks are another check: `evaluate` warns if those of
    `keras_robust.attacks.transfer` are stronger than white-box attacks.

    Args:
        model, data, limit, seed: as for `keras_robust.evaluation.evaluate`.
        progress: called with lines of text, warnings about the model among them.
        ball: the threat model, with a radius > 0.
        only: names of the checks to run; default all that are defined in the ball's norm.
        steps: number of PGD steps.

    Returns:
        One `Check` each; `evaluate(..., checks=...)` adds them to a report.

    Raises:
        TypeError: not a ball.
        ValueError: an unknown name, a radius of 0, no data, or no image that the model classifies
            correctly.

    Example:
        >>> import keras_robust as kr
        >>> x = np.array([[0.5, 0.3], [0.9, 0.1]], "float32")
        >>> data, ball = (x, [0, 0]), kr.LinfBall(0.2)
        >>> sanity_checks(lambda x: {"logits": 5 * x}, data, ball, only=["gradients"])[0].passed
        True

    Reference: Carlini et al., "On Evaluating Adversarial Robustness" (2019), sections 3.3 and 5;
    Athalye et al., "Obfuscated Gradients Give a False Sense of Security" (2018), section 3.1;
    Croce et al., "Evaluating the Adversarial Robustness of Adaptive Test-time Defenses" (2022).
    """
    check_number("ball.radius", check_ball(ball), above=0)
    in_norm = (name for name in _CHECKS if ball.p is not None or name != "gradient-free attacks")
    names = tuple(in_norm if only is None else only)
    unknown = sorted(set(names) - set(_CHECKS))
    if unknown:
        raise ValueError(f"only names {unknown}; expected some of {', '.join(_CHECKS)}.")
    check_integer("steps", steps, 1)
    runner = AttackRunner(model, data, limit, seed, progress, ball=ball)
    if not runner.correct.any():
        raise ValueError(
            f"The model classifies none of the {len(runner.x)} images correctly; expected at least "
            "one to attack."
        )
    runner.log_warnings()
    check_runner = _CheckRunner(runner, ball, steps)
    if set(names) & _GRADIENT_BASED and check_runner.slopes is None:
        names = tuple(name for name in names if name not in _GRADIENT_BASED)
    return tuple(check_runner.check(name) for name in names)


def _gradients(name: str, checks: _CheckRunner) -> Check:
    slopes = checks.slopes
    if slopes is None:
        return Check(
            name, False, 1.0, "The loss has no gradient with respect to the images. Checks by "
            "gradient-based attacks are skipped; only gradient-free attacks are meaningful.",
        )  # fmt: skip
    vanishing = float(np.mean(~(slopes > _NEGLIGIBLE)))
    text = f"The gradient of the cross-entropy vanishes in {percent(vanishing)} of the images."
    advice = (
        f" Above {percent(_VANISHING)}, gradient-based attacks fail: use another loss (margin, "
        "DLR), or gradient-free attacks."
    )
    return _check(name, vanishing <= _VANISHING, vanishing, text, advice)


def _logits(name: str, checks: _CheckRunner) -> Check:
    logits = _finite_rows(checks.runner.logits(checks.runner.x))
    sums = logits.sum(axis=1)
    spread = float(np.ptp(sums) / max(np.abs(sums).max(), 1e-30))
    # Nonnegative numbers with a constant sum: a softmax, or a multiple of one.
    passed = not (logits.min() >= 0 and spread < 1e-3)
    text = (
        f"The smallest output is {logits.min():.3g}; the sums of the outputs differ by "
        f"{percent(spread)} between images."
    )
    advice = (
        " The outputs look like softmax probabilities, which saturate gradients. Attack the logits."
    )
    return _check(name, passed, spread, text, advice)


def _repeatability(name: str, checks: _CheckRunner) -> Check:
    first, second = (checks.runner.logits(checks.runner.x) for _ in range(2))
    gap = repeat_gap(first, second)
    text = (
        f"The outputs for the same images differ by {gap:.2g} standard deviations between two "
        "calls."
    )
    advice = (
        " The model is random: attack it with gradients averaged over many passes (EOT), and "
        "average accuracies over several runs."
    )
    return _check(name, not is_random(first, second), gap, text, advice)


def _small_changes(name: str, checks: _CheckRunner) -> Check:
    runner = checks.runner
    small = checks.ball.replace(radius=float(checks.ball.radius) / 100)
    moved = small.sample(tf.constant(runner.x), as_seed(runner.seed)).numpy()
    same = float(np.mean((runner.logits(runner.x) == runner.logits(moved)).all(axis=1)))
    text = (
        f"The outputs of {percent(same)} of the images do not change at all under a random "
        "perturbation of a hundredth of the radius."
    )
    advice = (
        " The model rounds its input or is locally constant, so its gradients are meaningless for "
        "larger changes. Attack it without the rounding, or with gradient-free attacks."
    )
    return _check(name, same <= runner.tolerance, same, text, advice)


def _one_step(name: str, checks: _CheckRunner) -> Check:
    one = checks.run(attacks.fgsm(checks.ball)).robust.mean()
    many = checks.baseline.robust.mean()
    ahead = float(many - one)
    text = (
        f"The accuracy is {percent(one)} after one step (FGSM) and {percent(many)} after "
        f"{checks.steps} steps (PGD)."
    )
    advice = " With useful gradients, iterative attacks are at least as strong as one step."
    return _check(name, ahead <= checks.runner.tolerance, ahead, text, advice)


def _steps(name: str, checks: _CheckRunner) -> Check:
    tolerance = checks.runner.tolerance
    runs = (checks.baseline, checks.pgd(_MORE_STEPS * checks.steps))
    before, after = (float(run.robust.mean()) for run in runs)
    loss_before, loss_after = (checks.loss(run) for run in runs)
    text = (
        f"With {checks.steps} steps of PGD the accuracy is {percent(before)} and the loss "
        f"{loss_before:.3g}; with {_MORE_STEPS * checks.steps} steps they are {percent(after)} and "
        f"{loss_after:.3g}."
    )
    gained, advice = before - after, ""
    if gained > tolerance:
        advice = " The attack has not converged; use more steps."
    elif gained < -tolerance or _decreases(loss_before, loss_after):
        advice = " More steps are weaker: the gradients are misleading."
    return _check(name, not advice, gained, text, advice)


def _radius(name: str, checks: _CheckRunner) -> Check:
    tolerance = checks.runner.tolerance
    radius, (low, high) = float(checks.ball.radius), checks.ball.bounds
    # In Linf a radius beyond the pixel range is refused, and the last run has that range.
    limit = high - low if checks.ball.p == math.inf else math.inf
    larger = [k for k in _LARGER if k * radius <= limit]
    runs = [checks.baseline, *(checks.pgd(checks.steps, radius=k * radius) for k in larger)]
    if math.isinf(high - low):
        low, high = float(checks.runner.x.min()), float(checks.runner.x.max())
    # With the pixel range as radius every ball allows any image, and Linf steps are the longest.
    unlimited = LinfBall(high - low, (low, high), mask=support_of(checks.ball))
    runs.append(checks.pgd(checks.steps, unlimited))
    accuracies = [float(run.robust.mean()) for run in runs]
    values = [checks.loss(run) for run in runs]
    text = (
        f"Accuracies under PGD: {', '.join(map(percent, accuracies))} at "
        f"{', '.join(f'{k:g}' for k in (1, *larger))} times the radius and with unlimited changes."
    )
    pairs = zip(accuracies, accuracies[1:], values, values[1:], strict=False)
    advice = ""
    if accuracies[-1] > tolerance and unlimited.mask is None:
        advice = " The last one should be 0: any image can be changed into any other."
    elif any(after > before + tolerance or _decreases(*loss) for before, after, *loss in pairs):
        advice = (
            " A larger ball contains the smaller one: the accuracy should not increase, nor the "
            "loss decrease."
        )
    return _check(name, not advice, accuracies[-1], text, advice)


def _gradient_free(name: str, checks: _CheckRunner) -> Check:
    texts = []
    alive = checks.runner.correct
    if checks.slopes is not None:
        # Cross-entropy is not the best loss for every model, which is not gradient masking.
        margin = attacks.pgd(checks.ball, checks.steps, loss="margin")
        by_entropy = checks.baseline.robust
        alive = checks.run(margin, alive=by_entropy).robust
        texts = [
            f"The accuracy is {percent(by_entropy.mean())} under PGD with cross-entropy, "
            f"{percent(alive.mean())} with the margin loss as well."
        ]
    attack = attacks.square(checks.ball, _QUERIES)
    more = float(alive.mean() - checks.run(attack, alive=alive).robust.mean())
    texts.append(f"The gradient-free attack {attack.name} fools a further {percent(more)}.")
    advice = " Gradient-based attacks are weaker than that: gradients are masked."
    return _check(name, more <= checks.runner.tolerance, more, " ".join(texts), advice)


def _check(name: str, passed: bool, value: float, text: str, advice: str) -> Check:
    """A result, with advice if it failed."""
    return Check(name, passed, value, text if passed else text + advice)


def _finite_rows(logits: np.ndarray) -> np.ndarray:
    """The rows that are finite; a report warns of the others."""
    return logits[np.isfinite(logits).all(axis=1)]


def _decreases(before: float, after: float) -> bool:
    """Whether a loss decreases by more than chance explains; False for NaN."""
    return after < 0.9 * before - 0.01


_CHECKS: dict[str, Callable[[str, _CheckRunner], Check]] = {
    "gradients": _gradients,
    "logits": _logits,
    "repeatability": _repeatability,
    "small changes": _small_changes,
    "one step": _one_step,
    "steps": _steps,
    "radius": _radius,
    "gradient-free attacks": _gradient_free,
}
_GRADIENT_BASED = {"one step", "steps", "radius"}
