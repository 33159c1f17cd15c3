"""The configuration files of TensorFlow Serving parse; the command that the script runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

import serving

FOLDER = Path(serving.__file__).parent / "tf_serving"
Field = descriptor_pb2.FieldDescriptorProto

# tensorflow-serving-api lacks these messages; their fields, as TensorFlow Serving's sources and its
# guides to batching and monitoring give them.
MESSAGES = {
    "Int64Value": {"value": Field.TYPE_INT64},
    "BatchingParameters": {
        "max_batch_size": "Int64Value",
        "batch_timeout_micros": "Int64Value",
        "max_enqueued_batches": "Int64Value",
        "num_batch_threads": "Int64Value",
        "allowed_batch_sizes": [Field.TYPE_INT64],
        "pad_variable_length_inputs": Field.TYPE_BOOL,
    },
    "PrometheusConfig": {"enable": Field.TYPE_BOOL, "path": Field.TYPE_STRING},
    "MonitoringConfig": {"prometheus_config": "PrometheusConfig"},
}


@pytest.fixture(scope="module")
def message():
    """An empty message with a name in `MESSAGES`."""
    file = descriptor_pb2.FileDescriptorProto(name="hand_written.proto", package="hand")
    file.syntax = "proto3"
    for name, fields in MESSAGES.items():
        described = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            added = described.field.add(name=field, number=number, label=Field.LABEL_OPTIONAL)
            if isinstance(kind, list):
                added.label, kind = Field.LABEL_REPEATED, kind[0]
            if isinstance(kind, str):
                added.type, added.type_name = Field.TYPE_MESSAGE, f".hand.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)

    def make(name):
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"hand.{name}"))()

    return make


def test_models_config():
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((FOLDER / "models.config").read_text("utf-8"), config)
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("digits", "/models/digits")
    assert model.model_platform == "tensorflow"
    assert model.model_version_policy.latest.num_versions == 1


def test_the_commented_lines_of_models_config_parse_too():
    text = (FOLDER / "models.config").read_text("utf-8")
    text = re.sub(r"\n *model_version_policy .*", "", text)
    text = re.sub(r"#   ", "", text)
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(text, config)
    model = config.model_config_list.config[0]
    assert list(model.model_version_policy.specific.versions) == [3, 4]
    assert dict(model.version_labels) == {"stable": 3}


def test_batching_parameters(message):
    text = (FOLDER / "batching_parameters.txt").read_text("utf-8")
    batching = text_format.Parse(text, message("BatchingParameters"))
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(sizes) and sizes[-1] == batching.max_batch_size.value
    assert batching.batch_timeout_micros.value > 0
    assert batching.num_batch_threads.value > 0
    assert batching.max_enqueued_batches.value > 0


def test_monitoring(message):
    text = (FOLDER / "monitoring.config").read_text("utf-8")
    monitoring = text_format.Parse(text, message("MonitoringConfig"))
    assert monitoring.prometheus_config.enable
    readme = (FOLDER / "README.md").read_text("utf-8")
    assert monitoring.prometheus_config.path in readme


@pytest.fixture
def script(tmp_path):
    """Runs run.sh without ever running a container: with --dry_run."""
    if shutil.which("bash") is None:
        pytest.skip("run.sh needs bash")
    (tmp_path / "exported" / "digits" / "1").mkdir(parents=True)

    def run(*arguments, **environment):
        return subprocess.run(
            ["bash", FOLDER / "run.sh", "--dry_run", *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            text=True,
        )

    return run


def test_the_command_of_one_model(script, tmp_path):
    done = script("--model_name=digits", "--model_base_path=exported/digits")
    assert (done.returncode, done.stderr) == (0, "")
    words = shlex.split(done.stdout)
    assert words[:3] == ["docker", "run", "--rm"]
    assert "127.0.0.1:8500:8500" in words and "127.0.0.1:8501:8501" in words
    source = tmp_path / "exported" / "digits"
    assert f"type=bind,source={source},target=/models/digits,readonly" in words
    assert f"type=bind,source={FOLDER},target=/config,readonly" in words
    assert "MODEL_NAME=digits" in words
    image = words.index("tensorflow/serving:latest")
    assert words[image + 1] == "--monitoring_config_file=/config/monitoring.config"
    assert "--enable_batching" not in words


def test_the_environment_says_the_same_and_flags_win(script):
    environment = {
        "MODEL_NAME": "digits",
        "MODEL_BASE_PATH": "exported/digits",
        "PORT": "9000",
        "REST_API_PORT": "9001",
        "HOST": "0.0.0.0",
        "TF_SERVING_IMAGE": "tensorflow/serving:pinned",
        "BATCHING": "1",
    }
    words = shlex.split(script("--port=9500", "--", "--extra", **environment).stdout)
    assert "0.0.0.0:9500:8500" in words and "0.0.0.0:9001:8501" in words
    assert "tensorflow/serving:pinned" in words
    assert "--batching_parameters_file=/config/batching_parameters.txt" in words
    assert words[-1] == "--extra"


def test_the_command_of_several_models(script, tmp_path):
    config = FOLDER / "models.config"
    done = script(f"--model_config_file={config}", "--models_dir=exported")
    words = shlex.split(done.stdout)
    assert f"type=bind,source={tmp_path / 'exported'},target=/models,readonly" in words
    assert f"type=bind,source={config},target=/models.config,readonly" in words
    assert "--model_config_file=/models.config" in words


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--model_name and --model_base_path are needed"),
        (("--model_name=digits",), "--model_name and --model_base_path are needed"),
        (("--model_name=digits", "--model_base_path=none"), "none is not a directory; export a"),
        (("--model_config_file=x",), "--model_config_file also needs --models_dir"),
        (("--model_config_file=x", "--models_dir=exported"), "x does not exist"),
        (("--modle_name=digits",), "unknown argument --modle_name=digits"),
    ],
)
def test_what_the_script_refuses(script, arguments, says):
    done = script(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"run.sh: {says}")


def test_help(script):
    assert script("--help").stdout.startswith("usage: run.sh --model_name=NAME")


def test_the_readme_names_the_files_and_no_file_is_left_out():
    readme = (FOLDER / "README.md").read_text("utf-8")
    for path in FOLDER.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in readme
