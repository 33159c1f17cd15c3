"""The public names of `keras_robust.serving`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from keras_robust import serving
from keras_robust.serving.client.rest_client import RestClient


def test_it_lists_what_it_has():
    assert dir(serving) == sorted(serving.__all__)
    assert all(getattr(serving, name).__name__ == name for name in serving.__all__)
    assert serving.RestClient is RestClient
    with pytest.raises(AttributeError, match="has no attribute 'Servant'"):
        serving.Servant  # noqa: B018


def test_the_rest_client_and_the_sidecar_need_no_tensorflow():
    code = (
        "import sys; from keras_robust.serving import Monitor, RestClient, ServingError\n"
        "import keras_robust.serving.sidecar.rest_proxy, keras_robust.serving.sidecar.log_reader\n"
        "assert not {'tensorflow', 'keras', 'grpc'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
