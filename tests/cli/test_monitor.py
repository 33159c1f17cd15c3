"""`keras-robust monitor`: a log read once or followed, and a model server behind it."""

from __future__ import annotations

import re
import socket
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from absl import flags

from keras_robust.cli import monitor, monitoring_flags, serve
from keras_robust.serving.exporting.clean_scores import write_clean_scores
from keras_robust.serving.metrics.request_log import RequestLog
from keras_robust.serving.metrics.request_record import RequestRecord


@pytest.fixture
def log(tmp_path):
    """A log with 300 clean images of version 2, then 60 attacked ones."""
    random = np.random.default_rng(0)
    log = RequestLog(tmp_path / "requests.jsonl")
    for number in range(36):
        scores = random.normal(size=10) + 5 * (number >= 30)
        record = RequestRecord("grpc", "Predict", "digits", 2, "detect", images=10)
        record.outputs = {"detection_score": scores, "is_adversarial": scores > 3}
        log.write(record)
    (tmp_path / "base" / "2").mkdir(parents=True)
    write_clean_scores(tmp_path / "base" / "2", random.normal(size=300))
    return log


def test_a_log_is_read_once(command, log):
    with log.path.open("a") as file:
        file.write("something else\n")
    base = f"--model_base_path={log.path.parent}/base"
    text = command("monitor", f"--request_log={log.path}", "--nofollow", base)
    first, second = text.splitlines()
    assert first == "36 requests, 1 lines of something else"
    found = re.fullmatch(r"digits version 2: 360 images, (\d+\.\d)% flagged, (\d+) alarms", second)
    assert 14 < float(found[1]) < 18 and int(found[2]) >= 1
    text = command("monitor", f"--request_log={log.path}", "--nofollow")
    assert text.endswith("no alarm without clean scores\n")


def values_of(module, *arguments):
    values = flags.FlagValues()
    module.define_flags(values)
    values(["program", *arguments])
    return values


@pytest.mark.parametrize(
    "source", ["--request_log={log}", "--server=127.0.0.1:9", "--grpc_server=127.0.0.1:9"]
)
def test_metrics_are_served_until_the_stop(log, capsys, wait_for_output, source):
    from keras_robust.serving.metrics.telemetry import Telemetry

    given = source.format(log=log.path)
    values = values_of(monitor, given, "--port=0", "--grpc_port=0", "--metrics_port=0")
    stop = threading.Event()
    telemetry = Telemetry(monitoring_flags.monitoring(values))
    thread = threading.Thread(target=monitor.watch, args=(values, telemetry, stop))
    thread.start()
    try:
        line = wait_for_output(capsys)
        url = re.search(r"metrics (http\S+)", line)[1]
        found = b""
        while source.startswith("--request") and b'images_total{model="digits"' not in found:
            with urllib.request.urlopen(url, timeout=10) as response:
                found = response.read()
        if "Passing REST" in line:
            address = re.search(r"Passing REST (\S+) to 127.0.0.1:9", line)[1]
            with pytest.raises(urllib.error.HTTPError, match="503"):
                urllib.request.urlopen(f"http://{address}/v1/models/digits", timeout=10)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


def test_a_host_may_be_an_address_of_ipv6():
    from keras_robust.serving.metrics.telemetry import Telemetry

    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    given = ("--server=127.0.0.1:9", "--grpc_server=127.0.0.1:9", "--host=::1")
    values = values_of(monitor, *given, "--port=0", "--grpc_port=0")
    for proxy in monitor._proxies(values, Telemetry()):
        with proxy as passed:
            assert re.fullmatch(r"(REST|gRPC) \[::1\]:\d+ to 127\.0\.0\.1:9", passed)


@pytest.fixture
def wait_for_output():
    """Waits for the first line that is printed."""

    def wait(capsys):
        for _ in range(500):
            if line := capsys.readouterr().out:
                return line
            threading.Event().wait(0.01)
        raise AssertionError("nothing was printed")

    return wait


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--port=0"], "Expected either --server=localhost:8501, --grpc_server"),
        (["--server=a:1", "--request_log=b"], "Expected either"),
        (["--server=a:1", "--nofollow"], "--nofollow belongs to --request_log"),
        (["--server=a:1", "--alarm_every=1"], "alarm_every is 1.0; expected a finite number"),
        (["--request_log=/nowhere", "--nofollow"], "No such file"),
        (["--server=a:1", "--clean_scores=setup.cfg"], "does not hold the scores of clean images"),
    ],
)
def test_mistakes_are_told(fails, arguments, says):
    assert says in fails("monitor", *arguments)


def test_the_flags_of_the_server_become_its_monitoring():
    values = values_of(
        serve, "--nometrics", "--alarm_every=500", "--request_log=a.jsonl",
        "--request_log_sampling_rate=0.25", "--request_log_images", "--request_log_max_mb=2",
    )  # fmt: skip
    found = monitoring_flags.monitoring(values)
    assert (found.metrics, found.alarm_every, found.request_log) == (False, 500, "a.jsonl")
    assert (found.sampling_rate, found.log_images, found.log_max_mb) == (0.25, True, 2.0)
    assert monitoring_flags.monitoring(values_of(serve)).metrics
    with pytest.raises(flags.IllegalFlagValueError):
        values_of(serve, "--request_log_sampling_rate=1.5")


def test_a_missing_package_is_named_with_its_extra(fails, monkeypatch):
    from keras_robust.cli import extras

    find = extras.importlib.util.find_spec
    missing = lambda name: None if name == "prometheus_client" else find(name)  # noqa: E731
    monkeypatch.setattr(extras.importlib.util, "find_spec", missing)
    message = fails("monitor", "--server=a:1")
    assert "The monitor needs prometheus-client, which is not installed" in message
    assert "pip install 'keras_robust[serving]'" in message
