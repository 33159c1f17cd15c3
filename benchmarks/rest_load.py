"""Latency and throughput of the embedded server's REST interface under `wrk`.

A server in its own process answers requests with one 8 x 8 image each, by a model that takes a
third of the time. `--checkout` names another version of this repository, whose server is measured
in the same rounds.

    python benchmarks/rest_load.py --checkout=../before
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # The root, for the packages; here, `serving` would be a benchmark.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from absl import app, flags

import keras_robust as kr
from benchmarks import report, timing
from keras_robust.serving.exporting.export import export_model

ROOT = Path(__file__).resolve().parents[1]
SHAPE, CLASSES, MODEL = (8, 8, 1), 10, "net"
THIS, OTHER = "this checkout", "the other"
SCALE = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class Load(NamedTuple):
    """What `wrk` measured: requests/s, latencies in milliseconds, the server's CPU per request."""

    rate: float
    median: float
    tail: float
    cpu: float


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_list("clients", ["1", "8", "64"], "Open connections.", flag_values=values)
    flags.DEFINE_float("seconds", 3.0, "Duration of a load.", lower_bound=1.0, flag_values=values)
    flags.DEFINE_integer("repeats", 5, "Measured rounds.", lower_bound=1, flag_values=values)
    flags.DEFINE_string("checkout", None, "Another version of the repository.", flag_values=values)
    flags.DEFINE_list("server_flags", [], "Flags of this checkout's server.", flag_values=values)


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Measures, and returns the rows to print.

    Raises:
        FileNotFoundError: `wrk` is not installed.
    """
    if shutil.which("wrk") is None:
        raise FileNotFoundError("wrk is not installed; install it with `apt-get install wrk`.")
    trees = {THIS: ROOT} | ({OTHER: Path(values.checkout)} if values.checkout else {})
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        base, script = exported(Path(directory)), written_script(Path(directory))
        more = {THIS: values.server_flags, OTHER: []}
        servers = {
            name: stack.enter_context(served(tree, base, more[name]))
            for name, tree in trees.items()
        }
        found: dict[tuple[int, str], list[Load]] = {}
        for clients in map(int, values.clients):
            work: dict[str, Any] = {
                name: (server, clients, values.seconds, script) for name, server in servers.items()
            }
            loads: dict[str, list[Any]] = timing.interleaved(
                work, values.repeats, measure=lambda load: loaded(*load), warm_ups=0
            )
            found |= {(clients, name): loads[name] for name in servers}
    return [row for clients in map(int, values.clients) for row in rows(found, clients)]


def rows(found: dict[tuple[int, str], list[Load]], clients: int) -> Iterator[report.Row]:
    """A row for each measure; of two checkouts, the ratio to the other."""
    compared = (clients, OTHER) in found
    for field, bound, least in (
        ("rate", 1.0, True),
        ("median", 1.0, False),
        ("tail", 1.0, False),
        ("cpu", None, False),
    ):
        values = {
            name: [getattr(load, field) for load in found[clients, name]]
            for name in (THIS, OTHER)[: 1 + compared]
        }
        what = f"{WHAT[field]}, {clients} client{'s' * (clients > 1)}"
        if not compared:
            yield report.Row(what, timing.spread(values[THIS]))
            continue
        medians = [statistics.median(values[name]) for name in (THIS, OTHER)]
        yield report.Row(
            f"{what}: {THIS} / {OTHER}",
            timing.ratio(values[THIS], values[OTHER]),
            None if bound is None else report.Target(bound, least),
            "{:.3g} / {:.3g}".format(*medians),
        )


WHAT = {
    "rate": "requests/s",
    "median": "median latency in ms",
    "tail": "latency of 99 % in ms",
    "cpu": "CPU time of the server per request in us",
}


def exported(directory: Path) -> Path:
    """A small model with a detector."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    features = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(inputs))
    logits = keras.layers.Dense(CLASSES, dtype="float32")(features)
    model = keras.Model(inputs, {"logits": logits, "features": features}, name=MODEL)
    images = np.random.default_rng(1).random((64, *SHAPE), np.float32)
    detector = kr.detection.EntropyDetector(model).calibrate([images], 0.25)
    export_model(model, directory / MODEL, detector)
    return directory / MODEL


def written_script(directory: Path) -> Path:
    """A script of `wrk` that sends one image."""
    image = np.random.default_rng(0).random((1, *SHAPE)).round(3).tolist()
    body = json.dumps({"signature_name": "detect", "instances": image})
    path = directory / "post.lua"
    path.write_text(
        f"wrk.method = 'POST'\nwrk.body = '{body}'\n"
        "wrk.headers['Content-Type'] = 'application/json'\n"
    )
    return path


@contextlib.contextmanager
def served(tree: Path, base: Path, more: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Starts a checkout's server; yields its process and the URL of the model."""
    command = [sys.executable, "-m", "serving.serve", f"--model_name={MODEL}", "--port=0"]
    command += [f"--model_base_path={base}", "--rest_api_port=0", *more]
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve())}
    process = subprocess.Popen(
        command, cwd=tree, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        yield process, re.search(r"REST (\S+)", process.stdout.readline())[1]
    finally:
        process.terminate()
        process.communicate(timeout=60)


def loaded(
    server: tuple[subprocess.Popen[str], str], clients: int, seconds: float, script: Path
) -> Load:
    """Runs `wrk` once.

    Raises:
        RuntimeError: a request failed.
    """
    process, url = server
    before = cpu_seconds(process.pid)
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--latency", f"-s{script}"]
    output = subprocess.run([*command, f"{url}:predict"], capture_output=True, text=True).stdout
    used = cpu_seconds(process.pid) - before
    if failures := re.findall(r"Non-2xx.*|Socket errors.*", output):
        raise RuntimeError(f"Requests failed: {failures[0]}")
    latency = output[output.index("Latency Distribution") :]
    median, tail = (
        float(number) * SCALE[unit]
        for number, unit in re.findall(r"(?:50|99)%\s+([\d.]+)(us|ms|s)", latency)
    )
    requests = int(re.search(r"(\d+) requests in", output)[1])
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])
    return Load(rate, median, tail, 1e6 * used / requests)


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used, in all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(_: list[str]) -> None:
    """Prints the table."""
    report.show(run(), "rest_load")


if __name__ == "__main__":
    define_flags()
    app.run(main)
