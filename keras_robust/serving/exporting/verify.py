"""TODO keras_robust.serving.exporting.verify."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust.core.quiet_tensorflow import quiet_logger
from keras_robust.serving.exporting.reference import REFERENCE_FILE, Reference
from keras_robust.serving.exporting.signatures import INPUTS, MEMBERS, OUTPUTS

# The variables of a SavedModel's detector: one, its threshold.
DETECTOR_COLLECTION = "detector"


class ServedModel:
    """A SavedModel loaded as TensorFlow Serving loads it: v1 Session, tag `serve`, SignatureDef.

    Args:
        path: a version directory.

    Attributes:
        signatures: `{name: SignatureDef}`, without the entries that are no signatures.

    Raises:
        VerificationError: when it cannot be loaded in this way.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        try:
            with self.session.graph.as_default(), quiet_logger():  # the call is a v1 one
                meta = tf.compat.v1.saved_model.load(self.session, ["serve"], str(path))
        except (OSError, RuntimeError, tf.errors.OpError) as error:
            self.session.close()
            raise VerificationError(
                f"{path} cannot be loaded as TensorFlow Serving loads it: {error}"
            ) from error
        self.signatures = {
            name: signature
            for name, signature in meta.signature_def.items()
            if not name.startswith("__")
        }

    def __enter__(self) -> ServedModel:
        return self

    def __exit__(self, *_: Any) -> None:
        self.session.close()

    def predict(self, signature: str, inputs: Any) -> dict[str, np.ndarray]:
        """The outputs of a signature for its one input.

        Raises:
            tf.errors.InvalidArgumentError: when the graph refuses the input.
        """
        definition = self.signatures[signature]
        key = INPUTS[signature]
        fetches = {name: info.name for name, info in definition.outputs.items()}
        return self.session.run(fetches, {definition.inputs[key].name: inputs})


class VerificationError(ValueError):
    """A served model does not give what the local model gives."""


def _check_refusals(model: ServedModel, images: np.ndarray) -> None:
    refused = {
        "images above 1": images + 2,
        "images below 0": images - 2,
        "images that are NaN": images * np.float32(np.nan),
        "a batch without images": images[:0],
    }
    for what, bad in refused.items():
        try:
            model.predict("detect", bad)
        except tf.errors.InvalidArgumentError:
            continue
        raise VerificationError(f"The served model accepts {what}; it has to refuse them.")


def _check_signatures(model: ServedModel, expected: Reference) -> None:
    if set(model.signatures) != set(INPUTS):
        raise VerificationError(
            f"The served model has the signatures {sorted(model.signatures)}; "
            f"expected {sorted(INPUTS)}."
        )
    members = MEMBERS if MEMBERS.keys() <= expected.outputs.keys() else {}
    inputs = {
        "images": (tf.float32, [-1, *expected.images.shape[1:]]),
        "image_bytes": (tf.string, [-1]),
    }
    for name, signature in model.signatures.items():
        outputs = {
            key: (dtype, [-1, *expected.outputs[key].shape[1:]])
            for key, dtype in {**OUTPUTS[name], **members}.items()
        }
        key = INPUTS[name]
        _check_tensors(f"The inputs of {name!r}", signature.inputs, {key: inputs[key]})
        _check_tensors(f"The outputs of {name!r}", signature.outputs, outputs)


def _check_tensors(what: str, infos: Any, wanted: dict[str, tuple[tf.DType, list[int]]]) -> None:
    found = _tensors(infos)
    if found != wanted:
        raise VerificationError(f"{what} are {_described(found)}; expected {_described(wanted)}.")


def _clear(local: dict[str, np.ndarray], expected: Reference) -> dict[str, np.ndarray]:
    """Where a decision of the local model is no matter of rounding."""
    best = np.sort(local["probabilities"], axis=-1)
    return {
        "classes": best[:, -1] - best[:, -2] > 2 * expected.tolerance,
        "is_adversarial": abs(local["detection_score"] - expected.threshold) > expected.tolerance,
    }


def _described(tensors: dict[str, tuple[tf.DType, list[int]]]) -> str:
    return ", ".join(f"{key}: {t.name} {shape}" for key, (t, shape) in sorted(tensors.items()))


def _difference(
    signature: str, expected: Reference, served: dict[str, np.ndarray], part: slice
) -> float:
    local = {name: values[part] for name, values in expected.outputs.items()}
    floats = [name for name in served if served[name].dtype.kind == "f"]
    largest = {name: float(np.abs(served[name] - local[name]).max()) for name in floats}
    for name, difference in largest.items():
        if not difference <= expected.tolerance:  # NaN is refused with the rest
            raise VerificationError(
                f"The output {name!r} of {signature!r} differs from the local model's by "
                f"{difference:.3g}; at most {expected.tolerance:g} is allowed."
            )
    for name, clear in _clear(local, expected).items():
        if name in served and ((served[name] != local[name]) & clear).any():
            raise VerificationError(
                f"The output {name!r} of {signature!r} is {served[name].tolist()}; the local "
                f"model says {local[name].tolist()}."
            )
    return max(largest.values())


def _tensors(infos: Any) -> dict[str, tuple[tf.DType, list[int]]]:
    return {
        key: (tf.as_dtype(info.dtype), [dim.size for dim in info.tensor_shape.dim])
        for key, info in infos.items()
    }


def describe(path: Path) -> Iterator[str]:
    """Yields the lines that say what a version takes and gives."""
    yield str(path)
    with ServedModel(path) as model:
        for name, signature in sorted(model.signatures.items()):
            yield f"  {name}"
            for side, infos in (("takes", signature.inputs), ("gives", signature.outputs)):
                for key, (dtype, shape) in sorted(_tensors(infos).items()):
                    yield f"    {side} {key}: {dtype.name} {shape}"


def read_threshold(path: str | os.PathLike[str]) -> float:
    """The detector's threshold in a SavedModel, read from its variables without loading the graph.

    Raises:
        VerificationError: when there is none.
    """
    reader = tf.train.load_checkpoint(str(Path(path) / "variables" / "variables"))
    names = [name for name in reader.get_variable_to_shape_map() if DETECTOR_COLLECTION in name]
    if len(names) != 1:
        raise VerificationError(
            f"{path} holds {len(names)} variables of a detector; expected one, its threshold. "
            "Versions made by `python -m serving.export` hold it."
        )
    return float(reader.get_tensor(names[0]))


def stored_reference(path: str | os.PathLike[str]) -> Reference:
    """What the local model answered when the version was exported."""
    file = Path(path) / "assets.extra" / REFERENCE_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist: nothing to compare with. Versions made by "
            "`python -m serving.export` hold it."
        )
    return Reference.load(file)


def verify(path: str | os.PathLike[str], expected: Reference | None = None) -> dict[str, float]:
    """Compares all signatures of a version with the local model, for one image and for several.

    Classes and alarms must be equal, except where the local model itself is within the tolerance of
    a tie or of the threshold. Images outside [0, 1] and images that are no numbers must be refused.

    Args:
        path: a version directory.
        expected: what the local model answers; by default what was stored with the version.

    Returns:
        The largest difference of a float output, for each signature.

    Raises:
        FileNotFoundError: when nothing is stored.
        VerificationError: when something differs; it says what.
    """
    if expected is None:
        expected = stored_reference(path)
    threshold = read_threshold(path)
    if threshold != np.float32(expected.threshold):
        raise VerificationError(
            f"The threshold in {path} is {threshold}; the local detector's is {expected.threshold}."
        )
    feeds = {"images": expected.images, "image_bytes": expected.files}
    with ServedModel(path) as model:
        _check_signatures(model, expected)
        _check_refusals(model, expected.images)
        differences = {}
        for signature, key in INPUTS.items():
            compare = functools.partial(_difference, signature, expected)
            differences[signature] = max(
                compare(model.predict(signature, feeds[key]), slice(None)),
                compare(model.predict(signature, feeds[key][:1]), slice(1)),
            )
    return differences
