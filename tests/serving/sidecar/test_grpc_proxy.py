"""The proxy of gRPC passes messages, errors and metadata unchanged, and reads answers."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import predict_pb2

from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.metrics.telemetry import Monitoring, Telemetry
from keras_robust.serving.server.server import Server
from keras_robust.serving.sidecar.grpc_proxy import GrpcProxy
from keras_robust.serving.status import ServingError

PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def proxied(embedded, cold_model):
    """A proxy in front of the embedded server: its address, and its telemetry."""
    telemetry = Telemetry(Monitoring(alarm_every=1000), cold_model)
    proxy = GrpcProxy(embedded.grpc_address, "127.0.0.1:0", telemetry, 2**20, 30.0, threads=4)
    proxy.start()
    yield f"127.0.0.1:{proxy.port}", telemetry
    proxy.stop()
    telemetry.close()


def test_answers_are_bitwise_the_same_and_are_counted(proxied, embedded, served):
    address, telemetry = proxied
    content = served.request("detect").SerializeToString()
    answers = []
    for one in (embedded.grpc_address, address):
        with grpc.insecure_channel(one) as channel:
            response = predict_pb2.PredictResponse.FromString(channel.unary_unary(PREDICT)(content))
            answers.append(response)
    assert answers[0] == answers[1]
    stream = telemetry.detection.stream("digits", 1)
    telemetry.text()  # waits until it is recorded
    assert stream.images == 3 and stream.alarms is not None
    assert f'signature="detect",status="OK"}} {1.0}' in telemetry.text().decode()


def test_errors_pass_with_their_messages(proxied, embedded):
    address, telemetry = proxied
    messages = []
    for one in (embedded.grpc_address, address):
        with Client(one) as client, pytest.raises(ServingError) as caught:
            client.predict("invented", np.zeros((1, 8, 8, 1), np.float32))
        messages.append((caught.value.code, str(caught.value)))
    assert messages[0] == messages[1]
    with Client(address) as client, pytest.raises(ServingError, match="larger than max"):
        client.predict("digits", np.zeros((2000, 8, 8, 3), np.float32))
    assert "invented" not in telemetry.text().decode()


def test_other_unary_methods_pass(proxied):
    with grpc.insecure_channel(proxied[0]) as channel:
        status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert status.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/invented.Service/Method")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_server_that_is_away_is_unavailable(tmp_path):
    with Server("digits", tmp_path, port=0, rest_api_port=0) as server:
        taken = server.grpc_address
        with pytest.raises(OSError, match="Cannot listen on"):
            GrpcProxy("127.0.0.1:9", taken, Telemetry(Monitoring()))
    proxy = GrpcProxy("127.0.0.1:9", "127.0.0.1:0", Telemetry(Monitoring()))
    proxy.start()
    try:
        with Client(f"127.0.0.1:{proxy.port}") as client, pytest.raises(ServingError) as caught:
            client.predict("digits", np.zeros((1, 8, 8, 1), np.float32))
    finally:
        proxy.stop()
    assert caught.value.code.name == "UNAVAILABLE"
