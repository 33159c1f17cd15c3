"""A detector against two attackers: one who does not know of it, and one who does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_robust.attacks.crafting.base import Attack
from keras_robust.attacks.crafting.gradient_ascent import GradientAttack
from keras_robust.attacks.crafting.initialization import Uniform
from keras_robust.attacks.crafting.objectives import AdaptiveObjective
from keras_robust.attacks.pgd import pgd
from keras_robust.core.config import replace
from keras_robust.detection.calibration import exceeds
from keras_robust.detection.roc import roc
from keras_robust.evaluation.attack_runner import AttackRunner, is_correct
from keras_robust.evaluation.results import Detection, DetectorResult

_STEPS = 40  # of the attacker who knows, where no attack of the report iterates


def detector_results(
    bench: AttackRunner, detector: Any, worst: np.ndarray, attacks: Mapping[str, Attack]
) -> Detection | None:
    """What a detector makes of the worst images that its ignorance left, and of its knowledge.

    Args:
        bench: the images.
        detector: a calibrated one.
        worst: `[n, ...]`, for each image the worst that the attacks found.
        attacks: those of the report, of which the one with most steps is told of the detector.

    Returns:
        The shares, areas and scores; None where scores are not finite, or there was no time for all
        that is needed, which the bench is told.
    """
    if bench.stopped or bench.not_begun:  # of half an attack the rates would say little
        bench.not_begun.append("the detector")
        return None
    name = "worst case of the report's attacks" if len(attacks) > 1 else next(iter(attacks))
    images = {name: worst}
    scored_by = getattr(detector, "scored_by", None)
    if scored_by is None:
        bench.warnings.append(
            "The detector does not say which score it uses (`scored_by`), so no attack that knows "
            "of it was run; its rates hold for attackers who do not."
        )
    else:
        attack = adaptive_attack(attacks, scored_by)
        run = bench.run(attack.name, attack)
        if not run.finished:
            return None
        images[attack.name] = run.images
    clean = _scores(bench, detector, bench.x)
    # Of the images that the attacks worked on: the others are clean mistakes.
    scores = {name: _scores(bench, detector, x[bench.correct]) for name, x in images.items()}
    if not all(np.isfinite(part).all() for part in (clean, *scores.values())):
        bench.warnings.append("The detector's scores are not finite for some images: not reported.")
        return None
    unaware, *aware = (
        _attacker(bench, detector, name, clean, scores[name], images[name]) for name in images
    )
    return Detection(
        threshold=float(detector.threshold),
        false_alarm_rate=detector.false_alarm_rate,
        measured_false_alarm_rate=_share(exceeds(clean, detector.threshold)),
        score_name=getattr(detector, "score_title", "score"),
        clean_scores=tuple(map(float, clean)),
        unaware=unaware,
        aware=aware[0] if aware else None,
    )


def adaptive_attack(attacks: Mapping[str, Attack], scored_by: str) -> GradientAttack:
    """The strongest iterated attack of some, told to lower a score while it fools the model.

    Args:
        attacks: of one ball; of those that climb, the one with most steps is changed.
        scored_by: the name of the score.

    Returns:
        An attack; PGD with 40 steps where none of those given iterates.

    Example:
        >>> from keras_robust import LinfBall, attacks
        >>> adaptive_attack({"BIM": attacks.bim(LinfBall(0.1), steps=20)}, "entropy").name
        'BIM-20 that knows the detector'
    """
    parts = [attack.inner for attack in attacks.values()]
    climbing = [
        part
        for part in parts
        if isinstance(part, GradientAttack) and part.steps > 1 and not part.takes_targets
    ]
    ball = next(iter(attacks.values())).ball
    base = max(climbing, key=lambda part: part.steps) if climbing else pgd(ball, _STEPS)
    return replace(
        base,
        objective=AdaptiveObjective(scored_by),
        initialization=base.initialization if base.is_random else Uniform(),
        name=f"{base.name} that knows the detector",
    )


def _scores(bench: AttackRunner, detector: Any, images: np.ndarray) -> np.ndarray:
    parts = (detector.score(images[rows]).numpy()[:n] for rows, n in bench.batches(len(images)))
    return np.concatenate([*parts, np.zeros(0, np.float32)])


def _share(which: Any) -> float:
    return float(np.mean(which))


def _attacker(
    bench: AttackRunner,
    detector: Any,
    name: str,
    clean: np.ndarray,
    scores: np.ndarray,
    images: np.ndarray,
) -> DetectorResult:
    """The shares and the area for one attacker."""
    if not len(scores):
        return DetectorResult(name, 0.0, 0.0, ())
    flagged = exceeds(scores, detector.threshold).numpy()
    wrong = ~is_correct(bench.logits(images), bench.y)[bench.correct]
    curve = roc(clean, scores)
    return DetectorResult(
        name,
        _share(flagged),
        _share(wrong & ~flagged),
        tuple(map(float, scores)),
        curve.auc,
        curve.interval,
    )


def score_attacks(
    model: Any,
    data: Any,
    detector: Any,
    attacks: Mapping[str, Attack],
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> tuple[np.ndarray, dict[str, DetectorResult]]:
    """What a detector makes of the images of several attacks, of one ball or of many.

    Args:
        model: what is attacked: a robust model, a classifier, or a function of images.
        data: a `tf.data.Dataset` of batches `(images, labels)`, or a pair of arrays.
        detector: a calibrated detector of the same model.
        attacks: name -> attack; each works on the images that the model classifies rightly.
        limit: use only the first so many images.
        seed: of all random starts.
        progress: called with a line of text now and then, such as `print`.

    Returns:
        The scores of all clean images, `[n]`, and what came of each attack, by its name.

    Raises:
        ValueError: no data, an attack that left its ball, scores that are not finite.

    Example:
        >>> import keras_robust as kr
        >>> def model(x):
        ...     return {"logits": 9.0 * x}
        >>> x, y = np.float32([[0.9, 0.1], [0.8, 0.3]]), [0, 0]
        >>> detector = kr.detection.EntropyDetector(model, threshold=0.3)
        >>> attacks = {"FGSM": kr.attacks.fgsm(kr.LinfBall(0.3))}
        >>> clean, found = score_attacks(model, (x, y), detector, attacks)
        >>> clean.shape, round(found["FGSM"].detection_rate, 2), found["FGSM"].auc
        ((2,), 1.0, 1.0)

    Reference: Bui et al., "Improving Ensemble Robustness by Collaboratively Promoting and Demoting
    Adversarial Robustness" (2021), Figures 3 and 4.
    """
    bench = AttackRunner(model, data, limit, seed, progress or (lambda line: None))
    clean = _scores(bench, detector, bench.x)
    found = {}
    for name, attack in attacks.items():
        images = bench.run(name, attack).images
        scores = _scores(bench, detector, images[bench.correct])
        found[name] = _attacker(bench, detector, name, clean, scores, images)
    return clean, found
