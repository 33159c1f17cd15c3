"""A model in an ONNX, TFLite or OpenVINO file, run by the runtime of its format."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.serving.exporting.extras import import_extra

Answer = dict[str, np.ndarray]
Run = Callable[[np.ndarray], Answer]
# Suffix of a file -> name of the format.
FORMATS = {".onnx": "onnx", ".tflite": "tflite", ".xml": "openvino"}
RUNTIMES = {"onnx": "onnxruntime", "tflite": "tensorflow", "openvino": "openvino"}


class ConvertedModel:
    """A converted model: `images -> {name: array}`, one image or a batch at a time.

    Such a file is a program for its runtime: open those that you trust.

    Args:
        path: an `.onnx`, `.tflite` or OpenVINO `.xml` file with one input, a batch of images.

    Attributes:
        input_shape: shape of an image; None for a side that may vary.
        outputs: names of the outputs.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the runtime is not installed.
        ValueError: another format, or a file that the runtime refuses.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        name = FORMATS.get(self.path.suffix)
        if name is None:
            raise ValueError(f"{path} is not a converted model; expected {', '.join(FORMATS)}.")
        if not self.path.is_file():
            raise FileNotFoundError(f"{path} does not exist; expected a converted model.")
        self._batch: int | None
        try:
            opened = {"onnx": _onnx, "tflite": _tflite, "openvino": _openvino}[name](self.path)
        except ImportError:
            raise
        except Exception as error:  # each runtime has errors of its own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"{path} cannot be opened by {RUNTIMES[name]}: {reason}") from error
        self._run, (self._batch, *sides), self.outputs = opened
        self.input_shape = tuple(sides)

    def __call__(self, images: np.ndarray) -> Answer:
        """The outputs for a batch; a file of a fixed batch size is run several times."""
        images = np.ascontiguousarray(images, np.float32)
        size = self._batch or max(len(images), 1)
        parts = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            missing = (size - len(part)) if self._batch else 0
            padded = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            parts.append({name: one[: len(part)] for name, one in self._run(padded).items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}


Opened = tuple[Run, tuple[int | None, ...], tuple[str, ...]]


def _onnx(path: Path) -> Opened:
    runtime = import_extra("onnxruntime", "onnx", f"Running {path}")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    outputs = tuple(output.name for output in session.get_outputs())

    def run(images: np.ndarray) -> Answer:
        return dict(zip(outputs, session.run(list(outputs), {entry.name: images}), strict=True))

    shape = tuple(side if isinstance(side, int) else None for side in entry.shape)
    return run, shape, outputs


def _tflite(path: Path) -> Opened:
    interpreter = _tflite_interpreter(path)
    (entry,) = interpreter.get_input_details()
    outputs = {one["name"]: one["index"] for one in interpreter.get_output_details()}
    shape = tuple(int(side) if side > 0 else None for side in entry["shape_signature"])
    signatures = interpreter.get_signature_list()
    if len(signatures) == 1:  # whose names are those of the model, not of the graph
        runner = interpreter.get_signature_runner()
        (name,) = next(iter(signatures.values()))["inputs"]
        names = tuple(next(iter(signatures.values()))["outputs"])
        return lambda images: runner(**{name: images}), shape, names

    def run(images: np.ndarray) -> Answer:
        interpreter.resize_tensor_input(entry["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(entry["index"], images)
        interpreter.invoke()
        return {name: interpreter.get_tensor(index) for name, index in outputs.items()}

    return run, shape, tuple(outputs)


def _tflite_interpreter(path: Path) -> Any:
    import tensorflow as tf

    if hasattr(tf.lite, "Interpreter"):
        with warnings.catch_warnings():  # of its move to another package
            warnings.simplefilter("ignore")
            return tf.lite.Interpreter(str(path), num_threads=1)
    runtime = import_extra("ai_edge_litert.interpreter", "tflite", f"Running {path}")
    return runtime.Interpreter(str(path))


def _openvino(path: Path) -> Opened:
    runtime = import_extra("openvino", "openvino", f"Running {path}")
    # By default it computes in half precision where the processor has it.
    model = runtime.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (entry,) = model.inputs
    outputs = tuple(output.get_any_name() for output in model.outputs)

    def run(images: np.ndarray) -> Answer:
        return {n: np.array(v) for n, v in zip(outputs, model(images).values(), strict=True)}

    shape = tuple(None if d.is_dynamic else d.get_length() for d in entry.get_partial_shape())
    return run, shape, outputs
