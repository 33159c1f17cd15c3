"""The manifest of KServe is of one piece: names, ports and flags agree."""

from __future__ import annotations

from pathlib import Path

import pytest
from absl import flags

from keras_robust.cli import monitor

yaml = pytest.importorskip("yaml", reason="pip install pyyaml")
FILE = Path(__file__).parents[2] / "serving" / "kserve" / "digits.yaml"


@pytest.fixture(scope="module")
def parts():
    found = list(yaml.safe_load_all(FILE.read_text("utf-8")))
    return {part["kind"]: part for part in found}


def test_the_detector_is_in_front_of_the_predictor(parts):
    service, predictor = parts["Service"], parts["InferenceService"]
    pod = parts["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    values = flags.FlagValues()
    monitor.define_flags(values)
    assert container["args"][0] == "monitor"
    values(container["args"])  # raises for a flag that the command has not
    name = predictor["metadata"]["name"]
    assert values["server"].value == f"{name}-predictor:80"
    assert values["model_base_path"].value == f"/models/{name}"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"rest": values["port"].value, "metrics": values["metrics_port"].value}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports.keys()
    labels = parts["Deployment"]["spec"]["selector"]["matchLabels"]
    assert labels == pod["metadata"]["labels"] == service["spec"]["selector"]
    (rule,) = parts["NetworkPolicy"]["spec"]["ingress"]
    assert rule["from"][0]["podSelector"]["matchLabels"] == labels
    assert parts["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == {
        "serving.kserve.io/inferenceservice": name
    }


def test_both_read_the_same_volume(parts):
    model = parts["InferenceService"]["spec"]["predictor"]["model"]
    assert model["modelFormat"]["name"] == "tensorflow"
    (volume,) = parts["Deployment"]["spec"]["template"]["spec"]["volumes"]
    claim = volume["persistentVolumeClaim"]
    assert model["storageUri"] == f"pvc://{claim['claimName']}/digits" and claim["readOnly"]
