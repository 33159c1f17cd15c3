"""Health and reflection, which answer while all threads of the model are busy."""

from __future__ import annotations

import threading
import time
from concurrent import futures

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from keras_robust.serving.server import standard_services
from keras_robust.serving.server.grpc_service import SERVICES
from keras_robust.serving.server.server import Server
from keras_robust.serving.server.standard_services import StandardServices

Status = health_pb2.HealthCheckResponse
SERVING, NOT_SERVING = Status.SERVING, Status.NOT_SERVING


def health(channel, service=""):
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status


def reflected(channel, **query):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(**query)])
    return list(stub.ServerReflectionInfo(requests, timeout=10))


def test_the_health_is_that_of_each_service(embedded):
    with grpc.insecure_channel(embedded.grpc_address) as channel:
        assert [health(channel, name) for name in ("", *SERVICES)] == [SERVING] * 3
        with pytest.raises(grpc.RpcError) as caught:
            health(channel, "digits")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_describes_the_services_and_their_messages(embedded):
    with grpc.insecure_channel(embedded.grpc_address) as channel:
        (listed,) = reflected(channel, list_services="")
        names = {one.name for one in listed.list_services_response.service}
        assert set(SERVICES) < names and standard_services.HEALTH in names
        for name in SERVICES:
            (answer,) = reflected(channel, file_containing_symbol=name)
            files = answer.file_descriptor_response.file_descriptor_proto
            parsed = [descriptor_pb2.FileDescriptorProto.FromString(one) for one in files]
            methods = {
                method.name
                for file in parsed
                for service in file.service
                if f"{file.package}.{service.name}" == name
                for method in service.method
            }
            assert {"Predict", "GetModelMetadata"} <= methods or "GetModelStatus" in methods
            assert "tensorflow_serving/apis/model.proto" in {file.name for file in parsed}


def test_without_a_version_the_server_is_not_healthy(tmp_path):
    with (
        Server("digits", tmp_path, port=0, rest_api_port=0) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        assert [health(channel, name) for name in ("", *SERVICES)] == [NOT_SERVING] * 3


@pytest.fixture
def standard():
    """A server of the standard services alone, with one thread that is taken: `(it, channel)`."""
    services, release = StandardServices(SERVICES), threading.Event()
    pool = futures.ThreadPoolExecutor(1)
    server = grpc.server(pool)
    server.add_generic_rpc_handlers(services.handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    pool.submit(release.wait)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield services, channel
    release.set()
    server.stop(None)


def silent(seconds=10):
    """Requests of a client that says nothing more."""
    yield reflection_pb2.ServerReflectionRequest(list_services="")
    time.sleep(seconds)


def test_watchers_see_changes_and_take_no_thread(standard):
    services, channel = standard
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=SERVICES[0])
    watched = [stub.Watch(request, timeout=30) for _ in range(5)]
    assert [next(one).status for one in watched] == [NOT_SERVING] * 5
    services.set_serving(True)
    assert [next(one).status for one in watched] == [SERVING] * 5
    assert health(channel) == SERVING
    services.stop()  # a stop of the server does not wait for them
    for one in watched:
        with pytest.raises(grpc.RpcError):
            list(one)


def test_a_silent_client_of_reflection_is_ended(standard, monkeypatch):
    monkeypatch.setattr(standard_services, "REFLECTION_SECONDS", 0.05)
    _, channel = standard
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.ServerReflectionInfo(silent(0.3)))
    assert caught.value.code() is grpc.StatusCode.CANCELLED


def test_a_client_that_holds_reflection_does_not_hold_the_health(standard):
    services, channel = standard
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    held = stub.ServerReflectionInfo(silent(0.3))
    next(held)
    assert health(channel) == NOT_SERVING
    services.stop()
    with pytest.raises(grpc.RpcError):
        list(held)
