"""Memory stays flat under minutes of valid and invalid requests and changing versions.

SOAK_SECONDS sets the length, 300 by default. The measured memory is printed (`pytest -s`).
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.client.rest_client import RestClient
from keras_robust.serving.status import ServingError

SECONDS = float(os.environ.get("SOAK_SECONDS", "300"))
SWAP_SECONDS = 10.0
# The first requests of each size, the first swaps and the allocator's pools come first.
WARM_UP = 0.3
# Over the rest. One version of this model that is not freed takes 9 MiB, and the default soak
# makes 21 swaps after its warm-up; 200 bytes for each of its requests would take as much as this.
# Pages that come and go make up 5 MiB.
MAX_GROWTH_MB = 16.0
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
IMAGES = PIXELS.astype(np.float32) / 255
FILES = [tf.io.encode_png(image).numpy() for image in PIXELS]
SPOILT = np.where(IMAGES.max() == IMAGES, np.nan, IMAGES)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads memory from /proc"),
]
# Inputs, signature and code of the requests, which take turns; batches have random sizes.
REQUESTS = [
    (IMAGES, "serving_default", "OK"),
    (IMAGES, "detect", "OK"),
    (FILES, "serving_bytes", "OK"),
    (FILES, "detect_bytes", "OK"),
    (SPOILT, "detect", "INVALID_ARGUMENT"),
    (IMAGES + 1, "serving_default", "INVALID_ARGUMENT"),
    (IMAGES[:, 1:], "detect", "INVALID_ARGUMENT"),
    ([FILES[0][:40]] * 4, "detect_bytes", "INVALID_ARGUMENT"),
    (IMAGES, "guess", "FAILED_PRECONDITION"),
]


class Soak:
    """Sends requests from several threads, each in its own order, and checks every answer."""

    def __init__(self, grpc_address, rest_address):
        self.done, self.errors, self.counts = threading.Event(), [], {}
        self.grpc, self.rest = Client(grpc_address, 60), RestClient(rest_address, 60)
        self.expected = {}
        for inputs, signature, code in REQUESTS[:4]:
            assert code == "OK"
            self.expected[signature] = self.grpc.predict("digits", inputs, signature)
        work = [("grpc", self.grpc)] * 2 + [("rest", self.rest)] * 2
        self.threads = [
            threading.Thread(target=self.ask, args=(random.Random(seed), *pair))
            for seed, pair in enumerate(work)
        ]
        self.threads.append(threading.Thread(target=self.send_junk, args=(rest_address,)))
        for thread in self.threads:
            thread.start()

    def ask(self, dice, kind, client):
        try:
            while not self.done.is_set():
                inputs, signature, right = dice.choice(REQUESTS)
                # Every batch includes its last image, so that an invalid one stays invalid.
                start = dice.randrange(len(inputs)) if right == "OK" else 0
                self.judge(kind, client, inputs[start:], signature, right, start)
        except BaseException as error:
            self.errors.append(error)

    def judge(self, kind, client, inputs, signature, right, start):
        try:
            answer, code = client.predict("digits", inputs, signature), "OK"
        except ServingError as error:
            code = error.code.name
        if kind == "rest" and right == "FAILED_PRECONDITION":
            right = "INVALID_ARGUMENT"  # both are 400
        assert code == right, (kind, signature)
        if code == "OK":
            for name, values in self.expected[signature].items():
                np.testing.assert_allclose(answer[name], values[start:], atol=1e-5)
        self.count(f"{kind} {code}")

    def send_junk(self, address):
        """Bodies that are not JSON, and invalid paths, each over its own connection."""
        dice = random.Random(9)
        try:
            while not self.done.wait(0.02):
                connection = http.client.HTTPConnection(address, timeout=60)
                path = dice.choice(["/v1/models/digits:predict", "/v1/models/digits:guess", "/x"])
                connection.request("POST", path, dice.randbytes(dice.choice([0, 10, 100_000])))
                response = connection.getresponse()
                assert response.status == (404 if path == "/x" else 400)
                assert json.loads(response.read())["error"]
                connection.close()
                self.count("junk refused")
        except BaseException as error:
            self.errors.append(error)

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1  # roughly: threads may lose one

    def end(self):
        self.done.set()
        for thread in self.threads:
            thread.join()
        self.grpc.close()


def resident_mb(process):
    with open(f"/proc/{process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def swap(base, version, add_version):
    """A new version, and the removal of those that are no longer served."""
    add_version(base / str(version - 1), base, version)
    shutil.rmtree(base / str(version - 3), ignore_errors=True)


def test_memory_is_flat(base, add_version, wait_for):
    command = [sys.executable, "-m", "serving.serve", "--model_name=digits", "--port=0"]
    command += [f"--model_base_path={base}", "--rest_api_port=0"]
    command += ["--file_system_poll_wait_seconds=0.2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    version, seconds, megabytes = 1, [], []
    try:
        ready = re.search(r"gRPC (\S+), REST http://([^/]+)", process.stdout.readline())
        soak, start = Soak(ready[1], ready[2]), time.monotonic()
        try:
            while (now := time.monotonic() - start) < SECONDS and not soak.errors:
                seconds.append(now)
                megabytes.append(resident_mb(process))
                if now > version * SWAP_SECONDS:
                    version += 1
                    swap(base, version, add_version)
                soak.done.wait(0.5)
            rest = RestClient(ready[2], 60)
            wait_for(lambda: rest.status("digits").get(version) == "AVAILABLE")
        finally:
            soak.end()
        assert not soak.errors
        assert process.poll() is None
    finally:
        process.terminate()
        status = process.wait(60)
    assert status == 0
    seconds, megabytes = np.array(seconds), np.array(megabytes)
    steady = seconds > WARM_UP * SECONDS
    slope, _ = np.polyfit(seconds[steady], megabytes[steady], 1)
    growth = slope * (seconds[-1] - seconds[steady][0])
    tenths = [part.mean() for part in np.array_split(megabytes, 10)]
    print(f"\n{version - 1} swaps in {SECONDS:g} s; answers: {soak.counts}")
    print("resident MiB, the mean of each tenth:", " ".join(f"{mean:.1f}" for mean in tenths))
    print(f"trend after the warm-up: {growth:+.1f} MiB; spread {megabytes[steady].std():.1f} MiB")
    assert growth < MAX_GROWTH_MB
