"""Watches a model server: exports its detection metrics and alarms, for TensorFlow Serving too.

    keras-robust monitor --server=localhost:8501 --port=8502 --model_base_path=exported/digits

listens on --port, passes REST requests to the model server at --server, reads the detection scores
of its answers, and serves the metrics at --metrics_port. With

    keras-robust monitor --request_log=requests.jsonl --model_base_path=exported/digits

it reads the log that `keras-robust serve --request_log` writes; with --nofollow it reads the log
once and prints what it found. The alarm needs the detection scores of clean images, which exported
versions hold (--model_base_path), or --clean_scores.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

from absl import flags

from keras_robust.cli import monitoring_flags
from keras_robust.cli.extras import require_extra
from keras_robust.cli.logs import log_to_stderr
from keras_robust.experiments.flags import command_line

if TYPE_CHECKING:
    from keras_robust.serving.metrics.telemetry import Telemetry


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the command."""
    flags.DEFINE_string(
        "server", None, "Address host:port of a model server's REST interface.", flag_values=values
    )
    flags.DEFINE_string(
        "request_log",
        None,
        "Log of requests to read, instead of --server.",
        flag_values=values,
    )
    flags.DEFINE_bool("follow", True, "Read on as the log of requests grows.", flag_values=values)
    flags.DEFINE_string(
        "model_base_path",
        None,
        "Parent directory of the versions, which hold scores of clean images.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "host", "127.0.0.1", "Address to listen on, for both ports.", flag_values=values
    )
    for name, default, text in (
        ("port", 8502, "Port for the requests that are passed to --server; 0 picks a free one."),
        ("metrics_port", 9464, "Port of /metrics; 0 picks a free one."),
    ):
        flags.DEFINE_integer(
            name, default, text, lower_bound=0, upper_bound=65535, flag_values=values
        )
    flags.DEFINE_float(
        "max_message_mb", 64.0, "Largest request, in MiB.", lower_bound=0.001, flag_values=values
    )
    flags.DEFINE_float(
        "timeout", 60.0, "Seconds until a request fails.", lower_bound=0.001, flag_values=values
    )
    monitoring_flags.define_alarm(values)


def run(values: flags.FlagValues) -> str | None:
    """Watches until SIGTERM or SIGINT; with --nofollow, reads the log once.

    Returns:
        With --nofollow, what was found.

    Raises:
        ValueError, OSError, ImportError: a user error.
    """
    if (values.server is None) == (values.request_log is None):
        raise command_line.UsageError(
            "Expected either --server=localhost:8501 or --request_log=requests.jsonl."
        )
    if values.server is not None and not values.follow:
        raise command_line.UsageError("--nofollow belongs to --request_log.")
    require_extra("serving", "The monitor")
    from keras_robust.serving.metrics.telemetry import Telemetry

    telemetry = Telemetry(monitoring_flags.monitoring(values), values.model_base_path)
    if not values.follow:
        return _read_once(values, telemetry)
    log_to_stderr()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watch(values, telemetry, stop)
    return None


def watch(values: flags.FlagValues, telemetry: Telemetry, stop: threading.Event) -> None:
    """Watches until the event is set; prints one line when it is ready."""
    from keras_robust.serving.sidecar.log_reader import LogReader
    from keras_robust.serving.sidecar.metrics_server import MetricsServer
    from keras_robust.serving.sidecar.rest_proxy import RestProxy

    with MetricsServer(telemetry, values.host, values.metrics_port) as metrics:
        where = f"metrics http://{metrics.address}/metrics"
        if values.request_log is not None:
            reader = LogReader(values.request_log, telemetry.replay, telemetry.registry)
            print(f"Reading {values.request_log}: {where}", flush=True)
            reader.follow(stop)
            return
        limit = int(values.max_message_mb * 2**20)
        address = values.host, values.port
        proxy = RestProxy(values.server, address, telemetry, limit, values.timeout)
        proxy.start()
        try:
            print(f"Passing {values.host}:{proxy.port} to {values.server}: {where}", flush=True)
            stop.wait()
        finally:
            proxy.stop()


def _read_once(values: flags.FlagValues, telemetry: Telemetry) -> str:
    from keras_robust.serving.sidecar.log_reader import LogReader

    reader = LogReader(values.request_log, telemetry.replay, telemetry.registry)
    reader.read_all()
    telemetry.close()
    lines = [f"{reader.read} requests, {reader.malformed} lines of something else"]
    for (model, version), stream in telemetry.detection.streams().items():
        share = stream.flagged / max(1, stream.images)
        alarms = "no alarm without clean scores"
        if stream.alarms is not None:
            alarms = f"{stream.alarms} alarms"
        lines.append(
            f"{model} version {version}: {stream.images} images, {share:.1%} flagged, {alarms}"
        )
    return "\n".join(lines)
