"""The bases of detectors with statistics of clean images; a new one is a file."""

from __future__ import annotations

import abc
import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import tensorflow as tf

from keras_robust.core.atomic_files import replacing
from keras_robust.core.bounded_files import open_arrays, parse_json
from keras_robust.core.classifier import bounds_of
from keras_robust.core.types import Forward, Images, Outputs, PerExample
from keras_robust.detection.calibration import Calibration
from keras_robust.detection.clean_images import map_batches
from keras_robust.detection.detector import Detector
from keras_robust.detection.statistics import Statistics

# Errors of features grow where they are divided by small deviations.
_AMPLIFIED = 20.0
_ENTRY = "detector"
D = TypeVar("D", bound="FittedDetector")


@dataclasses.dataclass(frozen=True)
class FittedDetector(Detector, abc.ABC):
    """A detector whose score compares an image with clean training images.

    `detector.fit(train).calibrate(validation, 0.05)` is ready for use. Subclasses define `NAME`,
    `TITLE`, `gather` and `measure`; fields of theirs are options.

    Args:
        statistics: what `fit` measured; None before.

    Raises:
        TypeError, ValueError: as for `Detector`.
    """

    NAME: ClassVar[str] = ""
    TITLE: ClassVar[str] = ""

    statistics: Statistics | None = dataclasses.field(default=None, repr=False, kw_only=True)

    def _check_score(self) -> None:
        if self.scored_by == "entropy" != self.NAME:  # the default of `Detector`
            object.__setattr__(self, "scored_by", self.NAME)
        if self.scored_by != self.NAME:
            raise ValueError(
                f"The threshold is of the score {self.scored_by!r}; {type(self).__name__} expects "
                f"{self.NAME!r}. Calibrate this detector."
            )

    @abc.abstractmethod
    def gather(
        self, train: Iterable[Any], bounds: tuple[float, float] | None
    ) -> Mapping[str, np.ndarray]:
        """The statistics of clean training images, name -> array; arguments as for `fit`."""

    @abc.abstractmethod
    def measure(self, outputs: Outputs, statistics: Mapping[str, Any]) -> PerExample:
        """The score of outputs, `[batch]` float32."""

    def fit(self: D, train: Iterable[Any], *, bounds: tuple[float, float] | None = None) -> D:
        """A new detector with the statistics of clean training images, not calibrated.

        Args:
            train: as for `calibrate`; with labels for scores of classes. What the fit reads of an
                image, such as its features, is held in memory for all images.
            bounds: the range of a pixel, as for `calibrate`.

        Raises:
            TypeError, ValueError: as for `calibrate`; a model without features; values that are
                not finite.
        """
        return self.with_statistics(self.gather(train, bounds))

    def with_statistics(self: D, arrays: Mapping[str, Any]) -> D:
        """This detector with other statistics, not calibrated."""
        return dataclasses.replace(
            self,
            statistics=Statistics(arrays),
            threshold=None,
            false_alarm_rate=None,
            samples=None,
        )

    def score_outputs(self, outputs: Outputs) -> PerExample:
        """The score of given outputs, `[batch]` float32.

        Raises:
            ValueError: the detector is not fitted.
        """
        return self.measure(outputs, self.fitted)

    @property
    def fitted(self) -> Statistics:
        """The statistics.

        Raises:
            ValueError: the detector is not fitted.
        """
        if self.statistics is None:
            raise ValueError(
                f"The detector {self.NAME!r} has no statistics; call "
                "`detector = detector.fit(train)` first: `fit` returns a new detector."
            )
        return self.statistics

    @property
    def score_title(self) -> str:
        """The score with its unit, for reports."""
        return self.TITLE

    @property
    def options(self) -> dict[str, Any]:
        """The fields that are neither the model, the calibration nor the statistics."""
        return {name: getattr(self, name) for name in self.option_defaults()}

    @classmethod
    def option_defaults(cls) -> dict[str, Any]:
        """The options of the class, with their defaults."""
        common = {field.name for field in dataclasses.fields(FittedDetector)}
        return {f.name: f.default for f in dataclasses.fields(cls) if f.name not in common}

    def restored(self: D, calibration: Calibration, statistics: Statistics) -> D:
        """This detector with saved statistics and their calibration."""
        return dataclasses.replace(
            self,
            statistics=statistics,
            threshold=calibration.threshold,
            false_alarm_rate=calibration.false_alarm_rate,
            samples=calibration.samples,
        )

    @property
    def adaptive_score(self) -> Any:
        """What `keras_robust.objectives.AdaptiveObjective` takes to lower this score."""
        return DetectorScore(self.NAME, self.digest, self)

    @property
    def digest(self) -> str:
        """A checksum of the options and the statistics."""
        return f"{sorted(self.options.items())} {self.fitted.digest}"

    def score_tolerance(self, x: Images, error: float) -> float:
        """The largest difference of scores that rounding explains; see `Detector`."""
        return _AMPLIFIED * super().score_tolerance(x, error)

    def with_variables(self: D) -> tuple[D, list[tf.Variable]]:
        """This detector with its statistics in variables, to be exported, and the variables."""
        statistics = self.fitted.as_variables()
        return dataclasses.replace(self, statistics=statistics), list(statistics.values())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes options, statistics and calibration as one `.npz` file, atomically.

        `keras_robust.detection.load(path, model)` reads it.

        Raises:
            ValueError: the detector is not fitted, or not calibrated.
        """
        path = Path(path)
        about = {"options": self.options, "calibration": dataclasses.asdict(self.calibration)}
        content = io.BytesIO()
        arrays: dict[str, Any] = {_ENTRY: np.array(json.dumps(about))}
        arrays |= {f"statistics/{name}": np.asarray(a) for name, a in self.fitted.items()}
        np.savez_compressed(content, **arrays)
        with replacing(path) as draft:
            draft.write_bytes(content.getvalue())
        return path


@dataclasses.dataclass(frozen=True)
class FittedToOutputs(FittedDetector):
    """A fitted detector whose statistics are those of the model's outputs.

    Subclasses define `observe` and `summarize`.
    """

    NEEDS_LABELS: ClassVar[bool] = False

    @abc.abstractmethod
    def observe(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """What of a batch's outputs the fit reads: name -> `[batch, ...]`."""

    @abc.abstractmethod
    def summarize(self, observed: dict[str, np.ndarray], y: np.ndarray) -> dict[str, np.ndarray]:
        """The statistics of all observations; `y` is empty unless `NEEDS_LABELS`."""

    def gather(
        self, train: Iterable[Any], bounds: tuple[float, float] | None
    ) -> Mapping[str, np.ndarray]:
        """Observes all images, and summarizes."""
        bounds = bounds or bounds_of(self.model) or (0.0, 1.0)
        parts, labels = [], []
        observing = map_batches(
            lambda x: self.observe(self.extended_outputs(x)),
            train,
            bounds,
            labels=self.NEEDS_LABELS,
        )
        for part, y in observing:
            parts.append(part)
            labels.append(np.zeros(0, np.int64) if y is None else y)
        if not parts:
            raise ValueError("The training data is empty; expected batches of clean images.")
        observed = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for name, values in observed.items():
            if not np.isfinite(values).all():
                raise ValueError(
                    f"The {name} of some training images are not finite, so {self.NAME!r} cannot "
                    "be fitted. Look for NaN in the images or in the model's weights."
                )
        return self.summarize(observed, np.concatenate(labels))


@dataclasses.dataclass(frozen=True)
class DetectorScore:
    """A detector's score as adaptive attacks lower it; equal if its statistics are.

    Args:
        name: of the score.
        digest: of the detector's statistics and options.
        detector: a fitted detector.
    """

    name: str
    digest: str
    detector: FittedDetector = dataclasses.field(repr=False, compare=False)

    def outputs_and_score(self, forward: Forward, x: Images) -> tuple[Outputs, PerExample]:
        """The outputs of a model and a differentiable score, `[batch]`, to be lowered."""
        return self.detector.outputs_and_score(x, forward)

    def get_config(self) -> dict[str, Any]:
        """Raises ValueError: a configuration would lose the statistics."""
        raise ValueError(
            f"Cannot serialize the fitted score {self.name!r} inside a config: its statistics "
            "would be lost. Save the detector, and build the attack again."
        )


def read_fitted(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Calibration, Statistics]:
    """Reads what `FittedDetector.save` wrote: options, calibration and statistics.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else.
    """
    try:
        with open_arrays(path) as archive:
            about = parse_json(str(archive[_ENTRY]))
            prefix = "statistics/"
            arrays = {
                name.removeprefix(prefix): archive[name]
                for name in archive.files
                if name.startswith(prefix)
            }
        return dict(about["options"]), Calibration(**about["calibration"]), Statistics(arrays)
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} does not contain a fitted detector ({error!r}); expected a file that "
            "`detector.save` wrote."
        ) from error


def subset(count: int, limit: int) -> np.ndarray:
    """At most `limit` row numbers of `count`, ascending, drawn with a fixed seed."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.RandomState(0).permutation(count)[:limit])
