"""Verification: a served model gives what the local Keras model gives, loaded as TF Serving loads it.

python -m serving.verify --model_base_path=exported/digits                 # compares again
python -m serving.verify --model_base_path=exported/digits --signatures    # shows what it takes
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from keras_robust.detection import EntropyDetector
from serving.signatures import INPUTS, OUTPUTS, image_shape
from serving.versions import version_dir

REFERENCE_FILE = "reference.npz"
THRESHOLD_COLLECTION = "detector"
THRESHOLD_NAME = "threshold"
# Graph optimisers fuse and reorder operations, so the same model differs in the last bits.
TOLERANCES = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}


class VerificationError(ValueError):
    """A served model does not give what the local model gives."""


class ServedModel:
    """A SavedModel loaded the way TensorFlow Serving loads it: v1 Session, tag `serve`, SignatureDef.

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
            with self.session.graph.as_default():
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


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the local model answers to sample images.

    Args:
        pixels: `[batch, height, width, channels]` uint8; the images are `pixels / 255`.
        outputs: the outputs of the signature `detect`.
        tolerance: how far a served float may be from the local one.
    """

    pixels: np.ndarray
    outputs: dict[str, np.ndarray]
    tolerance: float

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the reference as a NumPy archive."""
        outputs = {f"outputs/{name}": values for name, values in self.outputs.items()}
        np.savez_compressed(path, pixels=self.pixels, tolerance=self.tolerance, **outputs)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Reference:
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            outputs = {
                name.removeprefix("outputs/"): archive[name]
                for name in archive.files
                if name.startswith("outputs/")
            }
            return cls(archive["pixels"], outputs, float(archive["tolerance"]))


def sample_pixels(shape: tuple[int, int, int], count: int = 6, seed: int = 0) -> np.ndarray:
    """Images to compare on: one black, one white, the others random blocks.

    Args:
        shape: height, width and channels.
        count: number of images.
        seed: of the blocks.

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


def reference(
    classifier: keras.Model, detector: EntropyDetector, pixels: np.ndarray | None = None
) -> Reference:
    """Asks the local model, by Keras alone.

    Args:
        classifier: a built functional model.
        detector: a calibrated detector of it.
        pixels: `[batch, height, width, channels]` uint8; `sample_pixels` by default.

    Returns:
        The images and the answers.
    """
    pixels = sample_pixels(image_shape(classifier)) if pixels is None else pixels
    outputs = classifier(pixels.astype(np.float32) / 255, training=False)
    scores = detector.score_outputs(outputs).numpy()
    answers = {
        "probabilities": keras.ops.softmax(outputs["logits"]),
        "classes": keras.ops.argmax(outputs["logits"], axis=-1),
        "detection_score": scores,
        "is_adversarial": scores > detector.threshold,
    }
    if "member_logits" in outputs:
        answers["member_probabilities"] = keras.ops.softmax(outputs["member_logits"])
    kept = {name: keras.ops.convert_to_numpy(values) for name, values in answers.items()}
    return Reference(pixels, kept, _tolerance(classifier))


def _tolerance(classifier: keras.Model) -> float:
    return max(TOLERANCES.get(dtype, 0.0) for dtype in {"float32", *_dtypes(classifier)})


def _dtypes(layer: Any) -> Iterator[str]:
    yield layer.compute_dtype
    for inner in getattr(layer, "layers", ()):
        yield from _dtypes(inner)


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
    images = expected.pixels.astype(np.float32) / 255
    files = np.array([tf.io.encode_png(pixels).numpy() for pixels in expected.pixels], object)
    threshold = read_threshold(path)
    with ServedModel(path) as model:
        _check_signatures(model, images.shape[1:], expected)
        _check_refusals(model, images)
        differences = {}
        for signature, key in INPUTS.items():
            feed = images if key == "images" else files
            compare = functools.partial(_difference, signature, expected, threshold)
            differences[signature] = max(
                compare(model.predict(signature, feed), slice(None)),
                compare(model.predict(signature, feed[:1]), slice(1)),
            )
    return differences


def stored_reference(path: str | os.PathLike[str]) -> Reference:
    """What the local model answered when the version was exported."""
    file = Path(path) / "assets.extra" / REFERENCE_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist: nothing to compare with. Versions made by "
            "`python -m serving.export` hold it."
        )
    return Reference.load(file)


def read_threshold(path: str | os.PathLike[str]) -> float:
    """The detector's threshold in a SavedModel, read from its variables without loading the graph.

    Raises:
        VerificationError: when there is none.
    """
    reader = tf.train.load_checkpoint(str(Path(path) / "variables" / "variables"))
    names = [name for name in reader.get_variable_to_shape_map() if THRESHOLD_COLLECTION in name]
    if len(names) != 1:
        raise VerificationError(
            f"{path} holds {len(names)} variables of a detector; expected one, its threshold. "
            "Versions made by `python -m serving.export` hold it."
        )
    return float(reader.get_tensor(names[0]))


def _check_signatures(model: ServedModel, shape: tuple[int, ...], expected: Reference) -> None:
    if set(model.signatures) != set(INPUTS):
        raise VerificationError(
            f"The served model has the signatures {sorted(model.signatures)}; "
            f"expected {sorted(INPUTS)}."
        )
    for name, signature in model.signatures.items():
        extra = set(expected.outputs) - set(OUTPUTS["detect"])
        wanted = {
            key: (OUTPUTS["detect"].get(key, tf.float32), [-1, *expected.outputs[key].shape[1:]])
            for key in {*OUTPUTS[name], *extra}
        }
        _check_tensors(f"The outputs of {name!r}", signature.outputs, wanted)
        key = INPUTS[name]
        image = (tf.float32, [-1, *shape]) if key == "images" else (tf.string, [-1])
        _check_tensors(f"The inputs of {name!r}", signature.inputs, {key: image})


def _check_tensors(what: str, infos: Any, wanted: dict[str, tuple[tf.DType, list[int]]]) -> None:
    found = {
        key: (tf.as_dtype(info.dtype), [dim.size for dim in info.tensor_shape.dim])
        for key, info in infos.items()
    }
    if found != wanted:
        raise VerificationError(f"{what} are {_described(found)}; expected {_described(wanted)}.")


def _described(tensors: dict[str, tuple[tf.DType, list[int]]]) -> str:
    return ", ".join(f"{key}: {t.name} {shape}" for key, (t, shape) in sorted(tensors.items()))


def _check_refusals(model: ServedModel, images: np.ndarray) -> None:
    for what, bad in {"above 1": images + 2, "below 0": images - 2, "NaN": images * np.nan}.items():
        try:
            model.predict("serving_default", bad)
        except tf.errors.InvalidArgumentError:
            continue
        raise VerificationError(f"The served model accepts images that are {what}.")


def _difference(
    signature: str,
    expected: Reference,
    threshold: float,
    served: dict[str, np.ndarray],
    part: slice,
) -> float:
    local = {name: values[part] for name, values in expected.outputs.items()}
    worst = 0.0
    for name in (name for name in served if served[name].dtype.kind == "f"):
        gaps = np.abs(served[name] - local[name])
        worst = max(worst, float(gaps.max()))
        if not worst <= expected.tolerance:  # NaN must fail
            raise VerificationError(
                f"The output {name!r} of {signature!r} differs from the local model's by "
                f"{gaps.max():.3g}; at most {expected.tolerance:g} is allowed."
            )
    top = np.sort(local["probabilities"], axis=-1)
    clear = {
        "classes": top[:, -1] - top[:, -2] > 2 * expected.tolerance,
        "is_adversarial": np.abs(local["detection_score"] - threshold) > expected.tolerance,
    }
    for name in clear.keys() & served.keys():
        wrong = (served[name] != local[name]) & clear[name]
        if wrong.any():
            raise VerificationError(
                f"The output {name!r} of {signature!r} is {served[name].tolist()}; the local model "
                f"says {local[name].tolist()}."
            )
    return worst


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_string(
        "model_base_path", None, "Directory of the versions.", required=True, flag_values=values
    )
    flags.DEFINE_integer("version", None, "Which; by default the latest.", flag_values=values)
    flags.DEFINE_bool("signatures", False, "Only print the signatures.", flag_values=values)


def run(values: flags.FlagValues = flags.FLAGS) -> str:
    """Verifies a version, or describes it; returns the lines to print."""
    path = version_dir(values.model_base_path, values.version)
    if values.signatures:
        return "\n".join([str(path), *_signature_lines(path)])
    lines = [
        f"  {name}: equal to the local model, largest difference {difference:.1e}"
        for name, difference in verify(path).items()
    ]
    return "\n".join(
        [str(path), *lines, f"  threshold of the detector: {read_threshold(path):.6g}"]
    )


def _signature_lines(path: Path) -> Iterator[str]:
    with ServedModel(path) as model:
        for name, signature in sorted(model.signatures.items()):
            yield f"  {name}"
            for side, infos in (("takes", signature.inputs), ("gives", signature.outputs)):
                for key, info in sorted(infos.items()):
                    shape = [dim.size for dim in info.tensor_shape.dim]
                    yield f"    {side} {key}: {tf.as_dtype(info.dtype).name} {shape}"


def main(_: list[str]) -> None:
    """Runs the program."""
    print(run())


if __name__ == "__main__":
    define_flags()
    app.run(main)
