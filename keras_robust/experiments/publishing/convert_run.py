"""Converts runs with their detectors to ONNX, TFLite, OpenVINO and Keras files."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np

from keras_robust.experiments.publishing.export_run import calibrated_detector, local_validation
from keras_robust.experiments.runs.loaded_run import LoadedRun
from keras_robust.serving.exporting.convert import Conversion, convert_model


def convert_run(
    run: LoadedRun,
    path: str | os.PathLike[str],
    *,
    quantize: str | None = None,
    withhold: Iterable[str] = (),
) -> Conversion:
    """Writes the loaded checkpoint of a run, with its detector, in one file.

    Args:
        run: the run.
        path: a new file; see `convert_model`.
        quantize: of TFLite; the answers are compared on validation images, if there are any.
        withhold: outputs to leave out.

    Raises:
        FileNotFoundError: the run has no calibrated detector.
        ValueError, FileExistsError, ImportError, VerificationError: see `convert_model`.
    """
    return convert_model(
        run.model,
        path,
        calibrated_detector(run),
        quantize=quantize,
        images=None if quantize is None else _validation_images(run),
        class_names=run.class_names,
        recipe=run.config.name or None,
        withhold=withhold,
    )


def _validation_images(run: LoadedRun) -> np.ndarray | None:
    """The first batches of validation images; None where they are not on this machine."""
    batches = local_validation(run)
    if batches is None:
        return None
    return np.concatenate([x.numpy() for x, *_ in batches.take(4)])
