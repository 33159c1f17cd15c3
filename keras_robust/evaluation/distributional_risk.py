"""The worst-case risk over distributions near the data: the certificate of WRM."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.attacks.crafting.gradient_ascent import GradientAttack, value_and_gradient
from keras_robust.attacks.crafting.initialization import AtInput
from keras_robust.attacks.crafting.inputs import check_batch
from keras_robust.attacks.crafting.objectives import LabelLoss
from keras_robust.attacks.crafting.step_rules import PenalizedStep
from keras_robust.core.classifier import as_forward, bounds_of, classifier_of
from keras_robust.core.graphs import compiled
from keras_robust.core.types import Images, Labels
from keras_robust.core.validation import check_integer, check_number
from keras_robust.evaluation.results.display import pairs_html
from keras_robust.evaluation.running.batching import Data, Model, batches
from keras_robust.threat_models.balls import L2Ball


@dataclasses.dataclass(frozen=True)
class DistributionalRisk:
    """The worst-case mean loss over distributions within a transport cost of the data.

    Args:
        gammas: prices of a unit of transport cost, ascending.
        clean_loss: mean cross-entropy on the data.
        surrogates: for each gamma the mean of `phi_gamma`, or of an upper bound if it is certified.
        attacked_losses: for each gamma the mean loss on the images that were found.
        attacked_costs: for each gamma their mean transport cost.
        certified: whether `bound` is proven; otherwise it is an estimate, which may be too low.
        samples: number of images.
    """

    gammas: tuple[float, ...]
    clean_loss: float
    surrogates: tuple[float, ...]
    attacked_losses: tuple[float, ...]
    attacked_costs: tuple[float, ...]
    certified: bool
    samples: int

    _repr_html_ = pairs_html

    def bound(self, rho: float | Sequence[float]) -> np.ndarray:
        """The bound `min over gamma of gamma * rho + mean phi_gamma`, of the shape of `rho`.

        Args:
            rho: transport costs, >= 0: mean squared L2 distances per image.
        """
        costs = np.asarray(rho, np.float64)
        if not np.all(costs >= 0):
            raise ValueError(f"rho is {costs.tolist()}; expected transport costs >= 0.")
        lines = np.multiply.outer(costs, self.gammas) + np.asarray(self.surrogates)
        return np.min(lines, axis=-1)

    def attacked_loss(self, rho: float | Sequence[float]) -> np.ndarray:
        """The largest mean loss that was found at a transport cost of at most `rho`.

        The mixtures of the distributions found, and of the data, have costs and losses in between.
        """
        order = np.argsort(self.attacked_costs)
        costs = np.concatenate([[0.0], np.asarray(self.attacked_costs)[order]])
        losses = np.concatenate([[self.clean_loss], np.asarray(self.attacked_losses)[order]])
        return np.interp(np.asarray(rho, np.float64), costs, np.maximum.accumulate(losses))


def distributional_risk(
    model: Model,
    data: Data,
    gammas: float | Sequence[float] | None = None,
    *,
    smoothness: float | None = None,
    steps: int = 50,
    bounds: tuple[float, float] | None = None,
    limit: int | None = 1000,
) -> DistributionalRisk:
    """Bounds the mean cross-entropy over all distributions near the data, beside the attacked one.

    For every `gamma >= 0` and `rho >= 0`, over distributions `Q` of images inside the bounds whose
    transport cost from the data, the mean of `||x' - x||^2`, is at most `rho`:

    `sup_Q E_Q[loss] <= gamma * rho + mean phi_gamma(x, y)`,
    `phi_gamma(x, y) = sup_x' loss(x', y) - gamma * ||x' - x||^2`.

    Gradient ascent finds the inner supremum. **This is a certificate only with `smoothness`**: a
    constant `L` that you have proven for the model, such that the gradient of the loss in the image
    is L-Lipschitz in L2. With `gamma > L / 2` the inner problem is strongly concave, and what the
    ascent has left is bounded and added. Networks with ReLU or max pooling have no such constant,
    and without one the result is an estimate: a lower bound of the supremum, which may be too low.
    The bound is of the data passed, up to the rounding of float32; of the distribution that they
    are drawn from it needs the further term of the paper's Theorem 3.

    Args:
        model: a model of any kind; WRM keeps the bound of its own gamma low.
        data, limit: as for `keras_robust.evaluation.evaluate`.
        gammas: prices of a unit of squared L2 distance, > 0; default that of a WRM model. UDR's
            dual variable prices another cost, so for UDR and other models pass several, such as
            `np.geomspace(0.05, 5, 8)`: the bound is the lowest of theirs.
        smoothness: the constant `L`, >= 0; None if it is not known.
        steps: number of ascent steps.
        bounds: the range of the pixels; default that of the model's attack, else (0, 1).

    Returns:
        The bound as a function of `rho`, and the losses and costs of the images that were found.

    Raises:
        ValueError: no gamma for a model that is not WRM's, gamma <= 0, or gamma <= L / 2; no data,
            or images outside the bounds.

    Example:
        >>> x, y = np.array([[0.5], [0.7]], "float32"), [0, 1]
        >>> model = lambda x: {"logits": tf.concat([tf.zeros_like(x), x - 0.5], axis=1)}
        >>> found = distributional_risk(model, (x, y), 0.5, smoothness=0.25)
        >>> found.certified, found.bound([0.0, 0.1]).round(2).tolist()
        (True, [0.79, 0.84])
        >>> round(found.clean_loss, 2)
        0.65

    Reference: Sinha, Namkoong, Duchi, "Certifying Some Distributional Robustness with Principled
    Adversarial Training" (2018), Eq. 2 and section 3.2; Bui et al., "A Unified Wasserstein
    Distributional Robustness Framework for Adversarial Training" (2022), Eq. 3.
    """
    prices = _checked(gammas, model, smoothness)
    check_integer("distributional_risk: steps", steps, 1)
    bounds = bounds or bounds_of(model) or (0.0, 1.0)
    measure = _measurement(model, bounds, smoothness, steps)
    sums, samples = np.zeros([4, len(prices)]), 0
    for x, y in batches(data, limit):
        x, y, _ = check_batch(x, y, None, bounds)
        for number, gamma in enumerate(prices):
            values = measure(x, y, tf.constant(gamma, tf.float32))
            sums[:, number] += [float(np.sum(v, dtype=np.float64)) for v in values]
        samples += len(x)
    clean, *means = sums / samples
    surrogates, losses, costs = (tuple(map(float, mean)) for mean in means)
    certified = smoothness is not None
    return DistributionalRisk(
        prices, float(clean[0]), surrogates, losses, costs, certified, samples
    )


def _checked(gammas: Any, model: Model, smoothness: float | None) -> tuple[float, ...]:
    """The prices in ascending order."""
    if gammas is None:
        rule = getattr(getattr(model, "attack", None), "step_rule", None)
        if not isinstance(rule, PenalizedStep):
            raise ValueError(
                "distributional_risk: the model is not one of `keras_robust.defenses.wrm`, which "
                "has a gamma; pass `gammas`, such as `np.geomspace(0.05, 5, 8)`."
            )
        gammas = rule.multiplier / 2
    values = gammas if isinstance(gammas, (Sequence, np.ndarray)) else [gammas]
    if not len(values):
        raise ValueError("distributional_risk: gammas is empty; expected at least one price.")
    for gamma in values:
        check_number("distributional_risk: gamma", gamma, above=0)
    if smoothness is not None:
        check_number("distributional_risk: smoothness", smoothness)
        if min(values) <= smoothness / 2:
            raise ValueError(
                f"distributional_risk: gamma is {min(values)} and smoothness {smoothness}; "
                "expected gamma > smoothness / 2, or the inner problem may not be concave. Leave "
                "smoothness out for an estimate."
            )
    return tuple(sorted(map(float, values)))


def _measurement(
    model: Model, bounds: tuple[float, float], smoothness: float | None, steps: int
) -> Callable[[Images, Labels, tf.Tensor], tuple[tf.Tensor, ...]]:
    """A function of a batch and gamma, traced once.

    It returns, for each image, the clean loss, `phi_gamma` (or an upper bound of it), and the loss
    and the cost of the image that was found.
    """
    classifier, objective = classifier_of(model), LabelLoss("cross_entropy")
    ball = L2Ball(1.0, bounds)  # the radius is not used
    # Steps of one length converge where the inner problem is concave; elsewhere those of WRM.
    decay = 0.5 if smoothness is None else 0.0

    @compiled
    def measure(x: Images, y: Labels, gamma: tf.Tensor) -> tuple[tf.Tensor, ...]:
        rule = PenalizedStep(0.5 / gamma, 2 * gamma, decay)
        attack = GradientAttack(ball, objective, rule, steps, AtInput())
        x_adv, gamma = attack(classifier, x, y), tf.cast(gamma, x.dtype)
        value = objective(as_forward(classifier), x, y)
        loss, gradient = value_and_gradient(value, x_adv)
        clean = value(x)
        delta = x_adv - x
        cost = _sum(tf.square(delta))
        penalized = loss - gamma * cost
        if smoothness is None:
            surrogate = tf.maximum(penalized, clean)
        else:
            concavity = 2 * gamma - smoothness
            surrogate = penalized + _left(x_adv, gradient - 2 * gamma * delta, concavity, bounds)
        better = penalized > clean  # or the clean image is the worst that is known
        return clean, surrogate, tf.where(better, loss, clean), tf.where(better, cost, 0.0)

    return measure


def _left(
    x: Images, gradient: tf.Tensor, concavity: tf.Tensor, bounds: tuple[float, float]
) -> tf.Tensor:
    """How far a strongly concave function may rise above its value at `x`, inside the bounds.

    It stays below `gradient . d - concavity / 2 ||d||^2`, whose largest value in a box is found
    pixel by pixel.
    """
    low, high = bounds
    step = tf.clip_by_value(gradient / concavity, low - x, high - x)
    return _sum(gradient * step - concavity / 2 * tf.square(step))


def _sum(values: tf.Tensor) -> tf.Tensor:
    """The sum over the pixels of each image."""
    return tf.reduce_sum(values, axis=list(range(1, values.shape.rank)))
