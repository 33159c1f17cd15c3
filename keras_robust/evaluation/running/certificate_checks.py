"""Certificates in an evaluation: they fit it, and nothing that it found refutes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from keras_robust.core.types import Ball
from keras_robust.evaluation.results.certification_result import CertificationResult
from keras_robust.evaluation.results.descriptions import describe
from keras_robust.evaluation.running.adversarial_images import distance_limit
from keras_robust.evaluation.running.attack_runner import AttackRunner


def check_certificates(
    certificates: Iterable[CertificationResult], runner: AttackRunner, ball: Ball
) -> tuple[CertificationResult, ...]:
    """Certificates for the images and the threat model of an evaluation.

    Raises:
        TypeError: not results of `certify`.
        ValueError: certificates of other images, of another model or in another ball.
    """
    given = [certificates] if isinstance(certificates, CertificationResult) else list(certificates)
    names = [getattr(result, "name", "") for result in given]
    if len(set(names)) != len(names):
        raise ValueError(f"certificates have the names {names}; expected one of each method.")
    for result in given:
        if not isinstance(result, CertificationResult):
            raise TypeError(
                f"certificates contain {result!r}; expected results of "
                "`keras_robust.evaluation.certify`."
            )
        if result.threat_model != describe(ball):
            raise ValueError(
                f"{result.name} certifies in {result.threat_model}; expected the threat model of "
                f"the attacks, {describe(ball)}."
            )
        differ = result.samples != len(runner.x)
        if not differ and not result.smoothed:
            differ = (np.array(result.correct) != runner.correct).mean() > runner.tolerance
        if differ:
            raise ValueError(
                f"{result.name} certifies other predictions ({result.samples} images, clean "
                f"accuracy {result.clean_accuracy:.4f}) than those of the evaluation "
                f"({len(runner.x)} images, {runner.correct.mean():.4f}); expected the same model, "
                "data and limit."
            )
    return tuple(given)


def refuted(result: CertificationResult, runner: AttackRunner) -> CertificationResult:
    """A result with the images that an evaluation fooled within their certified radius."""
    if result.smoothed:  # the attacks fooled another classifier
        return result
    radii = np.array([radius or 0.0 for radius in result.certified_radii])
    fooled = (radii > 0) & (runner.found.distances <= distance_limit(radii))  # type: ignore[arg-type]
    numbers = tuple(sorted({*result.refuted, *map(int, np.flatnonzero(fooled))}))
    return dataclasses.replace(result, refuted=numbers)
