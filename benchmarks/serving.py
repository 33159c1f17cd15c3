"""Throughput of the embedded server over gRPC against in-process calls of the same SavedModel.

The server runs in its own process, as `python -m serving.serve` starts it; clients are threads of
this process. They use the package's gRPC client, which encodes and decodes arrays, and prepared
messages whose answers are not decoded: the difference is the cost of the clients on the same cores.
In process, the same number of threads calls `tf.saved_model.load(...)` with arrays.

    python benchmarks/serving.py
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # The root, for the packages; here, `serving` would be a benchmark.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from keras_robust.core.quiet_tensorflow import quiet_start

    with quiet_start():
        import tensorflow as tf

        tf.config.list_logical_devices()

import contextlib
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import grpc
import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging
from tensorflow_serving.apis import predict_pb2

import keras_robust as kr
from benchmarks import report, timing
from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.exporting.export import export_model

SHAPE, CLASSES, MODEL, MEMBERS = (32, 32, 3), 10, "net", 2
PLAIN, DETECT = "serving_default", "detect"
IN_PROCESS, CLIENT, PREPARED = "in process", "gRPC", "gRPC, prepared messages"
# The same with batching across requests; for loads with single images.
BATCHED, BATCHED_PREPARED = "gRPC, batching", "gRPC, batching, prepared messages"
BATCHING = ("--max_batch_size=8", "--batch_timeout_in_ms=2")
Predict = Callable[[np.ndarray, str], Any]  # answers one request: images, signature
Connect = Callable[[], AbstractContextManager[Predict]]  # each client connects for itself
Rates = dict[tuple[str, str], list[float]]


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_list(
        "channels", ["64", "128", "256"], "Channels of the net's convolutions.", flag_values=values
    )
    flags.DEFINE_list(
        "loads", ["32x1", "32x8", "1x1", "1x8"], "Batch size x clients.", flag_values=values
    )
    flags.DEFINE_float(
        "seconds", 1.5, "Duration of a load in seconds.", lower_bound=0.0, flag_values=values
    )
    flags.DEFINE_integer(
        "repeats", 7, "Number of measured rounds.", lower_bound=1, flag_values=values
    )


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Measures, and returns the rows to print."""
    channels = [int(number) for number in values.channels]
    loads = [tuple(map(int, load.split("x"))) for load in values.loads]
    keras.utils.set_random_seed(0)
    rows = []
    name, first = f"{'/'.join(values.channels)}-channel net", loads[0][0]
    with connections(net(channels)) as connect:
        for batch, clients in loads:
            compared = {
                key: way for key, way in connect.items() if batch == 1 or "batching" not in key
            }
            rates = measured(compared, batch, clients, (PLAIN,), values)
            rows += load_rows(rates, batch, clients, name)
        rows += detect_rows(connect, first, name, values)
    with connections(kr.models.ensemble([net(channels) for _ in range(MEMBERS)])) as connect:
        rows += detect_rows(connect, first, f"ensemble of {MEMBERS}, {name}", values)
    return rows


@contextlib.contextmanager
def connections(classifier: keras.Model) -> Iterator[dict[str, Connect]]:
    """Exports and serves a model; yields the ways to call it."""
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory) / MODEL
        loaded = tf.saved_model.load(str(exported(classifier, base)))
        with served(base) as address, served(base, *BATCHING) as batching:
            yield {
                IN_PROCESS: lambda: in_process(loaded),
                CLIENT: lambda: over_grpc(address),
                PREPARED: lambda: with_messages(address),
                BATCHED: lambda: over_grpc(batching),
                BATCHED_PREPARED: lambda: with_messages(batching),
            }


def measured(
    connect: dict[str, Connect], batch: int, clients: int, signatures: tuple[str, ...], values: Any
) -> Rates:
    """Requests per second in each round, for each connection and each signature."""
    images = np.random.default_rng(0).random((batch, *SHAPE), np.float32)

    def rate(open_client: Connect, signature: str) -> Callable[[], float]:
        return lambda: requests_per_second(open_client, images, signature, clients, values.seconds)

    work = {(key, name): rate(connect[key], name) for key in connect for name in signatures}
    return timing.interleaved(work, values.repeats, measure=lambda work: work(), warm_ups=1)


def load_rows(rates: Rates, batch: int, clients: int, name: str) -> Iterator[report.Row]:
    """Both gRPC clients against the calls in process."""
    base = rates[IN_PROCESS, PLAIN]
    plural = "client" if clients == 1 else "clients"
    targets = {(32, CLIENT): 0.8}
    if clients == 8:
        targets[1, BATCHED] = 0.9
    for key in [key for key, _ in rates if key != IN_PROCESS]:
        bound = targets.get((batch, key))
        speeds = [statistics.median(rates[one, PLAIN]) for one in (key, IN_PROCESS)]
        yield report.Row(
            f"{name}, batch {batch}, {clients} {plural}: requests/s of {key} / {IN_PROCESS}",
            timing.ratio(rates[key, PLAIN], base),
            None if bound is None else report.Target(bound, least=True),
            "{:.0f} / {:.0f} requests/s".format(*speeds),
        )


def detect_rows(
    connect: dict[str, Connect], batch: int, name: str, values: Any
) -> Iterator[report.Row]:
    """The cost of `detect` against a plain prediction."""
    compared = {key: connect[key] for key in (IN_PROCESS, CLIENT)}
    rates = measured(compared, batch, 1, (PLAIN, DETECT), values)
    for key in compared:
        yield report.Row(
            f"{name}, batch {batch}, 1 client, {key}: time of `{DETECT}` / `{PLAIN}`",
            timing.ratio(rates[key, PLAIN], rates[key, DETECT]),
            report.Target(1.03),
        )


def net(channels: list[int]) -> keras.Model:
    """A net of 3x3 convolutions, each followed by pooling."""
    inputs = keras.Input(SHAPE)
    x = inputs
    for filters in channels:
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x)
    features = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(CLASSES, dtype="float32")(features)
    return keras.Model(inputs, {"logits": logits, "features": features}, name=MODEL)


def exported(classifier: keras.Model, base: Path) -> Path:
    """A version directory of the classifier, with a detector."""
    images = np.random.default_rng(1).random((64, *SHAPE), np.float32)
    detector = kr.detection.EntropyDetector(classifier).calibrate([images], 0.25)
    return export_model(classifier, base, detector)


@contextlib.contextmanager
def in_process(loaded: Any) -> Iterator[Predict]:
    """Calls the SavedModel with arrays."""

    def predict(images: np.ndarray, signature: str) -> dict[str, np.ndarray]:
        answers = loaded.signatures[signature](images=tf.constant(images))
        return {name: answer.numpy() for name, answer in answers.items()}

    yield predict


@contextlib.contextmanager
def over_grpc(address: str) -> Iterator[Predict]:
    """The package's client; gRPC shares one connection among all clients of a process."""
    with Client(address) as client:
        yield lambda images, signature: client.predict(MODEL, images, signature)


@contextlib.contextmanager
def with_messages(address: str) -> Iterator[Predict]:
    """Sends and receives bytes over its own connection."""
    messages: dict[str, bytes] = {}
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options) as channel:
        send = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

        def predict(images: np.ndarray, signature: str) -> bytes:
            if signature not in messages:  # in the first call, which is not measured
                messages[signature] = message(images, signature)
            return send(messages[signature])

        yield predict


@contextlib.contextmanager
def served(base: Path, *more: str) -> Iterator[str]:
    """Starts the embedded server in its own process with more flags; yields its address."""
    command = [sys.executable, "-m", "serving.serve", f"--model_name={MODEL}"]
    command += [f"--model_base_path={base}", "--port=0", "--rest_api_port=0", *more]
    root = Path(__file__).resolve().parents[1]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=root, stdout=pipe, stderr=pipe, text=True)
    try:
        found = re.search(r"gRPC (\S+),", process.stdout.readline())
        if not found:
            raise RuntimeError(f"The server did not start:\n{process.communicate()[1]}")
        yield found[1]
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)


def message(images: np.ndarray, signature: str) -> bytes:
    """A serialized request."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL
    request.model_spec.signature_name = signature
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(images))
    return request.SerializeToString()


def requests_per_second(
    connect: Connect, images: np.ndarray, signature: str, clients: int, seconds: float
) -> float:
    """The rate of answers to a number of threads with one request at a time each.

    Raises:
        RuntimeError: a request failed.
    """
    answered = [0] * clients
    failures: list[BaseException] = []
    gate = threading.Barrier(clients + 1)

    def client(number: int) -> None:
        try:
            with connect() as predict:
                predict(images, signature)  # connects
                gate.wait()
                end = time.perf_counter() + seconds
                while time.perf_counter() < end or not answered[number]:
                    predict(images, signature)
                    answered[number] += 1
        except BaseException as error:
            failures.append(error)
            gate.abort()

    threads = [threading.Thread(target=client, args=[number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        gate.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError("A request failed.") from failures[0]
    return sum(answered) / (time.perf_counter() - begin)


def main(_: list[str]) -> None:
    """Prints the table."""
    logging.set_verbosity(logging.WARNING)
    report.show(run(), "serving")


if __name__ == "__main__":
    define_flags()
    app.run(main)
