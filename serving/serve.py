"""The embedded model server: TF Serving's interfaces, for development and small deployments.

    python -m serving.serve --model_name=digits --model_base_path=exported/digits

answers PredictionService and ModelService on gRPC, and TensorFlow Serving's paths on REST. The
production server is TensorFlow Serving itself (`serving/tf_serving/`); clients need not know which
of the two they ask.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from typing import Any

from absl import app, flags

from keras_robust.core.quiet_tensorflow import quiet_start


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program; TensorFlow Serving's own names where it has one."""

    def declare(kind: Any, name: str, default: Any, text: str, **options: Any) -> None:
        kind(name, default, text, flag_values=values, **options)

    text = flags.DEFINE_string
    declare(text, "model_name", None, "The name that clients ask for.", required=True)
    declare(text, "model_base_path", None, "Directory of the versions.", required=True)
    declare(text, "host", "127.0.0.1", "Address to listen on; by default this machine alone.")
    port = {"lower_bound": 0, "upper_bound": 65535}
    declare(flags.DEFINE_integer, "port", 8500, "Of gRPC; 0 takes a free one.", **port)
    declare(flags.DEFINE_integer, "rest_api_port", 8501, "Of REST; 0 takes a free one.", **port)
    declare(flags.DEFINE_float, "max_message_mb", 64.0, "Largest request or answer, in MiB.")
    declare(flags.DEFINE_integer, "threads", 8, "Requests that each interface answers at a time.")
    declare(flags.DEFINE_integer, "queue", 128, "Requests that wait for each of the interfaces.")
    declare(
        flags.DEFINE_float,
        "file_system_poll_wait_seconds",
        1.0,
        "Between two looks for a new version.",
    )
    declare(flags.DEFINE_float, "drain_seconds", 10.0, "How long a stop waits for requests.")


def run(values: flags.FlagValues = flags.FLAGS, stop: threading.Event | None = None) -> bool:
    """Serves until the event is set; prints one line when it is ready.

    Returns:
        Whether everything has ended; see `Server.stop`.
    """
    stop = stop or threading.Event()
    with quiet_start():
        import tensorflow as tf

        from keras_robust.serving.server.server import Limits, Server

        tf.config.list_logical_devices()  # the first session would print about missing GPUs
    limits = Limits(
        max_message_mb=values.max_message_mb,
        threads=values.threads,
        queue=values.queue,
        poll_wait_seconds=values.file_system_poll_wait_seconds,
        drain_seconds=values.drain_seconds,
    )
    server = Server(
        values.model_name,
        values.model_base_path,
        port=values.port,
        rest_api_port=values.rest_api_port,
        host=values.host,
        limits=limits,
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


def main(_: list[str]) -> None:
    """Runs until SIGTERM or SIGINT; what the user can mend ends it with one sentence."""
    _log_to_stderr()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    from keras_robust.serving.status import ServingError

    try:
        ended = run(stop=stop)
    except (OSError, ValueError, ServingError, ModuleNotFoundError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if not ended:
        logging.getLogger("keras_robust.serving").warning(
            "Requests, or the load of a version, went on for longer than --drain_seconds; they end "
            "here, without an answer."
        )
        sys.stdout.flush()
        # Python would wait for the threads of those requests, for as long as they run.
        os._exit(1)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("keras_robust.serving")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


if __name__ == "__main__":
    define_flags()
    app.run(main)
