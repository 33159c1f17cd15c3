"""Verification: compares the signatures of an exported version with the local Keras model."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from keras_robust.serving.exporting.reference import REFERENCE_FILE, Reference
from keras_robust.serving.exporting.saved_model import SavedModelSession
from keras_robust.serving.exporting.signatures import MEMBERS, OUTPUTS, signatures_of

# The variable collection of a SavedModel that holds the detector's threshold.
DETECTOR_COLLECTION = "detector"

Specs = dict[str, tuple[tf.DType, list[int]]]  # name -> type and shape, -1 for any length
TensorInfos = Mapping[str, meta_graph_pb2.TensorInfo]


class VerificationError(ValueError):
    """A served model differs from the local model."""


def verify(path: str | os.PathLike[str], expected: Reference | None = None) -> dict[str, float]:
    """Compares all signatures of a version with the local model, on one image and on a batch.

    Classes and alarms must be equal, except where the local model is within the tolerance of a tie
    or of the threshold. Images outside [0, 1], NaN and empty batches must be rejected.

    Args:
        path: a version directory.
        expected: the local model's outputs; default those stored with the version.

    Returns:
        `{signature: largest difference of a float output}`.

    Raises:
        FileNotFoundError: the version stores no outputs.
        VerificationError: the first difference found.
    """
    if expected is None:
        expected = stored_reference(path)
    threshold = read_threshold(path)
    if threshold != np.float32(expected.threshold):
        raise VerificationError(
            f"The threshold in {path} is {threshold}; the local detector's is {expected.threshold}."
        )
    feeds = {"images": expected.images, "image_bytes": expected.files}
    if expected.radius is not None:
        feeds["radius"] = np.full(len(expected.images), expected.radius, np.float32)
    with SavedModelSession(path) as model:
        _check_signatures(model, expected)
        _check_rejections(model, expected.images)
        differences = {}
        for signature, names in signatures_of(expected.radius is not None).items():
            compare = functools.partial(difference, signature, expected)
            differences[signature] = max(
                compare(model.predict(signature, {n: feeds[n][rows] for n in names}), rows)
                for rows in (slice(None), slice(1))
            )
    return differences


def stored_reference(path: str | os.PathLike[str]) -> Reference:
    """Reads the local model's outputs that were stored when the version was exported.

    Raises:
        FileNotFoundError: the version stores none.
    """
    file = Path(path) / "assets.extra" / REFERENCE_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist, so there is nothing to compare with. Export the model with "
            "`keras-robust export`, which stores it."
        )
    return Reference.load(file)


def read_threshold(path: str | os.PathLike[str]) -> float:
    """Reads the detector's threshold from a SavedModel's variables, without loading the graph.

    Raises:
        VerificationError: the SavedModel does not hold exactly one.
    """
    reader = tf.train.load_checkpoint(str(Path(path) / "variables" / "variables"))
    names = [name for name in reader.get_variable_to_shape_map() if DETECTOR_COLLECTION in name]
    if len(names) != 1:
        raise VerificationError(
            f"{path} holds {len(names)} detector variables; expected one, the threshold. Export "
            "the model with `keras-robust export`, which writes it."
        )
    return float(reader.get_tensor(names[0]))


def describe(path: Path) -> Iterator[str]:
    """Yields lines with the inputs and outputs of each signature of a version."""
    yield str(path)
    with SavedModelSession(path) as model:
        for name, definition in sorted(model.signatures.items()):
            yield f"  {name}"
            for side, infos in (("input", definition.inputs), ("output", definition.outputs)):
                for key, (dtype, shape) in sorted(_specs(infos).items()):
                    yield f"    {side} {key}: {dtype.name} {shape}"


def _check_rejections(model: SavedModelSession, images: np.ndarray) -> None:
    """Raises unless the graph rejects invalid images."""
    invalid = {
        "images above 1": images + 2,
        "images below 0": images - 2,
        "images that are NaN": images * np.float32(np.nan),
        "an empty batch": images[:0],
    }
    for what, batch in invalid.items():
        try:
            model.predict("detect", batch)
        except tf.errors.InvalidArgumentError:
            continue
        raise VerificationError(f"The served model accepts {what}; it has to reject them.")


def _check_signatures(model: SavedModelSession, expected: Reference) -> None:
    """Raises unless names, types and shapes of all inputs and outputs are the expected ones."""
    signatures = signatures_of(expected.radius is not None)
    if set(model.signatures) != set(signatures):
        raise VerificationError(
            f"The served model has the signatures {sorted(model.signatures)}; "
            f"expected {sorted(signatures)}."
        )
    members = MEMBERS if MEMBERS.keys() <= expected.outputs.keys() else {}
    inputs = {
        "images": (tf.float32, [-1, *expected.images.shape[1:]]),
        "image_bytes": (tf.string, [-1]),
        "radius": (tf.float32, [-1]),
    }
    for name, definition in model.signatures.items():
        outputs = {
            key: (dtype, [-1, *expected.outputs[key].shape[1:]])
            for key, dtype in {**OUTPUTS[name], **members}.items()
            if key not in expected.withheld
        }
        names = signatures[name]
        _check_specs(f"The inputs of {name!r}", definition.inputs, {n: inputs[n] for n in names})
        _check_specs(f"The outputs of {name!r}", definition.outputs, outputs)


def _check_specs(what: str, infos: TensorInfos, expected: Specs) -> None:
    found = _specs(infos)
    if found != expected:
        raise VerificationError(f"{what} are {_text(found)}; expected {_text(expected)}.")


def _specs(infos: TensorInfos) -> Specs:
    return {
        key: (tf.as_dtype(info.dtype), [dim.size for dim in info.tensor_shape.dim])
        for key, info in infos.items()
    }


def _text(specs: Specs) -> str:
    return ", ".join(
        f"{key}: {dtype.name} {shape}" for key, (dtype, shape) in sorted(specs.items())
    )


def difference(
    signature: str,
    expected: Reference,
    served: dict[str, np.ndarray],
    rows: slice = slice(None),
) -> float:
    """The largest difference of a float output from the local model's.

    Raises:
        VerificationError: the difference is above the tolerance, or a decision differs.
    """
    local = {name: values[rows] for name, values in expected.outputs.items()}
    floats = [name for name in served if served[name].dtype.kind == "f"]
    largest = {name: float(np.abs(served[name] - local[name]).max()) for name in floats}
    for name, found in largest.items():
        allowed = expected.tolerance_of(name)
        if not found <= allowed:  # also rejects NaN
            raise VerificationError(
                f"The output {name!r} of {signature!r} differs from the local model's by "
                f"{found:.3g}; at most {allowed:g} is allowed."
            )
    for name, decisive in _decisive(local, expected).items():
        if name in served and ((served[name] != local[name]) & decisive).any():
            raise VerificationError(
                f"The output {name!r} of {signature!r} is {served[name].tolist()}; the local "
                f"model's is {local[name].tolist()}."
            )
    return max(largest.values())


def _decisive(local: dict[str, np.ndarray], expected: Reference) -> dict[str, np.ndarray]:
    """Where a decision of the local model cannot change by rounding."""
    best = np.sort(local["probabilities"], axis=-1)
    decisive = {
        "classes": best[:, -1] - best[:, -2] > 2 * expected.tolerance,
        "is_adversarial": abs(local["detection_score"] - expected.threshold)
        > expected.tolerance_of("detection_score"),
    }
    if expected.undecided is not None:
        decisive["certified"] = decisive["classes"] & ~expected.undecided[: len(best)]
    return decisive
