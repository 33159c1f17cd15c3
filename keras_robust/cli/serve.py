"""Serves an exported model over gRPC and REST, for development and small deployments.

    keras-robust serve --model_name=digits --model_base_path=exported/digits

implements TensorFlow Serving's PredictionService and ModelService over gRPC, and its REST paths.
Use TensorFlow Serving itself in production (see `serving/tf_serving/` in the repository); clients
work with both.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from absl import flags

from keras_robust.cli import model_flags, monitoring_flags
from keras_robust.cli.extras import require_extra
from keras_robust.cli.logs import LOGGER, log_to_stderr
from keras_robust.experiments.flags import command_line
from keras_robust.serving.status import ServingError, connection_error

if TYPE_CHECKING:
    from keras_robust.serving.server.batching import Batching


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the command, with TensorFlow Serving's names where it has them."""

    def number(name: str, default: float, text: str) -> None:
        flags.DEFINE_float(name, default, text, flag_values=values)

    def integer(name: str, default: int, text: str, most: int | None = None) -> None:
        flags.DEFINE_integer(
            name, default, text, lower_bound=0, upper_bound=most, flag_values=values
        )

    flags.DEFINE_string("model_name", None, "Name that clients use.", flag_values=values)
    flags.DEFINE_string(
        "model_base_path", None, "Parent directory of the versions.", flag_values=values
    )
    flags.DEFINE_string(
        "host",
        "127.0.0.1",
        "Address to listen on; by default reachable from this machine only.",
        flag_values=values,
    )
    integer("port", 8500, "gRPC port; 0 picks a free one.", 65535)
    integer("rest_api_port", 8501, "REST port; 0 picks a free one.", 65535)
    number("max_message_mb", 64.0, "Largest request or answer, in MiB.")
    integer("threads", 8, "Requests that each interface answers at the same time.")
    integer("queue", 128, "Requests that wait for each interface; further ones are rejected.")
    integer(
        "rest_api_timeout_in_ms",
        30_000,
        "Milliseconds for a REST request that has arrived, with its wait for a thread.",
    )
    integer(
        "grpc_timeout_in_ms",
        30_000,
        "Milliseconds for a gRPC request from when a thread takes it; a deadline of the client may "
        "be earlier.",
    )
    number(
        "max_megapixels",
        64.0,
        "Most million pixels of the PNG and JPEG files of a request, together.",
    )
    integer(
        "max_batch_size",
        0,
        "Most images in a run of the model for several requests; 0 runs each request by itself.",
    )
    number("batch_timeout_in_ms", 1.0, "Milliseconds that a request waits for others in its batch.")
    integer("batch_queue", 128, "Requests that wait for a batch; further ones are rejected.")
    flags.DEFINE_bool(
        "rest_api_enable_cors_support",
        False,
        "Let web pages of any origin send REST requests.",
        flag_values=values,
    )
    number("file_system_poll_wait_seconds", 1.0, "Seconds between two scans for a new version.")
    number("drain_seconds", 10.0, "Seconds that a stop waits for running requests.")
    monitoring_flags.define_alarm(values)
    monitoring_flags.define_log(values)


def run(values: flags.FlagValues) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        ValueError, OSError, ImportError: a user error, or a version that cannot be loaded.
    """
    command_line.required(values, "model_name", "digits")
    command_line.required(values, "model_base_path", "exported/digits")
    require_extra("serving", "The server")
    log_to_stderr()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        ended = serve(values, stop)
    except ServingError as error:
        raise connection_error(error) from error
    if not ended:
        LOGGER.warning(
            "Requests, or the load of a version, took longer than --drain_seconds; they are "
            "abandoned without an answer."
        )
        sys.stdout.flush()
        # A normal exit would wait for the threads of those requests.
        os._exit(1)


def serve(values: flags.FlagValues, stop: threading.Event) -> bool:
    """Serves until the event is set; prints one line when the server is ready.

    Returns:
        Whether everything has ended; see `Server.stop`.
    """
    model_flags.start_tensorflow()
    from keras_robust.serving.server.server import Limits, Server

    # A collection would walk over all objects of TensorFlow, which stops every thread for up to a
    # second. Those of versions are made later, and stay collectable.
    gc.freeze()
    limits = Limits(
        max_message_mb=values.max_message_mb,
        threads=values.threads,
        queue=values.queue,
        poll_wait_seconds=values.file_system_poll_wait_seconds,
        drain_seconds=values.drain_seconds,
        rest_timeout_seconds=values.rest_api_timeout_in_ms / 1000,
        grpc_timeout_seconds=values.grpc_timeout_in_ms / 1000,
        max_megapixels=values.max_megapixels,
    )
    server = Server(
        values.model_name,
        values.model_base_path,
        port=values.port,
        rest_api_port=values.rest_api_port,
        host=values.host,
        limits=limits,
        batching=_batching(values),
        cors=values.rest_api_enable_cors_support,
        monitoring=monitoring_flags.monitoring(values),
    )
    server.start()
    try:
        version = f"version {server.version}"
        if server.version is None:
            version = f"(no version yet under {values.model_base_path})"
        print(
            f"Serving {server.model_name} {version}: gRPC {server.grpc_address}, "
            f"REST http://{server.rest_address}/v1/models/{server.model_name}",
            flush=True,
        )
        stop.wait()
    finally:
        ended = server.stop()
    return ended


def _batching(values: flags.FlagValues) -> Batching | None:
    from keras_robust.serving.server.batching import Batching

    if not values.max_batch_size:
        return None
    return Batching(values.max_batch_size, values.batch_timeout_in_ms, values.batch_queue)
