"""A loaded version of a model: validates requests and runs its signatures."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from keras_robust.serving.exporting.saved_model import SavedModelSession
from keras_robust.serving.exporting.warmup import MAX_REQUESTS, read_warmup
from keras_robust.serving.metrics.request_record import current_record
from keras_robust.serving.server.batching import Batcher, Batching
from keras_robust.serving.server.deadline import Deadline, current_deadline
from keras_robust.serving.server.image_files import count_pixels
from keras_robust.serving.server.tensor_protos import Slot, decode, encode
from keras_robust.serving.status import Code, ServingError, clean_message, invalid

DEFAULT_SIGNATURE = "serving_default"
MAX_PIXELS = 64_000_000


@dataclasses.dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a signature, and the function that runs it."""

    name: str
    inputs: dict[str, Slot]
    outputs: dict[str, Slot]
    call: Callable[..., Sequence[np.ndarray]]

    @property
    def by_row(self) -> bool:
        """Whether all inputs and outputs have one row per example, in any number."""
        slots = [*self.inputs.values(), *self.outputs.values()]
        return all(slot.dims and slot.dims[0] is None for slot in slots)

    def check_inputs(self, names: Sequence[str]) -> None:
        """Raises on missing and unknown inputs."""
        extra = sorted(set(names) - set(self.inputs))
        missing = sorted(set(self.inputs) - set(names))
        if extra or missing:
            raise invalid(
                f'The inputs do not match signature "{self.name}". Sent extra: '
                f"{{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
            )

    def select(self, output_filter: Sequence[str]) -> list[str]:
        """The outputs to return: those of the filter, all without one."""
        for position, alias in enumerate(output_filter):
            if alias not in self.outputs:
                raise invalid(
                    f"output tensor alias not found in signature: {alias} Outputs expected to be "
                    f"in the set {{{','.join(sorted(self.outputs))}}}."
                )
            if alias in output_filter[:position]:
                raise invalid(f"duplicate output tensor alias: {alias}")
        return list(output_filter) or sorted(self.outputs)


class Servable:
    """A loaded version of a model.

    Args:
        path: the directory of a SavedModel.
        version: its number.
        max_bytes: largest size of an input tensor.
        max_pixels: most pixels of the image files of a request, together.
        batching: joins requests to batches; None runs each by itself.

    Raises:
        ValueError: the SavedModel cannot be loaded, has no signature, or too many warm-up requests.
        ServingError: a warm-up request fails.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        version: int,
        max_bytes: int,
        max_pixels: int = MAX_PIXELS,
        batching: Batching | None = None,
    ) -> None:
        self.version = version
        self.max_bytes = max_bytes
        self.max_pixels = max_pixels
        self._batchers: dict[str, Batcher] = {}
        # Called with the signature and the size of each batch, once the version is warm.
        self.on_batch: Callable[[str, int], None] | None = None
        self._model = SavedModelSession(path)
        try:
            self.definitions = self._model.signatures
            if not self.definitions:
                raise ValueError(
                    f"{path} has no signature; expected a version that `keras-robust export` wrote."
                )
            self.signatures = {
                name: self._signature(name, definition)
                for name, definition in self.definitions.items()
            }
            self._warm_up(path)
        except BaseException:
            self._model.close()
            raise
        if batching is not None:
            self._batchers = {
                name: Batcher(functools.partial(self._call, signature), batching)
                for name, signature in self.signatures.items()
                if signature.by_row
            }

    def _signature(self, name: str, definition: meta_graph_pb2.SignatureDef) -> Signature:
        inputs, outputs = _slots(definition.inputs), _slots(definition.outputs)
        call = self._model.function(
            [slot.tensor for slot in inputs.values()], [slot.tensor for slot in outputs.values()]
        )
        return Signature(name, inputs, outputs, call)

    def _warm_up(self, path: str | os.PathLike[str]) -> None:
        requests = read_warmup(path)
        if len(requests) > MAX_REQUESTS:
            raise ValueError(
                f"{path} has {len(requests)} warm-up requests; expected at most {MAX_REQUESTS}."
            )
        for request in requests:
            self.predict(request)

    def signature(self, name: str) -> Signature:
        """Finds a signature; the empty name stands for `serving_default`.

        Raises:
            KeyError: unknown name, for which the two services have different codes.
        """
        signature = self.signatures[name or DEFAULT_SIGNATURE]
        if (record := current_record()) is not None:
            record.signature = signature.name
        return signature

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Runs a request; ignores the model that its spec names."""
        try:
            signature = self.signature(request.model_spec.signature_name)
        except KeyError as error:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f'Serving signature key "{error.args[0]}" not found; expected one of '
                f"{', '.join(sorted(self.signatures))}.",
            ) from error
        signature.check_inputs(list(request.inputs))
        selected = signature.select(request.output_filter)
        inputs = {
            alias: decode(slot, request.inputs[alias], self.max_bytes)
            for alias, slot in signature.inputs.items()
        }
        outputs = self.run(signature, inputs)
        response = predict_pb2.PredictResponse()
        response.model_spec.signature_name = signature.name
        response.model_spec.version.value = self.version
        for alias in selected:
            encoded = encode(outputs[alias], signature.outputs[alias].dtype)
            response.outputs[alias].CopyFrom(encoded)
        return response

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a batch."""
        return sum(batcher.waiting for batcher in self._batchers.values())

    def run(self, signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a signature on arrays that fit its inputs.

        After the deadline of the request, TensorFlow ends the run before its next operation.

        Raises:
            ServingError: INVALID_ARGUMENT, DEADLINE_EXCEEDED, or the model's own error.
        """
        for alias, array in inputs.items():
            if signature.inputs[alias].dtype == tf.string:
                self._check_pixels(alias, array)
        arrays = [inputs[alias] for alias in signature.inputs]
        batcher = self._batchers.get(signature.name)
        run = functools.partial(self._call, signature) if batcher is None else batcher.run
        values = run(arrays, current_deadline())
        outputs = dict(zip(signature.outputs, values, strict=True))
        if (record := current_record()) is not None:
            record.answered(self.version, inputs, outputs)
        return outputs

    def _call(
        self, signature: Signature, arrays: Sequence[np.ndarray], deadline: Deadline | None
    ) -> Sequence[np.ndarray]:
        options = None
        if deadline is not None:
            milliseconds = math.ceil(1000 * deadline.remaining())
            if not milliseconds:
                raise deadline.exceeded()
            options = tf.compat.v1.RunOptions(timeout_in_ms=milliseconds)
        if self.on_batch is not None and arrays and arrays[0].ndim:
            self.on_batch(signature.name, len(arrays[0]))
        with _tensorflow_errors(deadline):
            return [np.asarray(value) for value in signature.call(*arrays, options=options)]

    def _check_pixels(self, alias: str, files: np.ndarray) -> None:
        """Raises if files unpack to more pixels than a request may have."""
        pixels = 0
        for index, content in enumerate(files.flat):
            try:
                pixels += count_pixels(content)
            except ValueError as error:
                raise invalid(f'File {index} of input "{alias}" is malformed: {error}.') from error
        if pixels > self.max_pixels:
            raise invalid(
                f'The {files.size} files of input "{alias}" have {pixels} pixels; expected at most '
                f"{self.max_pixels} in a request. Send smaller images, or fewer."
            )

    def close(self) -> None:
        """Frees the memory; the version cannot be used afterwards."""
        self._model.close()
        # The calls hold the session, and graphs are full of reference cycles: without this a server
        # grows by one graph with each version.
        self.signatures, self._batchers = {}, {}
        del self._model
        gc.collect()


def _slots(infos: Mapping[str, meta_graph_pb2.TensorInfo]) -> dict[str, Slot]:
    return {alias: Slot.of(alias, infos[alias]) for alias in sorted(infos)}


@contextlib.contextmanager
def _tensorflow_errors(deadline: Deadline | None) -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        if deadline is not None and isinstance(error, tf.errors.DeadlineExceededError):
            raise deadline.exceeded() from error
        raise ServingError(Code(error.error_code), clean_message(error.message)) from error
