"""Measures a model: clean accuracy, attacks, the worst case, accuracy over radius, detection."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from keras_robust.attack import Attack
from keras_robust.detection.calibration import exceeds
from keras_robust.evaluation.bench import Bench, Run
from keras_robust.evaluation.report import Report
from keras_robust.evaluation.results import AttackResult, Curve, Detection, ExampleImages

_EXAMPLES = 8
_ABOUT = ("dataset", "model_name", "defense", "class_names", "command", "checks")
_PACKAGES = ("keras_robust", "tensorflow", "keras", "numpy")


def evaluate(
    model: Any,
    data: Any,
    attacks: Attack | Mapping[str, Attack] | Sequence[Attack],
    *,
    radii: Iterable[float] = (),
    detector: Any = None,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    keep: str | os.PathLike[str] | None = None,
    **about: Any,
) -> Report:
    """Attacks a model and reports what is left of its accuracy.

    Each attack works on the images that the model classifies rightly; of an attack that runs in
    rounds (restarts, targets), each round on those that are left. Every result is checked: it must
    lie inside the ball, and it counts only if the model errs on it. An image is robust in the worst
    case if no attack fooled it.

    Args:
        model: a robust model, a classifier, or a function `images -> {"logits", ...}`.
        data: a `tf.data.Dataset` of batches `(images, labels)`, or a pair of arrays.
        attacks: one attack, several, or names for them.
        radii: also measure accuracy over these radii, with the attack that left the least. An
            image fooled at one radius counts as fooled at every larger one, whose ball holds the
            same image.
        detector: a calibrated detector, to measure how many attacked images it flags.
        limit: use only the first so many images.
        seed: of all random starts.
        progress: called with a line of text now and then, such as `print`.
        keep: a directory for what each attack has come to, written every half minute: the same
            evaluation, started again after an interruption, goes on where it was, with the same
            result. Delete it when the report is saved.
        **about: what the report says of itself: `dataset`, `model_name`, `defense`, `class_names`,
            `command`, and `checks`, the result of `keras_robust.evaluation.check`.

    Returns:
        The report; `report.save(directory)` writes it as JSON, Markdown and HTML.

    Raises:
        ValueError: no attacks, attacks in different balls, no data, labels that the model has no
            classes for, an attack that left its ball.

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
    unknown = sorted(set(about) - set(_ABOUT))
    if unknown:
        raise ValueError(
            f"about: unknown {', '.join(map(repr, unknown))}; expected some of {', '.join(_ABOUT)}."
        )
    named = named_attacks(attacks)
    radii = sorted({float(radius) for radius in radii} - {0.0})
    bench = Bench(model, data, limit, seed, progress or (lambda line: None), keep)
    runs = {name: bench.run(name, attack) for name, attack in named.items()}
    strongest = min(runs, key=lambda name: runs[name].robust.sum())
    curves = (bench.curve(strongest, named[strongest], radii),) if radii else ()
    return _report(bench, named, runs, curves, detector, about)


def _report(
    bench: Bench,
    named: Mapping[str, Attack],
    runs: Mapping[str, Run],
    curves: tuple[Curve, ...],
    detector: Any,
    about: Mapping[str, Any],
) -> Report:
    """Puts the figures together."""
    robust = np.logical_and.reduce([run.robust for run in runs.values()])
    worst = _worst_images(bench, list(runs.values()))
    predictions = bench.logits(worst).argmax(1)
    detection = _detection(bench, detector, worst)
    if all(getattr(attack, "steps", 2) < 2 for attack in named.values()):
        bench.warnings.append("Only one-step attacks were run; iterated ones are stronger.")
    ball = next(iter(named.values())).ball
    results = tuple(
        AttackResult(name, describe(named[name]), float(ball.radius), float(run.robust.mean()),
                     run.attacked, run.seconds)
        for name, run in runs.items()
    )  # fmt: skip
    defaults = {
        "dataset": "",
        "model_name": getattr(bench.model, "name", "a function"),
        "defense": "",
        "class_names": tuple(str(i) for i in range(bench.classes)),
    }
    words = {**defaults, **about}
    return Report(
        model=words.pop("model_name"),
        threat_model=describe(ball),
        radius=float(ball.radius),
        samples=len(bench.x),
        seed=bench.seed,
        clean_accuracy=float(bench.correct.mean()),
        attacks=results,
        worst_case_accuracy=float(robust.mean()),
        curves=curves,
        confusion_clean=_confusion(bench, bench.clean_predictions),
        confusion_adversarial=_confusion(bench, predictions),
        detection=detection,
        versions=_versions(),
        warnings=tuple(bench.warnings),
        examples=_examples(bench, worst, predictions, robust),
        **words,
    )


def _worst_images(bench: Bench, runs: Sequence[Run]) -> np.ndarray:
    """For each image one that fools the model, or else the last attempt."""
    worst = runs[-1].images.copy()
    for run in reversed(runs):
        fooled = bench.correct & ~run.robust
        worst[fooled] = run.images[fooled]
    return worst


def _confusion(bench: Bench, predictions: np.ndarray) -> tuple[tuple[int, ...], ...]:
    counts = np.zeros((bench.classes, bench.classes), int)
    np.add.at(counts, (bench.y, predictions), 1)
    return tuple(tuple(int(count) for count in row) for row in counts)


def _detection(bench: Bench, detector: Any, worst: np.ndarray) -> Detection | None:
    if detector is None:
        return None
    # Only images that an attack worked on: the others are clean mistakes.
    scores = [
        np.concatenate([detector.score(x[rows]).numpy()[:n] for rows, n in bench.batches(len(x))])
        for x in (bench.x, worst[bench.correct])
    ]
    if not all(np.isfinite(part).all() for part in scores):
        bench.warnings.append("The detector's scores are not finite for some images: not reported.")
        return None
    flagged = [
        float(exceeds(s, detector.threshold).numpy().mean()) if len(s) else 0.0 for s in scores
    ]
    return Detection(
        threshold=float(detector.threshold),
        false_alarm_rate=detector.false_alarm_rate,
        measured_false_alarm_rate=flagged[0],
        detection_rate=flagged[1],
        score_name=getattr(detector, "score_title", "score"),
        clean_scores=tuple(map(float, scores[0])),
        adversarial_scores=tuple(map(float, scores[1])),
    )


def _examples(
    bench: Bench, worst: np.ndarray, predictions: np.ndarray, robust: np.ndarray
) -> ExampleImages | None:
    """A few images, fooled ones first, where images can be shown at all."""
    if bench.x.ndim != 4 or bench.x.shape[-1] not in (1, 3):
        return None
    fooled, held = np.flatnonzero(bench.correct & ~robust), np.flatnonzero(robust)
    half = _EXAMPLES // 2
    rows = np.sort(np.concatenate([fooled[:half], held])[:_EXAMPLES])
    if not len(rows):
        return None
    return ExampleImages(
        bench.x[rows],
        worst[rows],
        tuple(map(int, bench.y[rows])),
        tuple(map(int, bench.clean_predictions[rows])),
        tuple(map(int, predictions[rows])),
    )


def describe(part: Any) -> str:
    """A configured part in words: its class and its settings.

    Example:
        >>> from keras_robust import LinfBall, attacks
        >>> describe(LinfBall(0.3))
        'LinfBall, radius 0.3, bounds (0, 1)'
        >>> describe(attacks.pgd(LinfBall(0.3), steps=40, step_size=0.01))
        'objective LabelLoss(cross_entropy, true), rule FixedStep(0.01), steps 40, start Uniform()'
    """
    settings = [
        f"{field.name} {_word(getattr(part, field.name))}"
        for field in dataclasses.fields(part)
        if field.name not in ("ball", "name")  # the report tells them elsewhere
    ]
    return ", ".join(settings if isinstance(part, Attack) else [type(part).__name__, *settings])


def _word(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        values = (getattr(value, f.name) for f in dataclasses.fields(value) if f.name != "ball")
        return f"{type(value).__name__}({', '.join(map(_word, values))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_word, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def named_attacks(attacks: Any) -> dict[str, Attack]:
    """Names for the attacks, and a check that they share a ball."""
    if isinstance(attacks, Attack):
        attacks = [attacks]
    if not isinstance(attacks, Mapping):
        attacks = _numbered(list(attacks))
    strange = [name for name, attack in attacks.items() if not isinstance(attack, Attack)]
    if not attacks or strange:
        raise ValueError(
            f"attacks is {attacks!r}; expected an attack such as `keras_robust.attacks.pgd(ball)`, "
            "several, or a dictionary of named ones."
        )
    several = [name for name, attack in attacks.items() if attack.per_member]
    if several:
        raise ValueError(
            f"The attack {several[0]} crafts a batch on each member; expected one image for each. "
            "Attack the ensemble as a whole, or measure `keras_robust.evaluation.transfer`."
        )
    balls = {attack.ball for attack in attacks.values()}
    if len(balls) > 1:
        raise ValueError(
            f"The attacks have different balls: {', '.join(sorted(map(str, balls)))}. "
            "Expected one threat model; evaluate each in a report of its own."
        )
    return dict(attacks)


def _numbered(attacks: list[Any]) -> dict[str, Any]:
    """Attacks by their own names; the second of one name is called `NAME (2)`."""
    names = [getattr(attack, "name", str(attack)) for attack in attacks]
    again = [names[:i].count(name) + 1 for i, name in enumerate(names)]
    return {
        name if count == 1 else f"{name} ({count})": attack
        for name, count, attack in zip(names, again, attacks, strict=True)
    }


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in _PACKAGES}
