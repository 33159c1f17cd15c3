"""Detector evaluation under oblivious (detector-unaware) and adaptive (detector-aware) attacks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.gradient_ascent import GradientAttack
from keras_robust.attacks.crafting.initialization import Uniform
from keras_robust.attacks.crafting.objectives import AdaptiveObjective, DetectionScore
from keras_robust.attacks.pgd import pgd
from keras_robust.core.config import replace
from keras_robust.detection.calibration import exceeds
from keras_robust.detection.detector import ScoreDetector, check_detector
from keras_robust.detection.roc import roc
from keras_robust.evaluation.results.parts import Detection, DetectorResult, FooledImages
from keras_robust.evaluation.running.attack_runner import AttackRunner, is_correct
from keras_robust.evaluation.running.batching import Data, Model, Progress

_STEPS = 40  # of the adaptive attack, if no attack of the report is iterative


def detector_results(
    runner: AttackRunner,
    detector: ScoreDetector,
    worst: np.ndarray,
    attacks: Mapping[str, Attack],
) -> Detection | None:
    """Evaluates a detector against the oblivious worst case and one adaptive attack.

    Args:
        runner: runs the adaptive attack.
        detector: a calibrated detector of the same model.
        worst: `[n, ...]`, the worst attacked version of each image.
        attacks: the attacks of the report; the adaptive attack is made from the longest.

    Returns:
        Rates, areas and scores. None if scores are not finite, or if time ran out, which `runner`
        records.
    """
    if runner.interrupted or runner.skipped:  # rates under unfinished attacks would mislead
        runner.skipped.append("the detector")
        return None
    name = "worst case of the report's attacks" if len(attacks) > 1 else next(iter(attacks))
    images = {name: worst}
    score = getattr(detector, "adaptive_score", detector.scored_by)
    if score is None:
        runner.warnings.append(
            "The detector does not name its score (`scored_by`), so no adaptive attack was run; "
            "its rates hold for oblivious attacks only."
        )
    else:
        attack = adaptive_attack(attacks, score)
        run = runner.run(attack.name, attack)
        if not run.finished:
            return None
        images[attack.name] = run.images
    clean = _scores(runner, detector, runner.x)
    # Attacks ran on the correctly classified images only.
    scores = {name: _scores(runner, detector, x[runner.correct]) for name, x in images.items()}
    if not all(np.isfinite(part).all() for part in (clean, *scores.values())):
        runner.warnings.append(
            "The detector's scores are not finite for some images; its rates are omitted."
        )
        return None
    threshold = check_detector(detector)
    oblivious, *adaptive = (
        _detector_result(runner, threshold, name, clean, scores[name], images[name])
        for name in images
    )
    return Detection(
        threshold=threshold,
        false_alarm_rate=detector.false_alarm_rate,
        measured_false_alarm_rate=float(np.mean(exceeds(clean, threshold))),
        score_name=detector.score_title,
        clean_scores=tuple(map(float, clean)),
        oblivious=oblivious,
        adaptive=adaptive[0] if adaptive else None,
    )


def adaptive_attack(attacks: Mapping[str, Attack], score: str | DetectionScore) -> GradientAttack:
    """The longest iterative attack of several, with an adaptive objective.

    PGD with 40 steps if none of `attacks` is an iterative, untargeted gradient attack.

    Args:
        attacks: attacks in one ball.
        score: the score that the attack lowers, as for `AdaptiveObjective`.

    Example:
        >>> from keras_robust import LinfBall, attacks
        >>> adaptive_attack({"BIM": attacks.bim(LinfBall(0.1), steps=20)}, "entropy").name
        'BIM-20, adaptive (detector-aware)'
    """
    inner = [attack.inner for attack in attacks.values()]
    iterative = [
        attack
        for attack in inner
        if isinstance(attack, GradientAttack) and attack.steps > 1 and not attack.takes_targets
    ]
    ball = next(iter(attacks.values())).ball
    base = max(iterative, key=lambda attack: attack.steps) if iterative else pgd(ball, _STEPS)
    return replace(
        base,
        objective=AdaptiveObjective(score),
        initialization=base.initialization if base.is_random else Uniform(),
        name=f"{base.name}, adaptive (detector-aware)",
    )


def _scores(runner: AttackRunner, detector: ScoreDetector, images: np.ndarray) -> np.ndarray:
    parts = (detector.score(images[rows]).numpy()[:n] for rows, n in runner.batches(len(images)))
    return np.concatenate([*parts, np.zeros(0, np.float32)])


def _detector_result(
    runner: AttackRunner,
    threshold: float,
    name: str,
    clean: np.ndarray,
    scores: np.ndarray,
    images: np.ndarray,
) -> DetectorResult:
    if not len(scores):
        return DetectorResult(name, 0.0, 0.0, (), accuracy=0.0)
    flagged = exceeds(scores, threshold).numpy()
    misclassified = ~is_correct(runner.logits(images), runner.y)[runner.correct]
    curve = roc(clean, scores)
    return DetectorResult(
        name,
        float(np.mean(flagged)),
        float(np.mean(misclassified & ~flagged)),
        tuple(map(float, scores)),
        curve.auc,
        curve.interval,
        float(np.sum(~misclassified) / len(runner.x)),
    )


def score_attacks(
    model: Model,
    data: Data,
    detector: ScoreDetector,
    attacks: Mapping[str, Attack],
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    collect: list[FooledImages] | None = None,
) -> tuple[np.ndarray, dict[str, DetectorResult]]:
    """Evaluates a detector on the images of several attacks, in one ball or in several.

    Args:
        model, data, limit, seed, progress: as for `keras_robust.evaluation.evaluate`.
        detector: a calibrated detector of the same model.
        attacks: name -> attack; each runs on the images that the model classifies correctly.
        collect: a list to which the images that each attack fooled are added, for `evaluate`.

    Returns:
        The scores of all clean images `[n]`, and a result for each attack, by name.

    Raises:
        TypeError: not a detector.
        ValueError: no data, an attack that left its ball, a detector without a threshold, or scores
            that are not finite.

    Example:
        >>> import keras_robust as kr
        >>> model = lambda x: {"logits": 9.0 * x}
        >>> x, y = np.float32([[0.9, 0.1], [0.8, 0.3]]), [0, 0]
        >>> detector = kr.detection.EntropyDetector(model, threshold=0.3)
        >>> attacks = {"FGSM": kr.attacks.fgsm(kr.LinfBall(0.3))}
        >>> clean, found = score_attacks(model, (x, y), detector, attacks)
        >>> clean.shape, round(found["FGSM"].detection_rate, 2), found["FGSM"].auc
        ((2,), 1.0, 1.0)

    Reference: Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
    Adversarial Robustness" (2021), Figures 3 and 4.
    """
    threshold = check_detector(detector)
    ball = next((attack.ball for attack in attacks.values()), None)
    runner = AttackRunner(model, data, limit, seed, progress, ball=ball)
    runner.log_warnings()
    clean = _scores(runner, detector, runner.x)
    found = {}
    for name, attack in attacks.items():
        run = runner.run(name, attack)
        images = run.images
        if collect is not None:
            rows = np.flatnonzero(runner.correct & ~run.robust)
            collect.append(FooledImages(name, runner.x[rows], images[rows]))
        scores = _scores(runner, detector, images[runner.correct])
        found[name] = _detector_result(runner, threshold, name, clean, scores, images)
    return clean, found
