"""Conversion: a classifier with its detector as an ONNX, TFLite, OpenVINO or Keras file."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_robust.core.atomic_files import replacing, write_errors, write_json
from keras_robust.core.quiet_tensorflow import quiet_logger
from keras_robust.core.types import Outputs
from keras_robust.core.validation import lookup
from keras_robust.detection import Detector, FittedDetector
from keras_robust.detection.calibration import exceeds
from keras_robust.serving.exporting.converted_model import FORMATS, ConvertedModel
from keras_robust.serving.exporting.detector_checks import check_detector, check_range
from keras_robust.serving.exporting.extras import import_extra
from keras_robust.serving.exporting.metadata import model_metadata
from keras_robust.serving.exporting.reference import make_reference, sample_pixels
from keras_robust.serving.exporting.signatures import (
    check_withheld,
    classification,
    exportable_classifier,
    image_shape,
    without,
)
from keras_robust.serving.exporting.verify import VerificationError, difference

SUFFIXES = {**{name: suffix for suffix, name in FORMATS.items()}, "keras": ".keras"}
QUANTIZATIONS = ("float16", "dynamic")  # of TFLite: of the weights, to 16 or 8 bits
_OPSET = 18
_OUT_OF_RANGE = "out_of_range"
_CALIBRATED = 256  # images on which the verdicts of a quantized model are compared


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A converted file, and how its answers differ from the local model's.

    Args:
        path: the file.
        difference: largest difference of a float output.
        images: number of images that were compared.
        changed_classes: number of them with another class.
        changed_flags: number of them with another verdict of the detector; 0 if withheld.
    """

    path: Path
    difference: float
    images: int
    changed_classes: int = 0
    changed_flags: int = 0

    def summary(self) -> str:
        """The file and the comparison, in a line each."""
        return (
            f"{self.path}\n  {self.images} images: largest difference {self.difference:.2g}, "
            f"{self.changed_classes} other classes, {self.changed_flags} other verdicts of the "
            "detector"
        )


def convert_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    detector: Detector,
    *,
    quantize: str | None = None,
    images: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    recipe: str | None = None,
    withhold: Iterable[str] = (),
) -> Conversion:
    """Writes a model with its detector in one file, and compares the file with the model.

    The outputs are those of the signature `detect`, and `out_of_range`, `[batch]` bool: runtimes
    drop the checks of a served model, so values outside [0, 1] are clipped, and this says where.
    A `.keras` file holds the classifier alone; its detector is written next to it. Metadata is
    written to `<path>.json`.

    Args:
        model: a `RobustModel`, or a built functional classifier.
        path: a new file, `.onnx`, `.tflite`, `.xml` (OpenVINO) or `.keras`.
        detector: a calibrated detector of the model.
        quantize: of TFLite, `"float16"` or `"dynamic"` (8 bits): smaller weights, other answers.
        images: `[n, height, width, channels]` in [0, 1], on which the answers of a quantized model
            are compared; default a few random ones.
        class_names: one name per class, for the metadata.
        recipe: name of the training recipe, for the metadata.
        withhold: outputs to leave out, as for `export_model`.

    Raises:
        FileExistsError: the file exists.
        ImportError: the converter or the runtime is not installed.
        ValueError: an unknown suffix, quantization of another format, a model that cannot be
            converted, or as for `export_model`.
        VerificationError: the file answers differently, and is not quantized; it is removed.
    """
    path = Path(path)
    name = _format(path, quantize)
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists, and is not overwritten; choose another name.")
    classifier = exportable_classifier(model)
    check_detector(detector, classifier)
    check_range(model, detector, classifier)
    withheld = check_withheld(withhold)
    metadata = model_metadata(classifier, detector, class_names, recipe)
    function = detection_function(classifier, detector, withheld)
    with write_errors(path, " No model was written."), _draft(path) as draft:
        if name == "keras":
            found = _write_keras(draft, path, classifier, detector)
        else:
            _WRITERS[name](draft, function, quantize)
            converted = ConvertedModel(draft)
            found = _compare(path, converted, classifier, detector, withheld, images, quantize)
        document = {"format": name, "quantize": quantize, "withheld": list(withheld), **metadata}
        document["out_of_range"] = "not checked" if name == "keras" else "clipped, and told"
        document["compared"] = {**dataclasses.asdict(found), "path": path.name}
        write_json(Path(f"{path}.json"), document)
        if name == "openvino":  # its weights are a file of their own
            os.replace(draft.with_suffix(".bin"), path.with_suffix(".bin"))
    return found


@contextlib.contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A temporary file that becomes the path; what is left of OpenVINO's weights is removed."""
    with replacing(path) as draft:
        try:
            yield draft
        finally:
            draft.with_suffix(".bin").unlink(missing_ok=True)


def detection_function(
    classifier: keras.Model, detector: Detector, withheld: Iterable[str] = ()
) -> tf.types.experimental.PolymorphicFunction:
    """A function of images whose weights are constants: `images -> outputs`."""
    values = [variable.numpy() for variable in classifier.variables]
    threshold = float(np.float32(detector.threshold))

    def detect(images: tf.Tensor) -> Outputs:
        inside = tf.reduce_all((images >= 0) & (images <= 1), axis=[1, 2, 3])
        x = tf.clip_by_value(images, 0.0, 1.0)
        # Converters leave variables uninitialized, or make inputs of them.
        constants = zip(classifier.variables, map(tf.constant, values), strict=True)
        with keras.StatelessScope(state_mapping=list(constants)):
            outputs, score = detector.outputs_and_score(x, lambda x: classifier(x, training=False))
        verdicts = {"detection_score": score, "is_adversarial": exceeds(score, threshold)}
        return {**classification(outputs), **verdicts, _OUT_OF_RANGE: ~inside}

    spec = tf.TensorSpec([None, *image_shape(classifier)], tf.float32, name="images")
    return tf.function(without(detect, withheld), input_signature=[spec], autograph=False)


def _format(path: Path, quantize: str | None) -> str:
    known = {suffix: name for name, suffix in SUFFIXES.items()}
    name = known[lookup("format of models with the suffix", path.suffix, known)]
    if quantize is not None:
        lookup("quantization", quantize, QUANTIZATIONS)
        if name != "tflite":
            raise ValueError(f"quantize is {quantize!r}; only .tflite files are quantized.")
    return name


def _write_onnx(path: Path, function: Any, quantize: str | None) -> None:
    converter = import_extra("tf2onnx", "onnx", "This conversion")
    with quiet_logger():
        model, _ = converter.convert.from_function(
            function, input_signature=function.input_signature, opset=_OPSET
        )
    if [entry.name for entry in model.graph.input] != ["images"]:
        raise ValueError("The detector holds tensors that the converter cannot make constants.")
    path.write_bytes(model.SerializeToString())


def _write_tflite(path: Path, function: Any, quantize: str | None) -> None:
    concrete = function.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
    if quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        with quiet_logger(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = converter.convert()
    except Exception as error:  # of its own kind, with pages of text
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"The model cannot be converted to TFLite: {reason}") from error
    path.write_bytes(content)


def _write_openvino(path: Path, function: Any, quantize: str | None) -> None:
    runtime = import_extra("openvino", "openvino", "This conversion")
    runtime.save_model(runtime.convert_model(function), str(path), compress_to_fp16=False)


_WRITERS: dict[str, Callable[[Path, Any, str | None], None]] = {
    "onnx": _write_onnx,
    "tflite": _write_tflite,
    "openvino": _write_openvino,
}


def _write_keras(
    draft: Path, path: Path, classifier: keras.Model, detector: Detector
) -> Conversion:
    """Writes the classifier, and the detector next to it; compares what is read again."""
    from keras_robust.detection import Calibration, load
    from keras_robust.models.loading import load_model

    classifier.save(draft)
    copy = load_model(draft)
    if isinstance(detector, FittedDetector):
        again = load(detector.save(path.with_suffix(".detector.npz")), copy)
    else:
        file = detector.calibration.save(path.with_suffix(".detector.json"))
        again = Detector.from_calibration(copy, Calibration.load(file))
    expected = make_reference(classifier, detector)
    found = make_reference(copy, again).outputs
    return Conversion(path, difference("keras", expected, found), len(expected.pixels))


def _compare(
    path: Path,
    converted: ConvertedModel,
    classifier: keras.Model,
    detector: Detector,
    withheld: tuple[str, ...],
    images: np.ndarray | None,
    quantize: str | None,
) -> Conversion:
    """Compares a file with the local model.

    Raises:
        VerificationError: it is not quantized, and differs; or it has other outputs.
    """
    pixels = sample_pixels(image_shape(classifier))
    if quantize is not None and images is not None:
        pixels = np.round(np.asarray(images[:_CALIBRATED]) * 255).astype(np.uint8)
    expected = make_reference(classifier, detector, pixels)
    found = converted(expected.images)
    names = expected.outputs.keys() - set(withheld) | {_OUT_OF_RANGE}
    if set(found) != names:
        raise VerificationError(
            f"{path} has the outputs {sorted(found)}; expected {sorted(names)}."
        )
    _check_clipping(path, converted, expected.images)
    if quantize is None:
        largest = difference(path.name, expected, found)
        difference(path.name, expected, converted(expected.images[:1]), slice(1))
        return Conversion(path, largest, len(pixels))
    floats = [name for name in found if found[name].dtype.kind == "f"]
    changed = {
        name: int((found[name] != expected.outputs[name]).sum())
        for name in ("classes", "is_adversarial")
        if name in found
    }
    return Conversion(
        path,
        max(float(np.abs(found[name] - expected.outputs[name]).max()) for name in floats),
        len(pixels),
        changed["classes"],
        changed.get("is_adversarial", 0),
    )


def _check_clipping(path: Path, converted: ConvertedModel, images: np.ndarray) -> None:
    """Raises VerificationError unless values outside [0, 1] are clipped, and told."""
    outside = images * 3 - 1
    clipped, found = converted(np.clip(outside, 0, 1)), converted(outside)
    told = ((outside < 0) | (outside > 1)).any(axis=(1, 2, 3))
    equal = all((found[name] == clipped[name]).all() for name in found if name != _OUT_OF_RANGE)
    if not (equal and (found[_OUT_OF_RANGE] == told).all() and not clipped[_OUT_OF_RANGE].any()):
        raise VerificationError(f"{path} neither clips nor tells values outside [0, 1].")
