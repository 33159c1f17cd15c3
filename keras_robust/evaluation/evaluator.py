"""`evaluate`: clean accuracy, attacks, worst case, accuracy over radius and detection."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.minimum_norm import MinimumNormAttack
from keras_robust.core.types import Ball
from keras_robust.detection.detector import ScoreDetector, check_detector
from keras_robust.evaluation.detector_attacks import detector_results
from keras_robust.evaluation.rendering.wording import percent
from keras_robust.evaluation.report import Report
from keras_robust.evaluation.results.certification_result import CertificationResult
from keras_robust.evaluation.results.descriptions import describe
from keras_robust.evaluation.results.example_images import ExampleImages, in_unit_range
from keras_robust.evaluation.results.optimality import accuracy_curve
from keras_robust.evaluation.results.parts import (
    AttackResult,
    Check,
    Curve,
    Detection,
    FooledImages,
)
from keras_robust.evaluation.results.report_data import FOOLED, MISCLASSIFIED, ROBUST
from keras_robust.evaluation.running import machine
from keras_robust.evaluation.running.adversarial_images import distances_between
from keras_robust.evaluation.running.attack_runner import AttackRunner
from keras_robust.evaluation.running.batching import Data, Model, Progress
from keras_robust.evaluation.running.certificate_checks import check_certificates, refuted
from keras_robust.evaluation.running.model_warnings import is_random, random_warning
from keras_robust.evaluation.running.run_state import AttackRunState
from keras_robust.evaluation.running.time_budget import TimeBudget
from keras_robust.evaluation.sanity_checks import sanity_checks

_EXAMPLES = 8
_CHECKED = 100  # images; sanity checks look for gross effects
_PACKAGES = ("keras_robust", "tensorflow", "keras", "numpy")
Attacks = Attack | Mapping[str, Attack] | Sequence[Attack]


def evaluate(
    model: Model,
    data: Data,
    attacks: Attacks,
    *,
    radii: Iterable[float] = (),
    detector: ScoreDetector | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    resume_dir: str | os.PathLike[str] | None = None,
    time_budget: float | None = None,
    budget_per_image: float | None = None,
    dataset: str = "",
    model_name: str | None = None,
    defense: str = "",
    class_names: Sequence[str] | None = None,
    command: str = "",
    checks: Sequence[Check] | bool = (),
    found: Sequence[FooledImages] = (),
    certificates: Sequence[CertificationResult] = (),
) -> Report:
    """Attacks a model and reports its robust accuracy.

    Each attack runs on the images that the model classifies correctly; an attack of several rounds
    (restarts, targets) runs each round on the images that withstood the previous ones. Results are
    verified: an attacked image must be inside the ball, and counts only if it is misclassified. In
    the worst case, an image is robust if it withstood everything that was run: the attacks, the
    adaptive attack on the detector, the sanity checks, and the attacks at other radii, wherever
    they found an adversarial image inside the ball.

    Args:
        model: a robust model, a classifier, or a function `images -> {"logits", ...}`.
        data: batches of images and labels as `fit` takes them, or a pair of arrays.
        attacks: one attack, several, or name -> attack; all in one ball.
        radii: also measure accuracy over these radii, with the strongest attack. An image fooled at
            one radius counts as fooled at every larger one.
        detector: a calibrated detector of the model, evaluated on the worst attacked images and
            under an adaptive version of the longest attack.
        limit: use only the first `limit` images; None for all.
        seed: seed of the attacks.
        progress: called with lines of text, such as `print`.
        resume_dir: checkpoint directory: calling `evaluate` again with the same arguments resumes
            from it, with the same result. Delete it once the report is saved.
        time_budget: seconds after which no batch is started; None for no limit. The report then
            contains what was measured, and `report.unfinished` says what is missing.
        budget_per_image: the largest number of passes through the model, forward and backward, of
            one attack on one image; `math.inf` to count them only, None to count nothing. Beyond it
            the model answers an attack with NaN, so that what was found before counts.
        dataset: name of the data set, for the report.
        model_name: name of the model; default its Keras name.
        defense: how the model was trained.
        class_names: one name per class; default their numbers.
        command: the command that ran the evaluation.
        checks: True to run `keras_robust.evaluation.sanity_checks` on the first 100 images, or
            their results. The adversarial images that they found count in the worst case.
        found: adversarial images that other evaluations collected (`score_attacks`, `transfer`),
            which count in the worst case where they lie in the ball and fool this model.
        certificates: results of `keras_robust.evaluation.certify` on the same model and data, in
            the same ball. An image that is certified at a radius within which an adversarial image
            was found is an error of the library, which the report states first.

    Returns:
        The report; `report.save(directory)` writes it as JSON, Markdown and HTML.

    Raises:
        TypeError: not a detector.
        ValueError: no attacks, attacks in different balls, no data, labels that are not classes of
            the model, an attack that left its ball, a time budget that is not a number > 0, or
            certificates of something else.

    Example:
        >>> import numpy as np
        >>> import keras_robust as kr
        >>> x = np.array([[0.5, 0.3], [0.9, 0.1]], "float32")
        >>> attack = kr.attacks.fgsm(kr.LinfBall(0.2))
        >>> report = evaluate(lambda x: {"logits": x}, (x, [0, 0]), attack)
        >>> report.clean_accuracy, report.worst_case_accuracy
        (1.0, 0.5)

    Reference: Carlini et al., "On Evaluating Adversarial Robustness" (2019), section 5.
    """
    budget = TimeBudget(time_budget)
    named = named_attacks(attacks)
    radii = sorted({float(radius) for radius in radii} - {0.0})
    if detector is not None:
        check_detector(detector)
    ball = next(iter(named.values())).ball
    runner = AttackRunner(
        model, data, limit, seed, progress, resume_dir, budget, ball, budget_per_image
    )
    proofs = check_certificates(certificates, runner, ball)
    for attack in named.values():
        runner.source_logits(attack.rounds(runner.classes))  # raises before anything is attacked
    again = runner.logits(runner.x)
    if is_random(runner.clean_logits, again):
        attacked = list(named.values())
        runner.warnings.append(random_warning(runner.clean_logits, again, attacked))
    runs = {name: runner.run(name, attack) for name, attack in named.items()}
    strongest = min(runs, key=lambda name: runs[name].robust.sum())
    worst = _worst_images(runner, list(runs.values()))
    measured: tuple[float, ...] = ()
    # Which attack is strongest is unknown until all are complete.
    if radii and all(run.finished for run in runs.values()):
        measured = runner.run_over_radii(strongest, named[strongest], radii)
    elif radii:
        runner.skipped.append("accuracy over radius")
    detection: Detection | None = None
    if detector is not None:
        detection = detector_results(runner, detector, worst, named)
    results = _checks(runner, ball, checks)
    for fooled in found:
        runner.count(fooled)
    curve = runner.curve(strongest, measured) if measured else None
    if model_name is None:
        model_name = str(getattr(runner.model, "name", "a function"))
    report = Report(
        dataset=dataset,
        model=model_name,
        defense=defense,
        class_names=tuple(class_names or map(str, range(runner.classes))),
        command=command,
        checks=results,
        detection=detection,
        certificates=tuple(refuted(result, runner) for result in proofs),
        **_measured(runner, named, runs, curve),
    )
    for error in report.errors:
        runner.progress(error)
        warnings.warn(error, RuntimeWarning, stacklevel=2)
    return report


def _checks(runner: AttackRunner, ball: Ball, checks: Sequence[Check] | bool) -> tuple[Check, ...]:
    """The sanity checks, run if they are not given; what they found counts in the worst case."""
    if checks is True:
        if runner.interrupted or runner.skipped or runner.budget.expired:
            runner.skipped.append("sanity checks")
            return ()
        if not runner.correct[:_CHECKED].any():
            return ()
        checks = sanity_checks(
            runner.model,
            (runner.x[:_CHECKED], runner.y[:_CHECKED]),
            ball,
            seed=runner.seed,
            progress=runner.progress,
        )
    checks = tuple(checks or ())
    for check in checks:
        for fooled in check.fooled:
            runner.count(fooled)
    return checks


def _measured(
    runner: AttackRunner,
    named: Mapping[str, Attack],
    runs: Mapping[str, AttackRunState],
    curve: Curve | None,
) -> dict[str, Any]:
    """The fields of a report that were measured."""
    robust, found_by = runner.found.robust(), runner.found.found_by
    worst = _worst_images(runner, list(runs.values()))
    predictions = runner.logits(worst).argmax(1)
    ball = next(iter(named.values())).ball
    results = tuple(
        _attack_result(runner, name, named[name], run) for name, run in runs.items() if run.started
    )
    curves = [
        accuracy_curve(f"{result.name}, one run", result.distances, most=20)
        for result in results
        if result.distances is not None
    ]
    limit = runner.budget_per_image
    resumable = runner.resume_dir is not None
    return {
        "threat_model": describe(ball),
        "radius": float(ball.radius),
        "samples": len(runner.x),
        "seed": runner.seed,
        "clean_accuracy": float(runner.correct.mean()),
        "attacks": results,
        "worst_case_accuracy": float(robust.mean()),
        "worst_case_found_by": found_by,
        "outcomes": "".join(
            np.where(runner.correct, np.where(robust, ROBUST, FOOLED), MISCLASSIFIED)
        ),
        "images_digest": _digest(runner),
        "curves": (*(() if curve is None else (curve,)), *curves),
        "budget_per_image": None if limit is None or math.isinf(limit) else int(limit),
        "confusion_clean": _confusion(runner, runner.clean_predictions),
        "confusion_adversarial": _confusion(runner, predictions) if results else None,
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "date": machine.now(),
        "hardware": machine.hardware(),
        "warnings": (*runner.warnings, *_result_warnings(runner, named, runs)),
        "examples": _examples(runner, worst, predictions, robust) if results else None,
        "unfinished": runner.budget.summary(runner.interrupted, runner.skipped, resumable),
    }


def _attack_result(
    runner: AttackRunner, name: str, attack: Attack, run: AttackRunState
) -> AttackResult:
    counted = runner.budget_per_image is not None and run.attacked
    forward, backward = run.passes.sum(axis=0) / run.attacked if counted else (None, None)
    return AttackResult(
        name,
        describe(attack),
        float(attack.ball.radius),
        float(run.robust.mean()),
        run.attacked,
        run.seconds,
        run.parts(),
        run.finished,
        _distances(runner, run) if isinstance(attack.inner, MinimumNormAttack) else None,
        forward,
        backward,
    )


def _distances(runner: AttackRunner, run: AttackRunState) -> tuple[float, ...]:
    """The distances of what a minimum-norm attack found, infinite where it found nothing."""
    distances = np.where(runner.correct, math.inf, 0.0)
    rows = np.flatnonzero(runner.correct & ~run.robust)
    if len(rows):
        distances[rows] = distances_between(runner.found.ball, run.images[rows], runner.x[rows])
    return tuple(distances.tolist())


def _digest(runner: AttackRunner) -> str:
    """SHA-256 of the images and labels that were evaluated."""
    digest = hashlib.sha256()
    for part, dtype in ((runner.x, np.float32), (runner.y, np.int64)):
        digest.update(np.ascontiguousarray(part, dtype).tobytes())
    return digest.hexdigest()


def _worst_images(runner: AttackRunner, runs: Sequence[AttackRunState]) -> np.ndarray:
    """For each image a version that fools the model, or else the last attempt."""
    fooled = runner.correct & ~runner.found.robust()
    shape = (len(fooled),) + (1,) * (runner.x.ndim - 1)
    return np.where(fooled.reshape(shape), runner.found.images, runs[-1].images)


def _confusion(runner: AttackRunner, predictions: np.ndarray) -> tuple[tuple[int, ...], ...]:
    counts = np.zeros((runner.classes, runner.classes), int)
    np.add.at(counts, (runner.y, predictions), 1)
    return tuple(tuple(int(count) for count in row) for row in counts)


def _examples(
    runner: AttackRunner, worst: np.ndarray, predictions: np.ndarray, robust: np.ndarray
) -> ExampleImages | None:
    """A few images, fooled ones first; None if the data are not images."""
    if runner.x.ndim != 4 or runner.x.shape[-1] not in (1, 3):
        return None
    fooled, withstood = np.flatnonzero(runner.correct & ~robust), np.flatnonzero(robust)
    rows = np.sort(np.concatenate([fooled[: _EXAMPLES // 2], withstood])[:_EXAMPLES])
    if not len(rows):
        return None
    clean, attacked = in_unit_range(runner.found.ball.bounds, runner.x[rows], worst[rows])
    return ExampleImages(
        clean,
        attacked,
        tuple(map(int, runner.y[rows])),
        tuple(map(int, runner.clean_predictions[rows])),
        tuple(map(int, predictions[rows])),
    )


def _result_warnings(
    runner: AttackRunner, attacks: Mapping[str, Attack], runs: Mapping[str, AttackRunState]
) -> list[str]:
    """Warnings derived from the results: only one-step attacks, transfer stronger than white-box.

    Reference: Carlini et al., "On Evaluating Adversarial Robustness" (2019), section 5.
    """
    found = []
    if all(attack.gradient_steps in (0, 1) for attack in attacks.values()):
        found.append("Only one-step attacks were run; iterative attacks are stronger.")
    transferred = [name for name in attacks if _is_transfer(attacks[name], runner.classes)]
    white_box = [name for name in attacks if name not in transferred]
    if not white_box:
        found.append(
            "All attacks are transfer attacks, crafted on another model; these accuracies say "
            "nothing about white-box attacks."
        )
    elif transferred and all(runs[name].finished for name in white_box):
        white = np.logical_and.reduce([runs[name].robust for name in white_box]).mean()
        for name in transferred:
            accuracy = runs[name].robust.mean()
            if accuracy < white - runner.tolerance:
                found.append(
                    f"The transfer attack {name} leaves an accuracy of {percent(accuracy)}, all "
                    f"white-box attacks together {percent(white)}. White-box attacks should be "
                    "stronger: gradients may be masked."
                )
    return found


def _is_transfer(attack: Attack, classes: int) -> bool:
    """Whether all rounds of an attack are crafted on another model than the one attacked."""
    return all(part.attack.source is not None for part in attack.rounds(classes))


def named_attacks(attacks: Attacks) -> dict[str, Attack]:
    """Attacks by name; the second of one name is called `NAME (2)`.

    Raises:
        ValueError: no attacks, anything else than attacks, an attack per member, or attacks in
            different balls.
    """
    named = attacks if isinstance(attacks, Mapping) else _numbered(attacks)
    invalid = [name for name, attack in named.items() if not isinstance(attack, Attack)]
    if not named or invalid:
        raise ValueError(
            f"attacks is {attacks!r}; expected an attack such as `keras_robust.attacks.pgd(ball)`, "
            "several, or a dictionary of named ones."
        )
    per_member = [name for name, attack in named.items() if attack.per_member]
    if per_member:
        raise ValueError(
            f"The attack {per_member[0]} returns one batch per member; expected a single batch. "
            "Attack the ensemble as a whole, or use `keras_robust.evaluation.transfer`."
        )
    balls = {attack.ball for attack in named.values()}
    if len(balls) > 1:
        raise ValueError(
            f"The attacks have different balls: {', '.join(sorted(map(str, balls)))}. "
            "Expected one threat model; evaluate each in a report of its own."
        )
    return dict(named)


def _numbered(attacks: Attack | Sequence[Attack]) -> dict[str, Attack]:
    attacks = [attacks] if isinstance(attacks, Attack) else list(attacks)
    names = [attack.name if isinstance(attack, Attack) else str(attack) for attack in attacks]
    counts = [names[:i].count(name) + 1 for i, name in enumerate(names)]
    return {
        name if count == 1 else f"{name} ({count})": attack
        for name, count, attack in zip(names, counts, attacks, strict=True)
    }
