"""Watches a model server: exports its detection metrics and alarms, for TensorFlow Serving too.

    keras-robust monitor --server=localhost:8501 --port=8502 --model_base_path=exported/digits

listens on --port, passes REST requests to the model server at --server, reads the detection scores
of its answers, and serves the metrics at --metrics_port; --grpc_server does the same for gRPC. With

    keras-robust monitor --request_log=requests.jsonl --model_base_path=exported/digits

it reads the log that `keras-robust serve --request_log` writes; with --nofollow it reads the log
once and prints what it found. The alarm needs the detection scores of clean images, which exported
versions hold (--model_base_path), or --clean_scores.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from absl import flags

from keras_robust.cli import monitoring_flags
from keras_robust.cli.extras import require_extra
from keras_robust.cli.logs import log_to_stderr
from keras_robust.core.quiet_tensorflow import quiet_start
from keras_robust.experiments.flags import command_line
from keras_robust.serving.addresses import host_port

if TYPE_CHECKING:
    from keras_robust.serving.metrics.telemetry import Telemetry
    from keras_robust.serving.sidecar.grpc_proxy import GrpcProxy
    from keras_robust.serving.sidecar.rest_proxy import RestProxy


def define_flags(values: flags.FlagValues) -> None:
    """Declares the flags of the command."""
    flags.DEFINE_string(
        "server", None, "Address host:port of a model server's REST interface.", flag_values=values
    )
    flags.DEFINE_string(
        "grpc_server", None, "Address host:port of its gRPC interface.", flag_values=values
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
        ("grpc_port", 8503, "The same for --grpc_server."),
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
    proxied = values.server is not None or values.grpc_server is not None
    if proxied == (values.request_log is not None):
        raise command_line.UsageError(
            "Expected either --server=localhost:8501, --grpc_server=localhost:8500 or both, or "
            "--request_log=requests.jsonl."
        )
    if proxied and not values.follow:
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

    with (
        MetricsServer(telemetry, values.host, values.metrics_port) as metrics,
        contextlib.ExitStack() as proxies,
    ):
        where = f"metrics http://{metrics.address}/metrics"
        if values.request_log is not None:
            reader = LogReader(values.request_log, telemetry.replay, telemetry.registry)
            print(f"Reading {values.request_log}: {where}", flush=True)
            reader.follow(stop)
            return
        passed = [proxies.enter_context(one) for one in _proxies(values, telemetry)]
        print(f"Passing {' and '.join(passed)}: {where}", flush=True)
        stop.wait()


def _proxies(
    values: flags.FlagValues, telemetry: Telemetry
) -> Iterator[contextlib.AbstractContextManager[str]]:
    """The proxies that the flags ask for; each yields what it passes, and runs until its end."""
    limit = int(values.max_message_mb * 2**20)
    if values.server is not None:
        from keras_robust.serving.sidecar.rest_proxy import RestProxy

        address = values.host, values.port
        rest = RestProxy(values.server, address, telemetry, limit, values.timeout)
        yield _running(rest, "REST", values.host, values.server)
    if values.grpc_server is not None:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        with quiet_start():
            from keras_robust.serving.sidecar.grpc_proxy import GrpcProxy  # imports TensorFlow

        target = host_port(values.host, values.grpc_port)
        grpc = GrpcProxy(values.grpc_server, target, telemetry, limit, values.timeout)
        yield _running(grpc, "gRPC", values.host, values.grpc_server)


@contextlib.contextmanager
def _running(proxy: RestProxy | GrpcProxy, interface: str, host: str, server: str) -> Iterator[str]:
    proxy.start()
    try:
        yield f"{interface} {host_port(host, proxy.port)} to {server}"
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
