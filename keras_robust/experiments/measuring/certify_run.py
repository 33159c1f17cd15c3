"""Certifies a run: the fraction of its test images on which it is proven robust."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras_robust as kr
from keras_robust.core.types import Ball
from keras_robust.core.validation import lookup
from keras_robust.evaluation import CertificationResult
from keras_robust.evaluation.certify import METHODS
from keras_robust.experiments.recipes.attack_spec import AttackLike, AttackSpec, attack_spec
from keras_robust.experiments.runs.loaded_run import LoadedRun


def method_specs(methods: Sequence[AttackLike]) -> list[AttackSpec]:
    """Methods of certification with their options.

    Args:
        methods: `NAME`, or `NAME:OPTION=VALUE:...`, of the same form as attacks.

    Raises:
        ValueError: an unknown method, or smoothing without the standard deviation of its noise.

    Example:
        >>> method_specs(["crown", "smoothing:sigma=0.5"])[1]
        {'name': 'smoothing', 'options': {'sigma': 0.5}}
    """
    specs = [attack_spec(method) for method in methods]
    for spec in specs:
        lookup("method of certification", spec["name"], METHODS)
        if spec["name"] == "smoothing" and "sigma" not in spec["options"]:
            raise ValueError(
                "The method smoothing needs the standard deviation of its noise; write it as in "
                "smoothing:sigma=0.25."
            )
    return specs


def certify_run(
    run: LoadedRun,
    methods: Sequence[AttackLike],
    ball: Ball,
    *,
    radii: Sequence[float] = (),
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> list[CertificationResult]:
    """Certifies a run on its test images.

    Args:
        run: the run.
        methods: as for `method_specs`.
        ball: the threat model.
        radii, limit, seed, progress: as for `keras_robust.evaluation.certify`.

    Raises:
        ValueError: a method or an option that is not known, or a model or a threat model that the
            method does not cover.
    """
    results = []
    for spec in method_specs(methods):
        options, model = dict(spec["options"]), run.model
        try:
            if spec["name"] == "smoothing":
                model = kr.models.smoothed(run.model, options.pop("sigma"))
            results.append(
                kr.evaluation.certify(
                    model,
                    run.splits.test,
                    ball,
                    spec["name"],
                    radii=radii,
                    limit=limit,
                    seed=seed,
                    progress=progress,
                    **options,
                )
            )
        except TypeError as error:  # such as a norm that the method does not cover
            raise ValueError(str(error)) from error
    return results
