"""Sends an attack wave to a served model, and reads its metrics before and after."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from keras_robust.serving.client.grpc_client import Client

IMAGES = 5  # of a request
_PREFIX = "keras_robust_detection_"
_ROWS = (
    ("images", "images_total", "{:.0f}"),
    ("flagged", "flagged_ratio", "{:.1%}"),
    ("alarms", "alarms_total", "{:.0f}"),
)


def attack_wave(
    client: Client,
    rest_address: str,
    model: str,
    clean: np.ndarray,
    adversarial: np.ndarray,
    log: Callable[[str], None],
) -> int | None:
    """Queries a server about clean images, then about a stream of which every second is attacked.

    Args:
        client: of the server, which has seen no other images.
        rest_address: where its `/metrics` are.
        model: the name of the served model.
        clean: `[n, height, width, channels]`; one half for the quiet time, one for the wave.
        adversarial: the same images under attack.
        log: called with lines of text.

    Returns:
        The number of images of the wave until the alarm; None without one.
    """
    half = len(clean) // 2
    stream = clean[half:].copy()
    stream[::2] = adversarial[half:][::2]

    def send(images: np.ndarray) -> None:
        client.predict(model, images, "detect")

    for start in range(0, half, IMAGES):
        send(clean[start : min(start + IMAGES, half)])
    before = read_metrics(rest_address)
    raised = None
    for start in range(0, len(stream), IMAGES):
        send(stream[start : start + IMAGES])
        alarms = read_metrics(rest_address).get("alarms_total", 0)
        if raised is None and alarms > before.get("alarms_total", 0):
            raised = min(start + IMAGES, len(stream))
    log(table(half, len(stream), before, read_metrics(rest_address), raised))
    return raised


def read_metrics(rest_address: str) -> dict[str, float]:
    """The detection metrics of a server with one version: `{name without prefix: value}`."""
    from prometheus_client.parser import text_string_to_metric_families

    with urllib.request.urlopen(f"http://{rest_address}/metrics", timeout=10) as response:
        text = response.read().decode()
    return {
        sample.name.removeprefix(_PREFIX): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(_PREFIX) and not sample.name.endswith("_bucket")
    }


def table(
    quiet: int, wave: int, before: dict[str, float], after: dict[str, float], raised: int | None
) -> str:
    """Formats the metrics before and after the wave.

    Args:
        quiet: number of clean images before it.
        wave: number of its images.
        before: the metrics before it.
        after: the metrics after it.
        raised: its number of images until the alarm; None without one.
    """
    lines = [
        f"\n{quiet} clean images, then a wave of {wave}, every second one attacked. /metrics says:",
        f"  {'':8} {'before':>8} {'after':>8}",
    ]
    for title, name, form in _ROWS:
        cells = [form.format(metrics.get(name, 0.0)) for metrics in (before, after)]
        lines.append(f"  {title:8} {cells[0]:>8} {cells[1]:>8}")
    if raised is None:
        lines.append("No alarm: the detector flags too few of these attacks for so short a wave.")
    else:
        lines.append(f"The alarm went off within {raised} images of the wave.")
    return "\n".join(lines)
