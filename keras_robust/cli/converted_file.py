"""A converted model file (ONNX, TFLite, OpenVINO) with data, in the form of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_robust.cli.model_file import LoadedModelFile, load_data, recipe_of
from keras_robust.evaluation.running.model_warnings import are_probabilities
from keras_robust.experiments.runs.run_directory import RunDirectory
from keras_robust.serving.exporting.converted_model import ConvertedModel

_CHANNELS = (1, 3)


class ConvertedClassifier:
    """A function `images -> {"logits"}` that runs a converted model; it has no gradient.

    The logits are the output `logits`, or else the logarithms of `probabilities`, or else the first
    output `[batch, classes]`, whichever of the two it is.

    Args:
        model: a model of images, their channels last or first.
        pixel_range: the values that it takes for black and white.

    Raises:
        ValueError: a model of other inputs or outputs.
    """

    def __init__(self, model: ConvertedModel, pixel_range: Sequence[float] = (0.0, 1.0)):
        self.model, self.name = model, model.path.stem
        self._low, self._high = pixel_range
        sides = model.input_shape
        first, last = (len(sides) == 3 and sides[at] in _CHANNELS for at in (0, -1))
        self._channels_first = first and not last
        shape = (*sides[1:], sides[0]) if self._channels_first else sides
        if len(shape) != 3 or None in shape or shape[2] not in _CHANNELS:
            raise ValueError(
                f"{model.path} takes arrays of shape {list(sides)}; expected images of a known "
                "size, [height, width, channels] or [channels, height, width]."
            )
        self.shape = tuple(int(side) for side in shape if side is not None)
        probe = np.random.default_rng(0).random((2, *self.shape)).astype(np.float32)
        answer = self._answer(probe)
        wanted = [name for name in ("logits", "probabilities", *answer) if name in answer]
        found = [n for n in wanted if answer[n].ndim == 2 and answer[n].dtype.kind == "f"]
        if not found:
            raise ValueError(
                f"{model.path} has the outputs {', '.join(answer)}; expected logits or "
                "probabilities, [batch, classes]."
            )
        self._output = found[0]
        self.classes = answer[self._output].shape[1]
        self._are_probabilities = are_probabilities(answer[self._output])

    def __call__(self, x: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """The logits of images `[batch, ...]` in [0, 1]."""
        del training
        logits = tf.numpy_function(self._logits, [x], tf.float32)
        return {"logits": tf.ensure_shape(logits, [x.shape[0], self.classes])}

    def _logits(self, x: np.ndarray) -> np.ndarray:
        found = self._answer(x)[self._output].astype(np.float32)
        if self._are_probabilities:
            return np.log(np.maximum(found, np.finfo(np.float32).tiny))
        return found

    def _answer(self, x: np.ndarray) -> dict[str, np.ndarray]:
        x = self._low + (self._high - self._low) * x
        return self.model(x.transpose(0, 3, 1, 2) if self._channels_first else x)


def load_converted_file(
    path: str | os.PathLike[str],
    data: str,
    *,
    norm: str = "linf",
    radius: float = 0.0,
    data_dir: str | None = None,
    batch_size: int = 128,
    pixel_range: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> LoadedModelFile:
    """Loads a classifier from an ONNX, TFLite or OpenVINO file; the arguments of `load_model_file`.

    Raises:
        FileNotFoundError: the model or the data is missing.
        ImportError: its runtime is not installed.
        ValueError: not a classifier of images, or data that does not fit it.
    """
    path = Path(path)
    classifier = ConvertedClassifier(ConvertedModel(path), pixel_range or (0.0, 1.0))
    splits = load_data(
        path,
        data,
        classifier.shape,
        classifier.classes,
        data_dir=data_dir,
        batch_size=batch_size,
        class_names=class_names,
        note=note,
    )
    config = recipe_of(path, norm, radius, batch_size)
    return LoadedModelFile(RunDirectory(path), config, "", classifier, splits)  # type: ignore[arg-type]
