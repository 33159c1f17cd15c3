"""The nginx configuration in front of an embedded server: TLS, tokens and sizes."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest

import serving
from keras_robust.serving.client.grpc_client import Client
from keras_robust.serving.client.rest_client import RestClient, authorization

CONFIG = Path(serving.__file__).parent / "tf_serving" / "nginx.conf"
TOKEN = "5f0c" * 16
IMAGES = np.full((2, 8, 8, 1), 0.25, np.float32)
PREDICT = "/v1/models/digits:predict"

needs_nginx = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("openssl")), reason="needs nginx and openssl"
)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def written_config(folder, port, server):
    """The configuration with the addresses and paths of this test."""
    text = CONFIG.read_text("utf-8")
    changes = {
        "listen 8443": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8500": server.grpc_address,
        "127.0.0.1:8501": server.rest_address,
        "/etc/nginx": str(folder),
        "client_max_body_size 64m": "client_max_body_size 1m",
        "client_body_timeout 10s": "client_body_timeout 1s",
        "http {": f"http {{\n  access_log off;\n  client_body_temp_path {folder}/body;",
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "nginx.conf"
    # The worker's own user could not write into a directory of this test.
    path.write_text(("user root;\n" if os.geteuid() == 0 else "") + text)
    return path


@pytest.fixture(scope="module")
def proxy(embedded, tmp_path_factory, wait_for):
    """`(server, address of nginx, certificate)`."""
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "tls").mkdir()
    (folder / "serving_tokens").write_text(f'"Bearer {TOKEN}" alice;\n')
    certificate = folder / "tls" / "server.crt"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", folder / "tls" / "server.key", "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    for _ in range(5):  # another program may take the port first
        port = free_port()
        config = written_config(folder, port, embedded)
        command = ["nginx", "-c", str(config), "-p", str(folder), "-e", "stderr"]
        process = subprocess.Popen([*command, "-g", f"daemon off; pid {folder}/pid;"])
        wait_for(lambda process=process, port=port: process.poll() is not None or listens(port))
        if process.poll() is None:
            break
    assert process.poll() is None, "nginx refused its configuration"
    yield embedded, f"localhost:{port}", certificate
    process.terminate()
    process.wait()


def listens(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def call(proxy):
    """Calls a gRPC method with bytes: `(method, content, token)`; its code and answer."""
    _, address, certificate = proxy
    credentials = grpc.ssl_channel_credentials(certificate.read_bytes())

    def call(method, content, token=TOKEN):
        headers = authorization(token, tls=True)
        metadata = [(name.lower(), value) for name, value in headers.items()]
        with grpc.secure_channel(address, credentials) as channel:
            try:
                method = channel.unary_unary(f"/tensorflow.serving.{method}")
                return "OK", method(content, metadata=metadata, timeout=20)
            except grpc.RpcError as error:
                return error.code().name, error.details()

    return call


@pytest.fixture
def rest(proxy):
    """Sends a REST request: `(method, path, body, headers)`; its status and content."""
    _, address, certificate = proxy
    context = ssl.create_default_context(cafile=certificate)

    def rest(method, path, body=None, headers=None, **options):
        headers = authorization(TOKEN, tls=True) if headers is None else headers
        connection = http.client.HTTPSConnection(address, timeout=20, context=context)
        connection.request(method, path, body, headers, **options)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, content

    return rest


@needs_nginx
def test_both_interfaces_are_reached_over_one_port(proxy, call, rest):
    from tensorflow_serving.apis import get_model_status_pb2

    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "digits"})
    assert call("ModelService/GetModelStatus", request.SerializeToString())[0] == "OK"
    with Client(proxy[0].grpc_address) as client:
        expected = client.predict("digits", IMAGES)["probabilities"]
    body = json.dumps({"inputs": IMAGES.tolist()}).encode()
    status, content = rest("POST", PREDICT, body)
    assert status == 200
    np.testing.assert_allclose(json.loads(content)["outputs"]["probabilities"], expected, atol=1e-6)
    # A chunked body arrives with a length.
    assert rest("POST", PREDICT, iter([body]), encode_chunked=True)[0] == 200
    # Errors of the model server pass unchanged.
    assert rest("GET", "/v1/models/nobody")[0] == 404
    assert call("PredictionService/Predict", b"junk")[0] == "INVALID_ARGUMENT"
    assert call("PredictionService/Classify", b"")[0] == "UNIMPLEMENTED"


@needs_nginx
def test_nobody_is_answered_without_a_token(call, rest):
    for token in (None, "wrong", TOKEN[:-1]):
        assert call("ModelService/GetModelStatus", b"", token)[0] == "UNAUTHENTICATED"
        headers = authorization(token, tls=True)
        assert rest("GET", "/v1/models/digits", headers=headers)[0] == 401


@needs_nginx
def test_what_is_too_large_does_not_reach_the_model_server(call, rest):
    assert call("PredictionService/Predict", bytes(2**20 + 1))[0] == "RESOURCE_EXHAUSTED"
    assert rest("POST", PREDICT, bytes(2**20 + 1))[0] == 413


@needs_nginx
def test_a_client_that_stops_sending_gives_its_thread_back(proxy, wait_for):
    server, address, certificate = proxy
    active = server._grpc._server._state
    done = threading.Event()

    def nothing():
        done.wait(30)
        yield b""

    with grpc.secure_channel(
        address, grpc.ssl_channel_credentials(certificate.read_bytes())
    ) as channel:
        method = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
        headers = authorization(TOKEN, tls=True)
        metadata = [(name.lower(), value) for name, value in headers.items()]
        asked = method.future(nothing(), metadata=metadata, timeout=30)
        wait_for(lambda: active.active_rpc_count == 1)
        wait_for(lambda: active.active_rpc_count == 0)
        assert asked.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
        done.set()


@needs_nginx
def test_other_paths_do_not_reach_the_model_server(call, rest):
    assert rest("GET", "/")[0] == rest("GET", "/v1/../etc/passwd")[0] == 404
    assert call("../secret/Method", b"")[0] == "UNIMPLEMENTED"


@needs_nginx
@pytest.mark.slow
def test_the_query_program_speaks_to_it(proxy, tmp_path):
    """As a user runs it; environment variables name the certificate to trust."""
    _, address, certificate = proxy
    np.save(tmp_path / "images.npy", IMAGES)
    trusted = {"SSL_CERT_FILE": certificate, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": certificate}
    environment = {**os.environ, **{name: str(path) for name, path in trusted.items()}}
    command = [sys.executable, "-m", "serving.query", f"--server={address}", "--model=digits"]
    command += [f"--images={tmp_path / 'images.npy'}", "--tls"]
    outputs = []
    for more in ([], ["--rest"]):
        result = subprocess.run(
            command + more,
            env=environment | {"SERVING_TOKEN": TOKEN},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        outputs.append(result.stdout)
    assert outputs[0] == outputs[1]
    assert "is_adversarial" in outputs[0]
    result = subprocess.run([*command, "--rest"], env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("serving.query: UNAUTHENTICATED: ")


def test_a_token_is_not_sent_in_the_clear():
    for client in (Client, RestClient):
        with pytest.raises(ValueError, match="needs TLS"):
            client("localhost:1", token=TOKEN)
        with pytest.raises(ValueError, match="not printable ASCII"):
            client("localhost:1", tls=True, token="a\nb")
