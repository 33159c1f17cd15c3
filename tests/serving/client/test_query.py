"""`keras-robust query` and the clients: output and errors."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from keras_robust.cli import query
from keras_robust.serving.client import query as module
from keras_robust.serving.client.grpc_client import Client, named_inputs
from keras_robust.serving.client.rest_client import RestClient, authorization
from keras_robust.serving.status import Code, ServingError


@pytest.fixture(scope="module")
def server(embedded):
    return embedded


@pytest.fixture(scope="module", params=["grpc", "rest"])
def arguments(request, server):
    """The flags that choose the server, over gRPC and over REST."""
    address = server.grpc_address if request.param == "grpc" else server.rest_address
    chosen = [f"--server={address}", "--model=digits"]
    return chosen if request.param == "grpc" else [*chosen, "--rest"]


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    return pixels.astype(np.float32) / 255


@pytest.fixture(scope="module")
def files(tmp_path_factory, images):
    """The same images as files of every kind."""
    path = tmp_path_factory.mktemp("images")
    for name, image in zip("abc", images, strict=True):
        pixels = np.rint(image * 255).astype(np.uint8)
        (path / f"{name}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    (path / "d.jpg").write_bytes(tf.io.encode_jpeg(np.full((16, 9, 3), 200, np.uint8)).numpy())
    np.save(path / "batch.npy", images)
    np.save(path / "one.npy", images[0])
    np.save(path / "grey.npy", images[..., 0].astype(np.float64))
    np.save(path / "flat.npy", images[0, ..., 0].astype(np.float16))
    np.savez(path / "named.npz", images=images[:2], labels=np.arange(2))
    np.savez(path / "only.npz", something=images[:1])
    np.savez(path / "several.npz", a=images, b=images)
    np.savez(path / "none.npz")
    np.save(path / "bytes.npy", np.rint(images * 255).astype(np.uint8))
    np.save(path / "wrong.npy", np.zeros((3, 9, 8, 1), np.float32))
    np.save(path / "high.npy", images + 3)
    np.save(path / "empty.npy", images[:0])
    np.save(path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (path / "junk.png").write_bytes(b"junk")
    (path / "junk.npy").write_bytes(b"junk")
    (path / "junk.npz").write_bytes(b"PK junk")
    return path


def run(*arguments):
    values = flags.FlagValues()
    query.define_flags(values)
    values(["query", *arguments])
    return query.run(values)


def named(path, *names):
    return "--images=" + ",".join(str(path / name) for name in names)


def test_a_table_in_the_order_of_the_files(arguments, files, images, classifier, detector):
    text = run(*arguments, named(files, "b.png", "batch.npy", "a.png", "one.npy"))
    lines = text.splitlines()
    assert lines[0].split() == [
        "image",
        "class",
        "probability",
        "detection_score",
        "is_adversarial",
    ]
    assert len({len(line) for line in lines}) == 1
    rows = [line.split() for line in lines[1:]]
    order = ["b.png", "batch.npy[0]", "batch.npy[1]", "batch.npy[2]", "a.png", "one.npy"]
    assert [row[0] for row in rows] == [str(files / name) for name in order]
    probabilities = tf.nn.softmax(classifier(images)["logits"]).numpy()
    scores, alarms = detector.score(images).numpy(), detector.is_adversarial(images).numpy()
    for row, index in zip(rows, [1, 0, 1, 2, 0, 0], strict=True):
        assert int(row[1]) == probabilities[index].argmax()
        assert float(row[2]) == pytest.approx(probabilities[index].max(), abs=1e-4)
        assert float(row[3]) == pytest.approx(scores[index], abs=1e-4)
        assert row[4] == ("yes" if alarms[index] else "no")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("a.png", 1),
        ("d.jpg", 1),
        ("batch.npy", 3),
        ("one.npy", 1),
        ("grey.npy", 3),
        ("flat.npy", 1),
        ("named.npz", 2),
        ("only.npz", 1),
    ],
)
def test_json_for_every_kind_of_file(arguments, files, name, count):
    rows = json.loads(run(*arguments, named(files, name), "--json"))
    assert len(rows) == count
    for row in rows:
        assert row["class"] == int(np.argmax(row["probabilities"]))
        assert row["probability"] == max(row["probabilities"])
        assert isinstance(row["is_adversarial"], bool)
        assert 0 <= row["detection_score"] <= np.log(10) + 1e-6


@pytest.mark.parametrize("signature", ["serving_default", "serving_bytes"])
def test_another_signature_has_other_columns(arguments, files, signature):
    text = run(*arguments, named(files, "a.png", "one.npy"), f"--signature={signature}")
    assert text.splitlines()[0].split() == ["image", "class", "probability"]
    rows = json.loads(run(*arguments, named(files, "a.png"), f"--signature={signature}", "--json"))
    assert "detection_score" not in rows[0]


def test_more_images_than_a_request_holds(arguments, files, monkeypatch):
    whole = run(*arguments, named(files, "batch.npy", "a.png", "b.png", "c.png"), "--json")
    monkeypatch.setattr(module, "BATCH_SIZE", 2)
    parts = run(*arguments, named(files, "batch.npy", "a.png", "b.png", "c.png"), "--json")
    for row, again in zip(json.loads(whole), json.loads(parts), strict=True):
        assert row["image"] == again["image"]
        assert row["probabilities"] == pytest.approx(again["probabilities"], abs=1e-5)


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("missing.png", FileNotFoundError, "missing.png is not a file; expected images"),
        ("missing.npy", FileNotFoundError, "missing.npy is not a file"),
        ("several.npz", ValueError, "holds the arrays .*a.*b.*; expected one, or one named"),
        ("none.npz", ValueError, "holds the arrays"),
        ("bytes.npy", ValueError, "uint8; expected floats in .0, 1.: divide 8-bit images by 255"),
        ("wrong.npy", ValueError, r"has shape \[3, 9, 8, 1\]; expected \[8, 8, 1\], or \[batch"),
        ("objects.npy", ValueError, "is not a NumPy file of numbers"),
        ("junk.npy", ValueError, "is not a NumPy file of numbers"),
        ("junk.npz", ValueError, "is not a NumPy file of numbers"),
        ("empty.npy", ValueError, "holds an empty batch"),
        ("high.npy", ConnectionError, r"INVALID_ARGUMENT: images must lie in \[0, 1\]"),
        ("junk.png", ConnectionError, "INVALID_ARGUMENT: .*PNG or JPEG"),
    ],
)
def test_what_is_wrong_with_a_file(arguments, files, name, kind, says):
    with pytest.raises(kind, match=says) as caught:
        run(*arguments, named(files, name))
    assert "\n" not in str(caught.value)


def test_what_is_wrong_with_a_request(arguments, files):
    with pytest.raises(ConnectionError, match="NOT_FOUND: Servable not found"):
        run(arguments[0], "--model=nobody", *arguments[2:], named(files, "a.png"))
    with pytest.raises(ConnectionError, match="guess.* not found.* expected one of detect"):
        run(*arguments, named(files, "a.png"), "--signature=guess")
    with pytest.raises(ValueError, match="no signature 'guess' that takes 'images'; it has detect"):
        run(*arguments, named(files, "one.npy"), "--signature=guess")
    with pytest.raises(ValueError, match="--images is empty"):
        run(*arguments, "--images=,")


def test_flags(files):
    with pytest.raises(flags.UnrecognizedFlagError, match="Did you mean: server"):
        run("--sever=x", "--model=digits", named(files, "a.png"))
    with pytest.raises(ValueError, match="--model is missing"):
        run(named(files, "a.png"))


def silent_port():
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("kind", [Client, RestClient])
def test_nobody_listens(kind):
    listener, address = silent_port()
    listener.close()
    with pytest.raises(ServingError, match=f"No model server answers at {address}") as caught:
        kind(address).status("digits")
    assert caught.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize("kind", [Client, RestClient])
def test_nobody_answers(kind):
    listener, address = silent_port()
    with listener, pytest.raises(ServingError) as caught:
        kind(address, timeout=0.2).status("digits")
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert str(caught.value) == f"{address} did not answer within 0.2 seconds"


def answering(content):
    """A server that gives one answer."""
    listener, address = silent_port()

    def answer():
        with listener:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(content)

    threading.Thread(target=answer, daemon=True).start()
    return address


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "UNKNOWN", "answered 200 without JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "UNKNOWN", "answered 200 without JSON"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n", "UNKNOWN", "answered 502 without JSON"),
        (b'HTTP/1.1 404 No\r\nContent-Length: 14\r\n\r\n{"error": "x"}', "NOT_FOUND", "^x$"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "UNAVAILABLE", "does not speak HTTP"),
        (b"junk", "UNAVAILABLE", "does not speak HTTP"),
    ],
)
def test_answers_of_something_else(content, code, says):
    with pytest.raises(ServingError, match=says) as caught:
        RestClient(answering(content), timeout=5).status("digits")
    assert caught.value.code.name == code


HTML = b"<html><h1>Go away</h1></html>"


@pytest.mark.parametrize(("status", "code"), [(401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED")])
@pytest.mark.parametrize(
    ("token", "says"),
    [("3f9a", "token that was sent is wrong, expired"), (None, "no token was sent; pass `token`")],
)
@pytest.mark.parametrize("content", [HTML, b"", b"[]", b"{}"])
def test_a_proxy_that_refuses_the_credentials(status, code, token, says, content):
    head = f"HTTP/1.1 {status} No\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    client = RestClient(answering(head + content), timeout=5)
    client._headers |= authorization(token, tls=True)  # the token alone; this server has no TLS
    says = f"The proxy at .* refused the credentials .{status}.*{says}"
    with pytest.raises(ServingError, match=says) as caught:
        client.status("digits")
    assert caught.value.code.name == code
    assert "REST port" not in str(caught.value)
    assert "3f9a" not in str(caught.value)


@pytest.mark.parametrize("token", ["3f9a", None])
@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "PERMISSION_DENIED"])
def test_a_proxy_of_grpc_that_refuses_the_credentials(token, code):
    class Refusal(grpc.RpcError):
        def code(self):
            return grpc.StatusCode[code]

        def details(self):
            return "Received http2 header with status: 401"

    def method(request, timeout, metadata):
        assert dict(metadata) == ({"authorization": "Bearer 3f9a"} if token else {})
        raise Refusal

    says = "token that was sent is wrong" if token else "no token was sent"
    says = f"The proxy at localhost:1 refused the credentials .*401.*{says}"
    client = Client("localhost:1", tls=True, token=token)
    with client, pytest.raises(ServingError, match=says) as caught:
        client._call(method, None)
    assert caught.value.code.name == code


def test_a_model_of_other_outputs(files):
    class Other:
        def predict(self, model, inputs, signature):
            return {"scores": np.zeros(len(inputs))}

    with pytest.raises(ValueError, match=r"returns \['scores'\]; expected 'probabilities' and"):
        module.query(Other(), "digits", [str(files / "a.png")])


def test_named_inputs(images):
    assert set(named_inputs(images)) == {"images"}
    assert named_inputs([b"a"]) == {"image_bytes": [b"a"]}
    assert named_inputs(np.array([b"a"], object)) == {"image_bytes": [b"a"]}
    assert named_inputs({"x": 1}) == {"x": 1}


def test_output_filter_and_version(server, images):
    with Client(server.grpc_address) as client:
        only = client.predict("digits", images, "detect", version=1, output_filter=("classes",))
    assert set(only) == {"classes"}
    rest = RestClient(f"http://{server.rest_address}/")
    assert rest.status("digits", 1) == {1: "AVAILABLE"}
    assert (
        rest.predict("digits", {"images": images}, version=1)["probabilities"].dtype == np.float32
    )


def test_tls_is_spoken_to_a_proxy(server):
    for client in (
        Client(server.grpc_address, tls=True),
        RestClient(server.rest_address, tls=True),
        RestClient(f"https://{server.rest_address}"),
    ):
        with pytest.raises(ServingError) as caught:
            client.status("digits")
        assert caught.value.code is Code.UNAVAILABLE


def test_the_program_prints_one_line_on_errors(server, files):
    """Over REST the program does not import TensorFlow, which takes seconds."""
    program = (
        "import sys; from keras_robust.cli.main import main\n"
        "try: main()\n"
        "finally: assert not {'tensorflow', 'grpc'} & sys.modules.keys()"
    )
    command = [sys.executable, "-c", program, "query", "--rest", "--model=digits"]

    def ask(address, name):
        images = named(files, name)
        return subprocess.run(
            [*command, f"--server={address}", images],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )

    right = ask(server.rest_address, "a.png")
    assert (right.returncode, right.stderr) == (0, "")
    assert len(right.stdout.splitlines()) == 2
    wrong = ask(server.rest_address, "junk.png")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith(
        "keras-robust query: INVALID_ARGUMENT: image_bytes must hold PNG or JPEG"
    )
    assert len(wrong.stderr.splitlines()) == 1
