"""One version of a model, loaded as TensorFlow Serving loads it: a graph, a session, signatures."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from keras_robust.core.quiet_tensorflow import quiet_logger
from keras_robust.serving.exporting.warmup import MAX_REQUESTS, read_warmup
from keras_robust.serving.server.tensor_protos import Slot, decode, encode
from keras_robust.serving.status import Code, ServingError, clean_sentence, invalid

DEFAULT_SIGNATURE = "serving_default"
# Written by the saver among the signatures; no client may run it.
_INIT_OP = "__saved_model_init_op"


@dataclasses.dataclass(frozen=True)
class Signature:
    """What one signature takes and gives, and the call that runs it."""

    name: str
    inputs: dict[str, Slot]
    outputs: dict[str, Slot]
    call: Callable[..., Sequence[Any]]

    def check_inputs(self, names: Sequence[str]) -> None:
        """Refuses a request with missing or unknown inputs."""
        extra = sorted(set(names) - set(self.inputs))
        missing = sorted(set(self.inputs) - set(names))
        if extra or missing:
            raise invalid(
                f'The inputs do not match signature "{self.name}". Sent extra: '
                f"{{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
            )

    def select(self, output_filter: Sequence[str]) -> list[str]:
        """The outputs to give: all, or those asked for."""
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
    """A loaded version.

    Args:
        path: the directory of a SavedModel.
        version: its number.
        max_bytes: the size that no input tensor may exceed.

    Raises:
        OSError: when there is no SavedModel.
        RuntimeError: when none of its graphs is tagged `serve`.
        ValueError: when it has no signature, or too many warm-up requests.
        ServingError: when it fails on a warm-up request.
    """

    def __init__(self, path: str | os.PathLike[str], version: int, max_bytes: int) -> None:
        self.version = version
        self.max_bytes = max_bytes
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default(), quiet_logger():  # it says that it is deprecated
                loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], os.fspath(path))
            self.definitions: dict[str, meta_graph_pb2.SignatureDef] = {
                name: definition
                for name, definition in loaded.signature_def.items()
                if name != _INIT_OP
            }
            if not self.definitions:
                raise ValueError(f"{path} has no signature; expected one made by serving.export.")
            self.signatures = {
                name: self._signature(name, definition)
                for name, definition in self.definitions.items()
            }
            self._warm_up(path)
        except BaseException:
            self._session.close()
            raise

    def _signature(self, name: str, definition: meta_graph_pb2.SignatureDef) -> Signature:
        inputs, outputs = _slots(definition.inputs), _slots(definition.outputs)
        call = self._session.make_callable(
            [slot.tensor for slot in outputs.values()], [slot.tensor for slot in inputs.values()]
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
        """The signature of a name, the empty name being `serving_default`.

        Raises:
            KeyError: when there is none; the two services answer that differently.
        """
        return self.signatures[name or DEFAULT_SIGNATURE]

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Answers a message, whatever model its spec names."""
        try:
            signature = self.signature(request.model_spec.signature_name)
        except KeyError as error:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f'Serving signature key "{error.args[0]}" not found; expected one of '
                f"{', '.join(sorted(self.signatures))}.",
            ) from error
        signature.check_inputs(list(request.inputs))
        chosen = signature.select(request.output_filter)
        inputs = {
            alias: decode(slot, request.inputs[alias], self.max_bytes)
            for alias, slot in signature.inputs.items()
        }
        outputs = self.run(signature, inputs)
        response = predict_pb2.PredictResponse()
        response.model_spec.signature_name = signature.name
        response.model_spec.version.value = self.version
        for alias in chosen:
            encoded = encode(outputs[alias], signature.outputs[alias].dtype)
            response.outputs[alias].CopyFrom(encoded)
        return response

    def run(self, signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs a signature on arrays that its slots take."""
        with _tensorflow_errors():
            values = signature.call(*(inputs[alias] for alias in signature.inputs))
        return dict(zip(signature.outputs, map(np.asarray, values), strict=True))

    def close(self) -> None:
        """Gives the memory back; the version cannot be used afterwards."""
        self._session.close()
        # The calls hold the session, and graphs are full of cycles: a server that saw many
        # versions was found to have grown by one graph for each.
        self.signatures = {}
        del self._session
        gc.collect()


def _slots(infos: Mapping[str, meta_graph_pb2.TensorInfo]) -> dict[str, Slot]:
    return {alias: Slot.of(alias, infos[alias]) for alias in sorted(infos)}


@contextlib.contextmanager
def _tensorflow_errors() -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        raise ServingError(Code(error.error_code), clean_sentence(error.message)) from error
