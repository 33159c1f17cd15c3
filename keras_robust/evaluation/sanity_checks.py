"""Believability checks: reasons to doubt what attacks by gradients say of a model.

A model whose gradients vanish, are random, or are hidden behind a step looks robust to attacks that
follow them, and is not. Each check looks for one sign of that, and gives the number that decided.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

import keras_robust.attacks as attacks
from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.gradient_ascent import NoGradient, value_and_gradient
from keras_robust.attacks.crafting.inputs import as_seed
from keras_robust.core.classifier import as_forward
from keras_robust.core.types import Ball
from keras_robust.evaluation.attack_runner import AttackRunner
from keras_robust.evaluation.rendering.wording import percent
from keras_robust.evaluation.results import Check
from keras_robust.evaluation.run_state import AttackRunState
from keras_robust.losses import classification as losses
from keras_robust.threat_models.balls import LinfBall

# A loss that can change by less in the whole ball is lost in the rounding of float32.
_NOTHING = 1e-7
_QUERIES = 1000  # of Square, for each image that PGD did not fool
_LONGER = 4  # times the steps
_WIDER = (2.0, 4.0)  # times the radius


class _Probe:
    """A bench, and what several checks look at."""

    def __init__(self, bench: AttackRunner, ball: Ball, steps: int):
        self.bench, self.ball, self.steps = bench, ball, steps

    @functools.cached_property
    def slopes(self) -> np.ndarray | None:
        """By how much the gradient promises to raise the loss within the ball; None: no gradient.

        The radius times the norm of the gradient that is dual to the ball's, `[n]`.
        """
        forward = as_forward(self.bench.model)

        @tf.function(autograph=False, reduce_retracing=True)
        def slope(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            _, gradient = value_and_gradient(
                lambda x_adv: losses.cross_entropy(forward(x_adv)["logits"], y), x
            )
            steepest = gradient * self.ball.steepest(gradient)
            return self.ball.radius * tf.reduce_sum(steepest, axis=range(1, x.shape.rank))

        bench, parts = self.bench, []
        try:
            for rows, real in bench.batches(len(bench.x)):
                parts.append(slope(tf.constant(bench.x[rows]), bench.y[rows]).numpy()[:real])
        except NoGradient:
            return None
        return np.concatenate(parts)

    @functools.cached_property
    def iterated(self) -> AttackRunState:
        """What PGD, from which the others are a step away, left."""
        return self.pgd(self.steps)

    def pgd(self, steps: int, ball: Any = None, radius: float | None = None) -> AttackRunState:
        """Runs PGD on all images that are classified rightly."""
        return self.run(attacks.pgd(ball or self.ball, steps), radius)

    def run(
        self, attack: Attack, radius: float | None = None, alive: np.ndarray | None = None
    ) -> AttackRunState:
        """Runs an attack on the images that are alive, by default those classified rightly."""
        return self.bench.run(f"check by {attack.name}", attack, radius, alive)

    def loss(self, run: AttackRunState) -> float:
        """The mean cross-entropy of the images that an attack made."""
        logits = tf.constant(self.bench.logits(run.images[self.bench.correct]))
        return float(tf.reduce_mean(losses.cross_entropy(logits, self.bench.y[self.bench.correct])))


def sanity_checks(
    model: Any,
    data: Any,
    ball: Ball,
    *,
    only: Iterable[str] | None = None,
    steps: int = 20,
    limit: int | None = 100,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> tuple[Check, ...]:
    """Looks for reasons to doubt what attacks by gradients say of a model.

    - `gradients`: the gradient of the loss vanishes, or there is none.
    - `logits`: the outputs are probabilities, a softmax in front of the loss.
    - `repeatability`: the same image gives other outputs the second time.
    - `small changes`: the outputs stay the same under a change of a hundredth of the radius, as
      behind a rounding of the input.
    - `one step`: FGSM fools images that PGD does not.
    - `steps`: four times the steps leave another accuracy, or a lower loss.
    - `radius`: in a larger ball PGD does worse, or it fails where it may change everything.
    - `gradient-free attacks`: a random search (Square) fools images that PGD did not, by the
      cross-entropy nor by the margin.

    They prove nothing where they pass. Of a model without a gradient, those of PGD are left out. A
    model to transfer from is not to be had here: see `keras_robust.evaluation.black_box`; and a
    report with attacks of `keras_robust.attacks.transfer` warns where these do better than those
    on the model itself.

    Args:
        model: a robust model, a classifier, or a function `images -> {"logits", ...}`.
        data: a `tf.data.Dataset` of batches `(images, labels)`, or a pair of arrays.
        ball: the threat model, of a radius > 0.
        only: the names of the checks to make; default all of them.
        steps: of PGD.
        limit: use only the first so many images.
        seed: of all that is random.
        progress: called with a line of text now and then, such as `print`.

    Returns:
        What was found, one `Check` each; `evaluate(..., checks=...)` puts them into the report.

    Raises:
        ValueError: a name that is none, a radius of 0, no data, no image that the model classifies
            rightly.

    Example:
        >>> import keras_robust as kr
        >>> x = np.array([[0.5, 0.3], [0.9, 0.1]], "float32")
        >>> ball = kr.LinfBall(0.2)
        >>> sanity_checks(lambda x: {"logits": 5 * x}, (x, [0, 0]), ball, only=["gradients"])[0].passed
        True
        >>> rounded = lambda x: {"logits": 5 * tf.round(x)}
        >>> sanity_checks(rounded, (x, [0, 0]), ball, only=["gradients"])[0].sentence[:48]
        'The loss has no gradient in the images. Checks o'

    Reference: Carlini et al., "On Evaluating Adversarial Robustness" (2019), sections 3.3 and 5;
    Athalye et al., "Obfuscated Gradients Give a False Sense of Security" (2018), section 3.1;
    Croce et al., "Evaluating the Adversarial Robustness of Adaptive Test-time Defenses" (2022).
    """
    names = tuple(_CHECKS if only is None else only)
    unknown = sorted(set(names) - set(_CHECKS))
    if unknown:
        raise ValueError(f"only names {unknown}; expected some of {', '.join(_CHECKS)}.")
    if not float(ball.radius) > 0:
        raise ValueError(f"ball is {ball}; expected a radius > 0, within which there is something.")
    bench = AttackRunner(model, data, limit, seed, progress or (lambda line: None))
    if not bench.correct.any():
        raise ValueError("The model classifies none of the images rightly: nothing to attack.")
    probe = _Probe(bench, ball, steps)
    if set(names) & _BY_GRADIENT and probe.slopes is None:
        names = tuple(name for name in names if name not in _BY_GRADIENT)
    return tuple(_CHECKS[name](name, probe) for name in names)


def _gradients(name: str, probe: _Probe) -> Check:
    slopes = probe.slopes
    if slopes is None:
        return Check(
            name, False, 1.0, "The loss has no gradient in the images. Checks of attacks by "
            "gradients are left out; nothing but gradient-free attacks says anything.",
        )  # fmt: skip
    lost = float(np.mean(~(slopes > _NOTHING)))
    sentence = f"The gradient of the cross-entropy vanishes in {percent(lost)} of the images."
    if lost <= (often := 0.1):
        return Check(name, True, lost, sentence)
    return Check(
        name, False, lost, f"{sentence} Above {percent(often)} attacks that follow it are blind: "
        "use another loss (margin, DLR), or gradient-free attacks.",
    )  # fmt: skip


def _logits(name: str, probe: _Probe) -> Check:
    logits = _numbers(probe.bench.logits(probe.bench.x))
    sums = logits.sum(axis=1)
    spread = float(np.ptp(sums) / max(np.abs(sums).max(), 1e-30))
    # Zeros and more that always have the same sum: a softmax, or a multiple of one.
    passed = not (logits.min() >= 0 and spread < 1e-3)
    sentence = (
        f"The smallest output is {logits.min():.3g}; the sums of an image's outputs differ by "
        f"{percent(spread)}."
    )
    told = "" if passed else (
        " Those of a softmax do so: it flattens gradients. Attack what stands before it."
    )  # fmt: skip
    return Check(name, passed, spread, sentence + told)


def _repeatability(name: str, probe: _Probe) -> Check:
    first, second = (probe.bench.logits(probe.bench.x) for _ in range(2))
    # The order of a sum may change its last digits.
    spread = max(float(_numbers(first).std()), 1e-30)
    gap = float(np.abs(_numbers(first - second)).max(initial=0)) / spread
    sentence = f"The outputs of the same images differ by {gap:.2g} of their standard deviation."
    if gap <= 1e-4:
        return Check(name, True, gap, sentence)
    return Check(
        name, False, gap, f"{sentence} A random model is attacked by the mean gradient of many "
        "passes, and figures of one pass are partly chance.",
    )  # fmt: skip


def _small_changes(name: str, probe: _Probe) -> Check:
    bench = probe.bench
    near = probe.ball.replace(radius=float(probe.ball.radius) / 100)
    moved = near.sample(tf.constant(bench.x), as_seed(bench.seed)).numpy()
    same = float(np.mean((bench.logits(bench.x) == bench.logits(moved)).all(axis=1)))
    sentence = (
        f"The outputs of {percent(same)} of the images stay exactly as they are under a random "
        "change of a hundredth of the radius."
    )
    if same <= probe.bench.few:
        return Check(name, True, same, sentence)
    return Check(
        name, False, same, f"{sentence} The model rounds its input or is flat: its gradient says "
        "nothing of larger changes. Attack it without the rounding, or gradient-free.",
    )  # fmt: skip


def _one_step(name: str, probe: _Probe) -> Check:
    one = probe.run(attacks.fgsm(probe.ball)).robust.mean()
    many = probe.iterated.robust.mean()
    ahead = float(many - one)
    sentence = (
        f"One step (FGSM) leaves an accuracy of {percent(one)}, {probe.steps} steps (PGD) "
        f"{percent(many)}."
    )
    passed = ahead <= probe.bench.few
    told = "" if passed else " Iterated attacks are no weaker where gradients tell the way."
    return Check(name, passed, ahead, sentence + told)


def _steps(name: str, probe: _Probe) -> Check:
    runs = (probe.iterated, probe.pgd(_LONGER * probe.steps))
    before, after = (float(run.robust.mean()) for run in runs)
    lower, higher = (probe.loss(run) for run in runs)
    sentence = (
        f"With {probe.steps} steps of PGD the accuracy is {percent(before)} and the loss "
        f"{lower:.3g}; with {_LONGER * probe.steps} it is {percent(after)} and {higher:.3g}."
    )
    gained = before - after
    told = ""
    if gained > probe.bench.few:
        told = " The attack has not come to its end: use more steps."
    elif gained < -probe.bench.few or _falls(lower, higher):
        told = " More steps do worse: the gradient does not tell the way."
    return Check(name, not told, gained, sentence + told)


def _radius(name: str, probe: _Probe) -> Check:
    radius, (low, high) = float(probe.ball.radius), probe.ball.bounds
    runs = [probe.iterated, *(probe.pgd(probe.steps, radius=k * radius) for k in _WIDER)]
    # As large as the range, every ball holds all images, and steps of Linf are the longest.
    runs.append(probe.pgd(probe.steps, LinfBall(high - low, probe.ball.bounds)))
    accuracies = [float(run.robust.mean()) for run in runs]
    values = [probe.loss(run) for run in runs]
    sentence = (
        f"PGD at the radius, at {', at '.join(f'{k:g} times' for k in _WIDER)} and where it may "
        f"change everything leaves accuracies of {', '.join(map(percent, accuracies))}."
    )
    pairs = zip(accuracies, accuracies[1:], values, values[1:], strict=False)
    told = ""
    if accuracies[-1] > probe.bench.few:
        told = " The last has to be 0: any image can become any other."
    elif any(after > before + probe.bench.few or _falls(*loss) for before, after, *loss in pairs):
        told = " A larger ball holds the smaller one: accuracy cannot rise, nor the loss fall."
    return Check(name, not told, accuracies[-1], sentence + told)


def _gradient_free(name: str, probe: _Probe) -> Check:
    told = []
    left = probe.bench.correct
    if probe.slopes is not None:
        # The cross-entropy is not the best loss for every model, which masks nothing.
        margin = attacks.pgd(probe.ball, probe.steps, loss="margin")
        by_entropy = probe.iterated.robust
        left = probe.run(margin, alive=by_entropy).robust
        told = [f"PGD leaves an accuracy of {percent(by_entropy.mean())} by the cross-entropy, "
                f"{percent(left.mean())} by that and the margin."]  # fmt: skip
    attack = attacks.square(probe.ball, _QUERIES)
    more = float(left.mean() - probe.run(attack, alive=left).robust.mean())
    told.append(f"{attack.name}, without gradients, fools a further {percent(more)} of the images.")
    if more > probe.bench.few:
        told.append("Attacks by gradients are weaker than that: gradients are masked.")
    return Check(name, more <= probe.bench.few, more, " ".join(told))


def _numbers(logits: np.ndarray) -> np.ndarray:
    """The rows that are numbers; of the others the report warns already."""
    return logits[np.isfinite(logits).all(axis=1)]


def _falls(before: float, after: float) -> bool:
    """Whether a loss is lower than chance explains; a loss that is no number tells nothing."""
    return after < 0.9 * before - 0.01


_CHECKS: dict[str, Callable[[str, _Probe], Check]] = {
    "gradients": _gradients,
    "logits": _logits,
    "repeatability": _repeatability,
    "small changes": _small_changes,
    "one step": _one_step,
    "steps": _steps,
    "radius": _radius,
    "gradient-free attacks": _gradient_free,
}
_BY_GRADIENT = {"one step", "steps", "radius"}
