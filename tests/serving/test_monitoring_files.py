"""The dashboard, the alert rules and the compose file name what exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from absl import flags
from prometheus_client.parser import text_string_to_metric_families

import serving
from keras_robust.cli import monitor
from keras_robust.serving.metrics.telemetry import METRICS_PATHS, Monitoring, Telemetry

FOLDER = Path(serving.__file__).parent / "monitoring"
ROOT = FOLDER.parent.parent
# Prometheus' own, and labels that it adds.
GIVEN, ADDED = {"up"}, {"job", "instance"}
NAME = r"\b(?:keras_robust|process)_[a-z_]+\b|\bup\b"


def parsed(name):
    text = (FOLDER / name).read_text("utf-8")
    return json.loads(text) if name.endswith("json") else yaml.safe_load(text)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """`{name of a sample: its labels}` of everything that a server exports."""
    folder = tmp_path_factory.mktemp("exported")
    np.save(folder / "clean.npy", np.linspace(0, 1, 50))
    telemetry = Telemetry(Monitoring(clean_scores=folder / "clean.npy", request_log=folder / "log"))
    telemetry.requests.watch_queue("grpc", lambda: 0)
    telemetry.requests.watch_versions(lambda: [("digits", 1, "AVAILABLE", "OK")])
    telemetry.requests.batch("digits", "detect", 3)
    with telemetry.request("grpc", "Predict") as record:
        record.model, record.signature = "digits", "detect"
        outputs = {"detection_score": np.zeros(2), "is_adversarial": np.zeros(2, bool)}
        record.answered(1, {}, outputs)
    text = telemetry.text().decode()
    telemetry.close()
    return {
        one.name: set(one.labels)
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def alerts():
    return [rule for group in parsed("alerts.yml")["groups"] for rule in group["rules"]]


def panels():
    return [one for one in parsed("grafana/dashboard.json")["panels"] if one["type"] != "row"]


def expressions():
    found = [rule["expr"] for rule in alerts()]
    found += [target["expr"] for panel in panels() for target in panel["targets"]]
    board = parsed("grafana/dashboard.json")
    found += [one["expr"] for one in board["annotations"]["list"]]
    return found


@pytest.mark.parametrize("expression", expressions())
def test_metrics_and_labels_of_an_expression_exist(exported, expression):
    names = set(re.findall(NAME, re.sub(r'"[^"]*"', '""', expression)))
    assert names and names <= set(exported) | GIVEN, names - set(exported)
    for name, matchers in re.findall(rf"({NAME})\{{([^}}]*)\}}", expression):
        used = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', matchers))
        assert used and used <= exported.get(name, set()) | ADDED, (name, used)
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    known = set.union(ADDED, *(exported.get(name, set()) for name in names))
    for labels in grouped:
        assert {label.strip() for label in labels.split(",")} <= known
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)


def test_alerts_say_what_they_are(exported):
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 8
    for rule in rules:
        assert rule["labels"]["severity"] in ("page", "warning", "info")
        shown = " ".join(rule["annotations"].values())
        labels = set(re.findall(r"\$labels\.(\w+)", shown))
        names = re.findall(NAME, re.sub(r'"[^"]*"', '""', rule["expr"]))
        assert labels <= set.union(ADDED, *(exported.get(name, set()) for name in names))
        if "for" in rule:
            assert re.fullmatch(r"\d+[smh]", rule["for"])


def test_panels_are_on_the_board_once():
    board = parsed("grafana/dashboard.json")
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    cells = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & cells and place["x"] + place["w"] <= 24
        cells |= own
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}
    variables = {one["name"]: one for one in board["templating"]["list"]}
    used = set(re.findall(r"\$(\w+)", " ".join(expressions()))) - {"__rate_interval"}
    assert used <= set(variables)


def test_queries_of_the_variables_name_labels(exported):
    for one in parsed("grafana/dashboard.json")["templating"]["list"][1:]:
        metric, label = re.fullmatch(
            r"label_values\((\w+), (\w+)\)", one["query"]["query"]
        ).groups()
        assert label == one["name"] and label in exported[metric]


def test_the_compose_file_starts_what_the_others_name():
    services = parsed("compose.yml")["services"]
    for service in services.values():
        for volume in service["volumes"]:
            source = re.sub(r"\$\{.*?\}", "", volume).split(":")[0]
            assert not source or (FOLDER / source).exists(), volume
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")
    build = services["monitor"]["build"]
    assert (FOLDER / build["context"]).resolve() == ROOT
    dockerfile = (ROOT / build["dockerfile"]).read_text("utf-8")
    for line in re.findall(r"^COPY (.*)$", dockerfile, flags=re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split()[:-1])
    program, *arguments = services["monitor"]["command"]
    assert program == "monitor"
    values = flags.FlagValues()
    monitor.define_flags(values)
    values(["monitor", *arguments])
    assert values.server == "tensorflow-serving:8501"
    assert values.grpc_server == "tensorflow-serving:8500"
    published = [f"127.0.0.1:{port}:{port}" for port in (values.port, values.grpc_port)]
    assert services["monitor"]["ports"] == published
    jobs = {one["job_name"]: one for one in parsed("prometheus.yml")["scrape_configs"]}
    targets = {name: job["static_configs"][0]["targets"][0] for name, job in jobs.items()}
    assert targets == {
        "keras_robust": f"monitor:{values.metrics_port}",
        "tensorflow_serving": values.server,
    }
    assert {target.split(":")[0] for target in targets.values()} <= set(services)
    assert jobs["tensorflow_serving"]["metrics_path"] == METRICS_PATHS[1]
    config = (FOLDER.parent / "tf_serving" / "monitoring.config").read_text("utf-8")
    assert METRICS_PATHS[1] in config


def test_grafana_finds_its_dashboard():
    folder = parsed("grafana/dashboards.yml")["providers"][0]["options"]["path"]
    mounts = parsed("compose.yml")["services"]["grafana"]["volumes"]
    assert any(f":{folder}/" in mount for mount in mounts)
    (source,) = parsed("grafana/datasources.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090" and source["type"] == "prometheus"
