"""The conformance tests against a server in another process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run_tests(**variables):
    """Runs the conformance tests in a process of their own; returns its status and output."""
    names = ("SERVING_ADDRESS", "SERVING_REST_ADDRESS", "SERVING_MODEL")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    files = [str(HERE / f"test_conformance{part}.py") for part in ("", "_refusals", "_http")]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *files],
        env=environment | variables,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    return result.returncode, result.stdout


@pytest.mark.slow
def test_a_server_at_an_address_is_asked(exported_model):
    command = [sys.executable, "-m", "serving.serve", "--model_name=other", "--port=0"]
    command += [f"--model_base_path={exported_model}", "--rest_api_port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        ready = re.search(r"gRPC (\S+), REST http://([^/]+)", process.stdout.readline())
        addresses = {"SERVING_ADDRESS": ready[1], "SERVING_REST_ADDRESS": ready[2]}
        status, output = run_tests(SERVING_MODEL="other", **addresses)
        assert status == 0, output
        assert re.search(r"\d\d passed, \d+ skipped", output)
        assert f"only the embedded server promises this; {ready[1]} is asked" in output
        # The tests query that server: with another model name they fail.
        status, output = run_tests(SERVING_MODEL="nobody", **addresses)
        assert status == 1
        assert "Servable not found for request: Latest(nobody)" in output
    finally:
        process.kill()
        process.wait()
    status, output = run_tests(SERVING_ADDRESS="localhost:8500")
    assert status == 1
    assert "Set both SERVING_ADDRESS (gRPC) and SERVING_REST_ADDRESS" in output
