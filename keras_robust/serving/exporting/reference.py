"""Reference outputs: the local Keras model's outputs on sample images, stored with each version."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_robust.certification import Bounds, is_certified
from keras_robust.core.bounded_files import open_arrays
from keras_robust.core.types import Outputs
from keras_robust.detection import Detector, FittedDetector
from keras_robust.serving.exporting.signatures import image_shape

REFERENCE_FILE = "reference.npz"
# Fused and reordered operations, and other batch sizes, change the last bits of a logit. These are
# the tolerated errors of a logit relative to the largest logit, or to 2 where all are smaller: 1e-5
# for a small float32 net. For a net with logits of 60 a difference of 3e-5 was measured.
LOGIT_ERRORS = {"float32": 5e-6, "float16": 1e-4, "bfloat16": 1e-3}
LEAST_LOGIT = 2.0
# The same of a margin's bound, which adds up more terms than a logit.
MARGIN_ERROR = 1e-4


@dataclasses.dataclass(frozen=True)
class Reference:
    """The local model's outputs on sample images.

    Args:
        pixels: `[batch, height, width, channels]` uint8; the images are `pixels / 255`.
        outputs: the outputs of the signature `detect`, and of `certify` if there are bounds.
        threshold: the detector's threshold.
        tolerance: largest allowed difference of a served float output.
        radius: that of `certify`; None without bounds.
        undecided: `[batch]` bool, where rounding may decide whether an image is certified; None
            without bounds.
        score_tolerance: largest allowed difference of a detection score; None for `tolerance`.
        withheld: the outputs that the version leaves out of its answers.
    """

    pixels: np.ndarray
    outputs: dict[str, np.ndarray]
    threshold: float
    tolerance: float
    radius: float | None = None
    undecided: np.ndarray | None = None
    score_tolerance: float | None = None
    withheld: tuple[str, ...] = ()

    def tolerance_of(self, output: str) -> float:
        """The largest allowed difference of an output, by its name."""
        if output == "detection_score" and self.score_tolerance is not None:
            return self.score_tolerance
        return self.tolerance

    @property
    def images(self) -> np.ndarray:
        """`[batch, height, width, channels]` float32 in [0, 1]."""
        return self.pixels.astype(np.float32) / 255

    @property
    def files(self) -> np.ndarray:
        """`[batch]`: the images as PNG files."""
        return np.array([tf.io.encode_png(pixels).numpy() for pixels in self.pixels], object)

    def matches(self, classifier: keras.Model) -> bool:
        """Whether a classifier gives the same probabilities for the images."""
        images = self.images
        if tuple(classifier.input_shape[1:]) != images.shape[1:]:
            return False
        outputs = _probabilities(classifier(images, training=False))
        return all(
            name in self.outputs
            and self.outputs[name].shape == values.shape
            and np.abs(self.outputs[name] - values).max() <= self.tolerance
            for name, values in outputs.items()
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the reference as a NumPy archive."""
        outputs = {f"outputs/{name}": values for name, values in self.outputs.items()}
        arrays: dict[str, Any] = {
            "pixels": self.pixels,
            "threshold": self.threshold,
            "tolerance": self.tolerance,
            **outputs,
        }
        if self.radius is not None:
            arrays |= {"radius": self.radius, "undecided": self.undecided}
        if self.score_tolerance is not None:
            arrays["score_tolerance"] = self.score_tolerance
        if self.withheld:
            arrays["withheld"] = np.array(self.withheld)
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Reference:
        """Reads what `save` wrote."""
        with open_arrays(path) as archive:
            outputs = {
                name.removeprefix("outputs/"): archive[name]
                for name in archive.files
                if name.startswith("outputs/")
            }
            numbers = float(archive["threshold"]), float(archive["tolerance"])
            optional: dict[str, Any] = {
                name: float(archive[name])
                for name in ("radius", "score_tolerance")
                if name in archive.files
            }
            if "undecided" in archive.files:
                optional["undecided"] = archive["undecided"]
            if "withheld" in archive.files:
                optional["withheld"] = tuple(archive["withheld"].tolist())
            return cls(archive["pixels"], outputs, *numbers, **optional)


def sample_pixels(shape: tuple[int, int, int], count: int = 6, seed: int = 0) -> np.ndarray:
    """Images to compare on: one black, one white, the others random blocks.

    Args:
        shape: height, width and channels.
        count: number of images.
        seed: seed of the blocks.

    Returns:
        `[count, height, width, channels]` uint8.

    Example:
        >>> sample_pixels((8, 8, 1)).shape
        (6, 8, 8, 1)
    """
    height, width, channels = shape
    block = max(1, min(height, width) // 16)
    grid = (count, -(-height // block), -(-width // block), channels)
    pixels = np.random.default_rng(seed).integers(0, 256, grid, dtype=np.uint8)
    pixels = pixels.repeat(block, axis=1).repeat(block, axis=2)[:, :height, :width]
    pixels[:2] = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    return pixels


def make_reference(
    classifier: keras.Model,
    detector: Detector,
    pixels: np.ndarray | None = None,
    bounds: Bounds | None = None,
) -> Reference:
    """Runs the local model on sample images, by Keras alone.

    Args:
        classifier: a built functional model.
        detector: a calibrated detector of it.
        pixels: `[batch, height, width, channels]` uint8; default `sample_pixels`.
        bounds: of the signature `certify`, at the radius of their ball; None for no such signature.

    Returns:
        The images and the outputs.

    Raises:
        ValueError: an output is not finite, or the detector is not calibrated.
    """
    if detector.threshold is None:
        raise ValueError("The detector has no threshold; calibrate it first.")
    pixels = sample_pixels(image_shape(classifier)) if pixels is None else pixels
    images = tf.constant(pixels.astype(np.float32) / 255)
    outputs, score = detector.outputs_and_score(images, lambda x: classifier(x, training=False))
    scores = score.numpy()
    computed = {
        **_probabilities(outputs),
        "classes": keras.ops.argmax(outputs["logits"], axis=-1),
        "detection_score": scores,
        "is_adversarial": scores > detector.threshold,
    }
    kept = {name: keras.ops.convert_to_numpy(values) for name, values in computed.items()}
    strange = [name for name, values in kept.items() if not np.isfinite(values).all()]
    if strange:
        raise ValueError(
            f"The classifier {classifier.name!r} has outputs that are not finite ({strange}) on "
            "valid images: its training diverged. Choose an earlier checkpoint."
        )
    error = _logit_error(classifier)
    reference = Reference(
        pixels,
        kept,
        float(detector.threshold),
        _tolerance(error, outputs),
        score_tolerance=_score_tolerance(detector, images, error, _tolerance(error, outputs)),
    )
    return reference if bounds is None else _with_certificates(reference, classifier, bounds)


def _with_certificates(reference: Reference, classifier: keras.Model, bounds: Bounds) -> Reference:
    """The reference with what the bounds say of its images."""
    classes = reference.outputs["classes"]
    margins = bounds(classifier, reference.images, classes)
    certified = is_certified(margins, classes).numpy()
    others = np.where(np.eye(margins.shape[1])[classes], np.inf, margins)
    nearest = np.abs(others).min(axis=1)
    error = MARGIN_ERROR * max(LEAST_LOGIT, float(np.abs(margins).max()))
    return dataclasses.replace(
        reference,
        outputs={**reference.outputs, "certified": certified},
        radius=float(bounds.ball.radius),
        undecided=~(nearest > error),
    )


def _probabilities(outputs: Outputs) -> dict[str, np.ndarray]:
    """The classifier's probabilities, and its members' for an ensemble."""
    kinds = {"probabilities": "logits", "member_probabilities": "member_logits"}
    return {
        name: keras.ops.convert_to_numpy(keras.ops.softmax(outputs[logits]))
        for name, logits in kinds.items()
        if logits in outputs
    }


def _logit_error(classifier: keras.Model) -> float:
    return max(LOGIT_ERRORS.get(dtype, 0.0) for dtype in {"float32", *_dtypes(classifier)})


def _score_tolerance(
    detector: Detector, images: tf.Tensor, error: float, tolerance: float
) -> float | None:
    """The tolerance of a score that is no function of probabilities; else None."""
    if not isinstance(detector, FittedDetector):
        return None
    return max(tolerance, detector.score_tolerance(images, error))


def _tolerance(error: float, outputs: Outputs) -> float:
    logits = (outputs[name] for name in ("logits", "member_logits") if name in outputs)
    largest = max(float(tf.reduce_max(tf.abs(values))) for values in logits)
    return error * max(LEAST_LOGIT, largest)


def _dtypes(layer: keras.layers.Layer) -> Iterator[str]:
    yield layer.compute_dtype
    for inner in getattr(layer, "layers", ()):
        yield from _dtypes(inner)
