"""Detectors beside each other: one evaluation under oblivious and adaptive attacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_robust.attacks.crafting.base import Attack
from keras_robust.core.graphs import compiled
from keras_robust.core.types import Images, PerExample
from keras_robust.detection import Detector
from keras_robust.detection.calibration import check_rate, exceeds
from keras_robust.detection.detector import check_detector
from keras_robust.detection.roc import roc
from keras_robust.evaluation.results.display import html_table
from keras_robust.evaluation.results.parts import wilson_interval
from keras_robust.evaluation.running.attack_runner import AttackRunner, is_correct
from keras_robust.evaluation.running.batching import Data, Model, Progress

RATES = (0.01, 0.05)
AttackOn = Callable[[Any], Attack]  # of the score to lower
KINDS = ("oblivious", "adaptive", "other")


@dataclasses.dataclass(frozen=True)
class Compared:
    """What one detector makes of images of one source.

    Args:
        detector: its name.
        source: the attack, or the kind of images.
        kind: `"oblivious"` or `"adaptive"` attacks, or `"other"` images.
        attacked: number of images that were attacked, those classified correctly; of other images,
            their number.
        samples: number of images scored: those that were misclassified, or all other images.
        auc: area under the ROC curve, of these images and all clean ones; None without samples.
        interval: 95 % bootstrap interval of the area; None without samples.
        detected: for each rate of false alarms, the fraction of the samples that is flagged.
        evaded: for each rate, the fraction of the attacked images that is misclassified and not
            flagged; of other images, that is not flagged.
    """

    detector: str
    source: str
    kind: str
    attacked: int
    samples: int
    auc: float | None
    interval: tuple[float, float] | None
    detected: tuple[float, ...]
    evaded: tuple[float, ...]

    def detected_interval(self, rate: int) -> tuple[float, float] | None:
        """The 95 % Wilson interval of a detection rate, by the number of the rate."""
        return wilson_interval(self.detected[rate], self.samples) if self.samples else None

    def evaded_interval(self, rate: int) -> tuple[float, float] | None:
        """The 95 % Wilson interval of an evasion rate, by the number of the rate."""
        return wilson_interval(self.evaded[rate], self.attacked) if self.attacked else None


@dataclasses.dataclass(frozen=True)
class DetectorComparison:
    """The result of `compare_detectors`.

    Args:
        samples: number of clean test images.
        clean_accuracy: of the classifier, on these.
        rates: the rates of false alarms of the thresholds.
        false_alarms: name of a detector -> the fraction of clean test images flagged, for each
            rate.
        rows: one for each detector and source.
    """

    samples: int
    clean_accuracy: float
    rates: tuple[float, ...]
    false_alarms: dict[str, tuple[float, ...]]
    rows: tuple[Compared, ...]

    def row(self, detector: str, source: str) -> Compared:
        """The result of a detector for a source.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if (row.detector, row.source) == (detector, source):
                return row
        raise KeyError((detector, source))

    def worst_adaptive(self, detector: str, rate: int = -1) -> Compared | None:
        """The adaptive attack that evades a detector most often; None if none was run."""
        found = [r for r in self.rows if r.detector == detector and r.kind == "adaptive"]
        return max(found, key=lambda row: row.evaded[rate]) if found else None

    def to_dict(self) -> dict[str, Any]:
        """All figures, for JSON."""
        return dataclasses.asdict(self)

    def markdown(self) -> str:
        """A table for each kind of images, and one of false alarms, as Markdown."""
        return "\n\n".join(_markdown(*table) for table in self._tables()) + "\n"

    def _repr_html_(self) -> str:
        """The same tables in a notebook."""
        return "\n".join(html_table(*table) for table in self._tables())

    def _tables(self) -> list[tuple[list[str], list[list[str]]]]:
        kinds = [kind for kind in KINDS if any(row.kind == kind for row in self.rows)]
        return [self._alarms_table(), *map(self._table, kinds)]

    def _alarms_table(self) -> tuple[list[str], list[list[str]]]:
        head = [f"false alarms, aimed at {rate:g}" for rate in self.rates]
        rows = [
            [name, *(_rate(alarm, wilson_interval(alarm, self.samples)) for alarm in alarms)]
            for name, alarms in self.false_alarms.items()
        ]
        return ["detector", *head], rows

    def _table(self, kind: str) -> tuple[list[str], list[list[str]]]:
        rows = [row for row in self.rows if row.kind == kind]
        rates = range(len(self.rates))
        head = ["images", "detector", "samples", "AUROC"]
        head += [f"detected at {rate:g}" for rate in self.rates]
        if kind != "other":
            head += [f"evasion at {rate:g}" for rate in self.rates]
        cells = []
        for row in rows:
            area = "" if row.auc is None or row.interval is None else _area(row.auc, row.interval)
            line = [row.source, row.detector, str(row.samples), area]
            line += [_rate(row.detected[n], row.detected_interval(n)) for n in rates]
            if kind != "other":
                line += [_rate(row.evaded[n], row.evaded_interval(n)) for n in rates]
            cells.append(line)
        return head, cells


def compare_detectors(
    model: Model,
    data: Data,
    detectors: Mapping[str, Detector],
    attacks: Mapping[str, Attack],
    *,
    calibration: Data,
    adaptive: Mapping[str, AttackOn] | None = None,
    other_images: Mapping[str, Images] | None = None,
    false_alarm_rates: Sequence[float] = RATES,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> DetectorComparison:
    """Evaluates several detectors of one model on the same images.

    Every oblivious attack runs once, on the images that the model classifies correctly, and all
    detectors score those that it misclassified. The adaptive attacks run against each detector.

    Args:
        model, data, limit, seed, progress: as for `keras_robust.evaluation.evaluate`.
        detectors: name -> a fitted detector of the model.
        attacks: name -> an oblivious attack.
        calibration: clean images on which the thresholds are set; not of `data`.
        adaptive: name -> a function that makes an attack of the score to lower, such as `lambda
            score: orthogonal_pgd(ball, score)`.
        other_images: name -> images, such as of another dataset or corrupted ones.
        false_alarm_rates: each sets a threshold.

    Returns:
        For each detector and source the area under the ROC curve, and rates of detection and
        evasion.

    Raises:
        TypeError: not a detector.
        ValueError: no data, an attack that left its ball, a detector that is not fitted, or too few
            images for a rate.

    Example:
        >>> import keras_robust as kr
        >>> model = lambda x: {"logits": 9.0 * x}
        >>> x, y = np.float32([[0.9, 0.1], [0.8, 0.3]]), [0, 0]
        >>> found = compare_detectors(
        ...     model, (x, y), {"entropy": kr.detection.Detector(model)},
        ...     {"FGSM": kr.attacks.fgsm(kr.LinfBall(0.3))},
        ...     calibration=(np.float32([[0.9, 0.2]] * 20), [0] * 20), false_alarm_rates=(0.05,))
        >>> found.row("entropy", "FGSM").samples
        1
    """
    for rate in false_alarm_rates:
        check_rate(rate)
    runner = AttackRunner(model, data, limit, seed, progress)
    runner.log_warnings()
    judges = {
        name: _Judge(name, detector, calibration, false_alarm_rates, runner)
        for name, detector in detectors.items()
    }
    rows = []
    for name, attack in attacks.items():
        images = runner.run(name, attack).images
        rows += [judge.attacked(name, "oblivious", images) for judge in judges.values()]
    for name, attack_on in (adaptive or {}).items():
        for judge in judges.values():
            attack = attack_on(judge.detector.adaptive_score)
            images = runner.run(f"{name} on {judge.name}", attack).images
            rows.append(judge.attacked(name, "adaptive", images))
    for name, images in (other_images or {}).items():
        rows += [judge.other(name, np.asarray(images)) for judge in judges.values()]
    return DetectorComparison(
        len(runner.x),
        float(runner.correct.mean()),
        tuple(map(float, false_alarm_rates)),
        {name: judge.false_alarms for name, judge in judges.items()},
        tuple(rows),
    )


class _Judge:
    """A detector with a threshold for each rate, and its scores of clean test images."""

    def __init__(
        self,
        name: str,
        detector: Detector,
        calibration: Data,
        rates: Sequence[float],
        runner: AttackRunner,
    ):
        if not isinstance(detector, Detector):
            raise TypeError(f"detectors[{name!r}] is {detector!r}; expected a `Detector`.")
        calibrated = [detector.calibrate(calibration, rate) for rate in rates]
        self.name, self.detector, self._runner = name, calibrated[-1], runner
        self._thresholds = [check_detector(one) for one in calibrated]
        self._score: Callable[[Images], PerExample] = compiled(lambda x: self.detector.score(x))
        self._clean = self._scores(runner.x)
        self.false_alarms = self._flagged(self._clean)

    def attacked(self, source: str, kind: str, images: np.ndarray) -> Compared:
        """The row of an attack."""
        runner = self._runner
        fooled = runner.correct & ~is_correct(runner.logits(images), runner.y)
        scores = self._scores(images[fooled])
        attacked = int(runner.correct.sum())
        detected = self._flagged(scores)
        part = len(scores) / attacked if attacked else 0.0
        evaded = tuple((1 - rate) * part for rate in detected)
        return self._row(source, kind, attacked, scores, detected, evaded)

    def other(self, source: str, images: np.ndarray) -> Compared:
        """The row of other images."""
        scores = self._scores(images)
        detected = self._flagged(scores)
        evaded = tuple(1 - rate for rate in detected)
        return self._row(source, "other", len(images), scores, detected, evaded)

    def _row(
        self,
        source: str,
        kind: str,
        attacked: int,
        scores: np.ndarray,
        detected: tuple[float, ...],
        evaded: tuple[float, ...],
    ) -> Compared:
        curve = roc(self._clean, scores) if len(scores) else None
        return Compared(
            self.name,
            source,
            kind,
            attacked,
            len(scores),
            None if curve is None else curve.auc,
            None if curve is None else curve.interval,
            detected,
            evaded,
        )

    def _scores(self, images: np.ndarray) -> np.ndarray:
        parts = [
            self._score(images[rows]).numpy()[:n] for rows, n in self._runner.batches(len(images))
        ]
        return np.concatenate([*parts, np.zeros(0, np.float32)])

    def _flagged(self, scores: np.ndarray) -> tuple[float, ...]:
        if not len(scores):
            return (0.0,) * len(self._thresholds)
        return tuple(
            float(np.mean(exceeds(scores, threshold).numpy())) for threshold in self._thresholds
        )


def _rate(value: float, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return ""
    low, high = interval
    return f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _area(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
