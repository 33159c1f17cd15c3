"""The log of requests: a line of JSON for each, without its images unless they are wanted."""

from __future__ import annotations

import base64
import datetime
import json
import logging
import os
import random
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_robust.core.bounded_files import parse_json
from keras_robust.core.validation import check_number
from keras_robust.serving.metrics.request_record import FLAGS, RECORDED, SCORES, RequestRecord

_LOG = logging.getLogger(__name__)
PREVIOUS = ".1"  # appended to the name of the previous file


class RequestLog:
    """Appends requests to a file of JSON lines.

    A file that reaches `max_mb` is renamed to `<path>.1`, which replaces the one before. A line
    that cannot be written is counted in `failed`, and its request is answered all the same.

    Args:
        path: the file.
        sampling_rate: the share of requests that are logged, drawn independently of them.
        images: whether the inputs of a request are logged too.
        max_mb: the size of the file in MiB, up to a line.
        seed: of the draw; None for another one in each process.

    Attributes:
        written, failed: number of lines.

    Raises:
        ValueError: a rate outside [0, 1], or a size that is not positive.
        OSError: the file cannot be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sampling_rate: float = 1.0,
        *,
        images: bool = False,
        max_mb: float = 100.0,
        seed: int | None = None,
    ) -> None:
        check_number("sampling_rate", sampling_rate, 0, 1)
        check_number("max_mb", max_mb, above=0)
        self.path, self.sampling_rate, self.images = Path(path), float(sampling_rate), images
        self.written = self.failed = 0
        self._max_bytes = int(max_mb * 2**20)
        self._random, self._lock = random.Random(seed), threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.open("ab").close()

    def write(self, record: RequestRecord) -> None:
        """Appends a request, if it is drawn."""
        if self._random.random() >= self.sampling_rate:
            return
        line = json.dumps(as_json(record, self.images), separators=(",", ":")).encode() + b"\n"
        with self._lock:
            try:
                self._append(line)
                self.written += 1
            except OSError as error:
                if not self.failed:
                    _LOG.warning("The request log cannot be written: %s", error)
                self.failed += 1

    def _append(self, line: bytes) -> None:
        # Opened for each line: whoever moves the file away gets a new one.
        with self.path.open("ab") as file:
            full = file.tell() and file.tell() + len(line) > self._max_bytes
            if not full:
                file.write(line)
        if full:
            os.replace(self.path, f"{self.path}{PREVIOUS}")
            self.path.write_bytes(line)


def as_json(record: RequestRecord, images: bool = False) -> dict[str, Any]:
    """The line of a request.

    Example:
        >>> record = RequestRecord("grpc", "Predict", started=0.0, status="NOT_FOUND")
        >>> line = as_json(record)
        >>> line["time"], line["status"], "inputs" in line
        ('1970-01-01T00:00:00.000Z', 'NOT_FOUND', False)
    """
    time = datetime.datetime.fromtimestamp(record.started, datetime.timezone.utc)
    line: dict[str, Any] = {
        "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "interface": record.interface,
        "method": record.method,
        "model": record.model,
        "version": record.version,
        "signature": record.signature,
        "status": record.status,
        "seconds": round(record.seconds, 6),
        "images": record.images,
    }
    for name in RECORDED:
        output = record.outputs.get(name)
        if output is not None and output.ndim == 1 and output.dtype.kind in "biuf":
            line[name] = _values(output)
    if images and record.inputs:
        line["inputs"] = {name: _encoded(array) for name, array in record.inputs.items()}
    return line


def _values(array: np.ndarray) -> list[Any]:
    """The numbers; null for those that JSON does not have."""
    return [None if one != one or abs(one) == np.inf else one for one in array.tolist()]


def _encoded(array: np.ndarray) -> dict[str, Any]:
    """Files as base64 each, numbers as their bytes in base64."""
    if array.dtype == object:
        return {"files": [base64.b64encode(bytes(content)).decode() for content in array.flat]}
    content = np.ascontiguousarray(array)
    return {
        "dtype": content.dtype.name,
        "shape": list(content.shape),
        "base64": base64.b64encode(content.tobytes()).decode(),
    }


def parse_line(line: str | bytes) -> RequestRecord:
    """Reads a line of the log, without the images.

    Raises:
        ValueError: the line is not one of this log.
    """
    try:
        return _record(parse_json(line))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"The line is not one of a request log ({reason}).") from error


def _record(line: Mapping[str, Any]) -> RequestRecord:
    texts = {name: line[name] for name in ("interface", "method", "model", "signature", "status")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{name} is {text!r}")
    version = None if line["version"] is None else int(line["version"])
    outputs = {SCORES: np.asarray(line[SCORES], np.float64)} if SCORES in line else {}
    if outputs:
        outputs[FLAGS] = np.asarray(line[FLAGS], bool)
        if outputs[SCORES].ndim != 1 or outputs[FLAGS].shape != outputs[SCORES].shape:
            raise ValueError("its scores and flags do not belong together")
    started = datetime.datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp()
    return RequestRecord(
        **texts,
        version=version,
        outputs=outputs,
        images=int(line["images"]),
        seconds=float(line["seconds"]),
        started=started,
    )
