"""Measures a model: clean accuracy, attacks, the worst case, accuracy over radius, detection."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from keras_robust.attacks.crafting.base import Attack
from keras_robust.evaluation.attack_runner import AttackRunner
from keras_robust.evaluation.detector_attacks import detector_results
from keras_robust.evaluation.example_images import ExampleImages
from keras_robust.evaluation.report import Report
from keras_robust.evaluation.result_warnings import result_warnings
from keras_robust.evaluation.results import AttackResult, Curve
from keras_robust.evaluation.run_state import AttackRunState
from keras_robust.evaluation.time_budget import TimeBudget

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
    time_budget: float | None = None,
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
        detector: a calibrated detector of the model, to measure how many attacked images it flags:
            of the worst that the attacks found, and of the strongest iterated one, told to lower
            the score as well.
        limit: use only the first so many images.
        seed: of all random starts.
        progress: called with a line of text now and then, such as `print`.
        keep: a directory for what each attack has come to, written every half minute: the same
            evaluation, started again after an interruption, goes on where it was, with the same
            result. Delete it when the report is saved.
        time_budget: seconds from now, after which no batch is begun; None for no end. What was
            measured until then is in the report, and what was not is in `report.unfinished`, with a
            warning. With `keep`, the same evaluation goes on there, with another budget or none.
        **about: what the report says of itself: `dataset`, `model_name`, `defense`, `class_names`,
            `command`, and `checks`, the result of `keras_robust.evaluation.check`.

    Returns:
        The report; `report.save(directory)` writes it as JSON, Markdown and HTML.

    Raises:
        ValueError: no attacks, attacks in different balls, no data, labels that the model has no
            classes for, an attack that left its ball, a time budget that is no number above 0.

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
    budget = TimeBudget(time_budget)
    named = named_attacks(attacks)
    radii = sorted({float(radius) for radius in radii} - {0.0})
    bench = AttackRunner(model, data, limit, seed, progress or (lambda line: None), keep, budget)
    for attack in named.values():
        bench.of_sources(attack.rounds(bench.classes))  # refused before anything is attacked
    runs = {name: bench.run(name, attack) for name, attack in named.items()}
    strongest = min(runs, key=lambda name: runs[name].robust.sum())
    curve = None
    # Of attacks that are not at their end nobody knows yet which is the strongest.
    if radii and all(run.finished for run in runs.values()):
        curve = bench.curve(strongest, named[strongest], radii)
    elif radii:
        bench.not_begun.append("accuracy over radius")
    return _report(bench, named, runs, curve, detector, about)


def _report(
    bench: AttackRunner,
    named: Mapping[str, Attack],
    runs: Mapping[str, AttackRunState],
    curve: Curve | None,
    detector: Any,
    about: Mapping[str, Any],
) -> Report:
    """Puts the figures together."""
    robust = np.logical_and.reduce([run.robust for run in runs.values()])
    worst = _worst_images(bench, list(runs.values()))
    predictions = bench.logits(worst).argmax(1)
    found = None if detector is None else detector_results(bench, detector, worst, named)
    bench.warnings += result_warnings(bench, named, runs)
    ball = next(iter(named.values())).ball
    radius = float(ball.radius)
    results = tuple(
        AttackResult(name, describe(named[name]), radius, float(run.robust.mean()), run.attacked,
                     run.seconds, run.parts(), run.finished)
        for name, run in runs.items() if run.begun
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
        radius=radius,
        samples=len(bench.x),
        seed=bench.seed,
        clean_accuracy=float(bench.correct.mean()),
        attacks=results,
        worst_case_accuracy=float(robust.mean()),
        # A curve of clean accuracy alone is none.
        curves=() if curve is None or len(curve.radii) == 1 else (curve,),
        confusion_clean=_confusion(bench, bench.clean_predictions),
        confusion_adversarial=_confusion(bench, predictions) if results else None,
        detection=found,
        versions=_versions(),
        warnings=tuple(bench.warnings),
        examples=_examples(bench, worst, predictions, robust) if results else None,
        unfinished=bench.budget.told(bench.stopped, bench.not_begun, bench.keep is not None),
        **words,
    )


def _worst_images(bench: AttackRunner, runs: Sequence[AttackRunState]) -> np.ndarray:
    """For each image one that fools the model, or else the last attempt."""
    worst = runs[-1].images.copy()
    for run in reversed(runs):
        fooled = bench.correct & ~run.robust
        worst[fooled] = run.images[fooled]
    return worst


def _confusion(bench: AttackRunner, predictions: np.ndarray) -> tuple[tuple[int, ...], ...]:
    counts = np.zeros((bench.classes, bench.classes), int)
    np.add.at(counts, (bench.y, predictions), 1)
    return tuple(tuple(int(count) for count in row) for row in counts)


def _examples(
    bench: AttackRunner, worst: np.ndarray, predictions: np.ndarray, robust: np.ndarray
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
        # The report tells of ball and name elsewhere; a model is described by its name.
        if field.repr and field.name not in ("ball", "name")
    ]
    return ", ".join(settings if isinstance(part, Attack) else [type(part).__name__, *settings])


def _word(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        shown = (f.name for f in dataclasses.fields(value) if f.repr and f.name != "ball")
        values = (getattr(value, name) for name in shown)
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
