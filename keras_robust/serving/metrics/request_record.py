"""The record of a request, which the interfaces open and the model fills in."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import time
from collections.abc import Iterator, Mapping

import numpy as np

SCORES, FLAGS, CLASSES = "detection_score", "is_adversarial", "classes"
RECORDED = (CLASSES, SCORES, FLAGS)


@dataclasses.dataclass
class RequestRecord:
    """What is known of a request.

    Names are those of loaded models and signatures only: a client that invents names must not
    create time series.

    Attributes:
        interface: `"grpc"` or `"rest"`.
        method: such as `"Predict"`; empty if unknown.
        model: name of the model that answered; empty before it was found.
        version: its number.
        signature: name of the signature; empty before it was found.
        images: size of the batch; 0 for a request without an answer of the model.
        outputs: of the outputs of the signature, classes, scores and flags.
        inputs: its inputs.
        status: name of the status code, as in gRPC.
        seconds: from the arrival of the request to its answer.
        started: seconds since the epoch.
    """

    interface: str
    method: str = ""
    model: str = ""
    version: int | None = None
    signature: str = ""
    images: int = 0
    outputs: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    inputs: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    status: str = "OK"
    seconds: float = 0.0
    started: float = dataclasses.field(default_factory=time.time)

    def answered(
        self, version: int, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
    ) -> None:
        """Stores the answer of the model."""
        self.version, self.inputs = version, inputs
        self.outputs = {name: outputs[name] for name in RECORDED if name in outputs}
        first = next(iter(outputs.values()), None)
        self.images = int(first.shape[0]) if first is not None and first.ndim else 0

    @property
    def input_bytes(self) -> int:
        """The memory of the inputs; files count by the length of their contents."""
        return sum(
            sum(map(len, array.flat)) if array.dtype == object else array.nbytes
            for array in self.inputs.values()
        )

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Makes this the `current_record` of the thread inside the `with` block."""
        token = _RECORD.set(self)
        try:
            yield
        finally:
            _RECORD.reset(token)


_RECORD: contextvars.ContextVar[RequestRecord | None] = contextvars.ContextVar("request_record")


def current_record() -> RequestRecord | None:
    """The record of the request that this thread runs; None outside of requests."""
    return _RECORD.get(None)
