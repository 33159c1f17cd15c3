"""Changing versions under constant load: no request fails, and old versions are freed."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import http.client
import json
import threading
import weakref

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.client.rest_client import RestClient
from keras_robust.serving.server.servable import Servable
from keras_robust.serving.server.server import Limits, Server
from keras_robust.serving.status import ServingError

IMAGES = np.full((2, 8, 8, 1), 0.25, np.float32)
LIMITS = Limits(poll_wait_seconds=0.05)


@dataclasses.dataclass
class Released:
    """Weak references to the graph and session of a version."""

    version: int
    graph: weakref.ref
    session: weakref.ref


@pytest.fixture
def loaded(monkeypatch):
    """Records the graph and the session of every version that is loaded."""
    notes = []
    original = Servable.__init__

    def noted(self, path, version, *limits):
        original(self, path, version, *limits)
        session = self._model.session
        notes.append(Released(version, weakref.ref(session.graph), weakref.ref(session)))

    monkeypatch.setattr(Servable, "__init__", noted)
    return notes


class Load:
    """Threads that send requests until they are stopped, each with its own client."""

    def __init__(self, server):
        self.errors, self.done, self.server = [], threading.Event(), server
        ways = [self.over_grpc, self.over_grpc, self.over_rest, self.over_one_connection]
        self.counts = [0] * len(ways)
        self.threads = [threading.Thread(target=self.ask, args=pair) for pair in enumerate(ways)]

    def ask(self, index, way):
        try:
            with way() as predict:
                while not self.done.is_set():
                    answer = predict()
                    assert np.shape(answer["classes"]) == (2,)
                    self.counts[index] += 1
        except BaseException as error:
            self.errors.append(error)

    @contextlib.contextmanager
    def over_grpc(self):
        with Client(self.server.grpc_address) as client:
            yield lambda: client.predict("digits", IMAGES, "detect")

    @contextlib.contextmanager
    def over_rest(self):
        client = RestClient(self.server.rest_address)
        yield lambda: client.predict("digits", IMAGES, "detect")

    @contextlib.contextmanager
    def over_one_connection(self):
        connection = http.client.HTTPConnection(self.server.rest_address, timeout=20)
        body = json.dumps({"signature_name": "detect", "inputs": IMAGES.tolist()})

        def predict():
            connection.request("POST", "/v1/models/digits:predict", body)
            response = connection.getresponse()
            content = json.loads(response.read())
            assert response.status == 200, content
            return content["outputs"]

        with contextlib.closing(connection):
            yield predict

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.parametrize("swaps", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_versions_change_under_load_without_a_failed_request(
    base, add_version, wait_for, loaded, swaps
):
    with Server("digits", base, port=0, rest_api_port=0, limits=LIMITS) as server:
        with Load(server) as load:
            for version in range(2, 2 + swaps):
                before = list(load.counts)
                add_version(base / "1", base, version)
                wait_for(lambda version=version: server.version == version or load.errors)
                # Every client was answered by the new one at least once.
                reached = [count + 2 for count in before]
                wait_for(lambda r=reached: all(map(int.__ge__, load.counts, r)) or load.errors)
        assert not load.errors
        newest = 1 + swaps
        with Client(server.grpc_address) as client:
            states = dict.fromkeys(range(1, newest), "END") | {newest: "AVAILABLE"}
            wait_for(lambda: client.status("digits") == states)
            assert client.predict("digits", IMAGES, version=newest)
            with pytest.raises(ServingError, match="Specific.digits, 1."):
                client.predict("digits", IMAGES, version=1)
        assert [each.version for each in loaded] == list(range(1, newest + 1))
        gc.collect()
        alive = [each.version for each in loaded if each.graph() or each.session()]
        assert alive == [newest]
    gc.collect()
    assert not [each.version for each in loaded if each.graph() or each.session()]


def test_a_closed_version_gives_its_resources_back(exported_model):
    """The variables live in the session's containers: a closed session refuses to run."""
    servable = Servable(exported_model / "1", 1, 2**20)
    call = servable.signature("").call
    assert len(call(IMAGES)) == 2
    graph = weakref.ref(servable._model.session.graph)
    servable.close()
    with pytest.raises((RuntimeError, tf.errors.CancelledError), match="(?i)closed"):
        call(IMAGES)
    del call
    gc.collect()
    assert graph() is None


def test_a_broken_version_leaves_the_one_before_in_use(base, wait_for):
    with Server("digits", base, port=0, rest_api_port=0, limits=LIMITS) as server:
        (base / "2").mkdir()
        (base / "2" / "saved_model.pb").write_bytes(b"junk")
        rest = RestClient(server.rest_address)
        wait_for(lambda: 2 in rest.status("digits"))
        wait_for(lambda: rest.status("digits")[2] == "END")
        assert rest.predict("digits", IMAGES)
        answer = rest.request("GET", "/v1/models/digits/versions/2")["model_version_status"][0]
        assert answer["status"]["error_code"] == "UNKNOWN"
        assert "failed to load" in answer["status"]["error_message"]
