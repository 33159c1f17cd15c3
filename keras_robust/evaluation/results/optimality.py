"""Optimality of minimum-norm attacks: how close their distances come to the best that are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_robust.evaluation.results.parts import Curve


def optimality(distances: Mapping[str, Any], best: Any = None) -> dict[str, float]:
    """The optimality of each of several attacks on one model.

    With the accuracy as a function of the distance, and its area up to the largest of the best
    known distances, `(whole - area) / (whole - smallest area)`: 1 for an attack that finds the best
    known distance of every image, 0 for one that finds nothing; `whole` is the area under the
    constant clean accuracy. The area is the mean of the distances, cut at the largest best one.

    Args:
        distances: name of an attack -> distances `[n]` of the adversarial examples that it found:
            0 for images that are misclassified already, infinity where it found none.
        best: `[n]`, further known distances, such as those of attacks that are not compared.

    Returns:
        Name -> optimality in [0, 1]; 1 for all where no image has a known distance above 0. Its
        mean over models is the global optimality of AttackBench.

    Raises:
        ValueError: no attacks, distances of different shapes, negative ones or NaN.

    Example:
        >>> found = {"A": [0.0, 1.0, 4.0], "B": [0.0, 2.0, 3.0], "C": [0.0, 3.0, np.inf]}
        >>> {name: round(value, 3) for name, value in optimality(found).items()}
        {'A': 1.0, 'B': 0.5, 'C': 0.0}

    Reference: Cina et al., "AttackBench: Evaluating Gradient-based Attacks for Adversarial
    Examples" (2025), local and global optimality.

    Differs: the area is that of the step function; theirs interpolates between its points.
    """
    arrays = {name: _checked(name, values) for name, values in distances.items()}
    if best is not None:
        arrays["best known"] = _checked("best", best)
    if not distances or len({array.shape for array in arrays.values()}) > 1:
        raise ValueError(
            f"distances have the shapes {[array.shape for array in arrays.values()]}; expected "
            "those of at least one attack, of the same images."
        )
    smallest = np.min(list(arrays.values()), axis=0)
    known = smallest[np.isfinite(smallest)]
    largest = known.max(initial=0.0)
    if largest == 0:
        return dict.fromkeys(distances, 1.0)
    whole = float((smallest > 0).mean()) * largest

    def gain(array: np.ndarray) -> float:
        return whole - float(np.minimum(array, largest).mean())

    if gain(smallest) <= 0:  # all known distances are equal, up to rounding
        return {name: float((arrays[name] <= largest)[smallest > 0].mean()) for name in distances}
    return {name: float(np.clip(gain(arrays[name]) / gain(smallest), 0, 1)) for name in distances}


def median_distance(distances: Any) -> float:
    """The median of distances `[n]`, infinite if at most half of the images are fooled.

    Example:
        >>> median_distance([0.0, 1.0, np.inf])
        1.0
    """
    return float(np.quantile(_checked("distances", distances), 0.5, method="higher"))


def accuracy_curve(name: str, distances: Any, most: int = 200) -> Curve:
    """Accuracy over distance, from one run of a minimum-norm attack.

    Args:
        name: name of the attack.
        distances: `[n]`, as for `optimality`.
        most: the largest number of radii; of more distances, evenly spaced quantiles.

    Example:
        >>> curve = accuracy_curve("FMN", [0.0, 1.0, 2.0, np.inf])
        >>> curve.radii, curve.accuracies
        ((0.0, 1.0, 2.0), (0.75, 0.5, 0.25))
    """
    array = _checked(name, distances)
    radii = np.unique(array[np.isfinite(array)])
    if len(radii) > most:
        radii = radii[np.linspace(0, len(radii) - 1, most).round().astype(int)]
    radii = np.unique([0.0, *radii])
    accuracies = [float((array > radius).mean()) for radius in radii]
    return Curve(name, tuple(map(float, radii)), tuple(accuracies))


def _checked(name: str, distances: Any) -> np.ndarray:
    array = np.asarray(distances, np.float64)
    if array.ndim != 1 or not array.size or not (array >= 0).all():  # NaN is refused too
        raise ValueError(
            f"{name}: distances have the shape {array.shape}, or are negative or NaN; expected "
            "one number >= 0 per image, infinity where none was found."
        )
    return array
