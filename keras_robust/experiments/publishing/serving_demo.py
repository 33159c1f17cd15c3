"""Serves an exported model on this machine, and queries it before and after attacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from keras_robust.experiments.measuring.attack_run import AttackedTestSet

EXAMPLES = 3  # images of each kind in the table
ServedOutputs = dict[str, np.ndarray]


def serve_and_query(
    model: str,
    base: Path,
    oblivious: AttackedTestSet,
    adaptive: AttackedTestSet,
    log: Callable[[str], None],
) -> None:
    """Starts a server, sends an attack wave, queries it over gRPC and REST, and stops it.

    Args:
        model: the name of the served model.
        base: the parent directory of its versions.
        oblivious: images of an attack that ignores the detector.
        adaptive: the same images, of an attack that also lowers the score.
        log: called with lines of text.
    """
    from keras_robust.experiments.publishing.attack_wave import attack_wave
    from keras_robust.serving.client.grpc_client import Client
    from keras_robust.serving.client.rest_client import RestClient
    from keras_robust.serving.server.server import Server

    with Server(model, base, port=0, rest_api_port=0) as server:
        log(
            f"Serving {model} version {server.version}: gRPC {server.grpc_address}, "
            f"REST http://{server.rest_address}/v1/models/{model}"
        )
        rest = RestClient(server.rest_address)
        with Client(server.grpc_address) as grpc:
            images, adversarial = oblivious.images, oblivious.adversarial
            attack_wave(grpc, server.rest_address, model, images, adversarial, log)
            outputs, largest = [], 0.0
            for images in (oblivious.images, oblivious.adversarial, adaptive.adversarial):
                outputs.append(grpc.predict(model, images, "detect"))
                first = {name: values[:EXAMPLES] for name, values in outputs[-1].items()}
                over_rest = rest.predict(model, images[:EXAMPLES], "detect")
                largest = max(largest, _difference(first, over_rest))
    clean, attacked, adaptively_attacked = outputs
    log(table(oblivious, clean, attacked))
    log(adaptive_summary(oblivious.labels, attacked, adaptively_attacked))
    log(f"gRPC and REST agree (largest difference {largest:.0e}). Server stopped.")


def _difference(first: ServedOutputs, second: ServedOutputs) -> float:
    return max(
        float(np.abs(first[name].astype(float) - second[name].astype(float)).max())
        for name in first
    )


def table(test_set: AttackedTestSet, clean: ServedOutputs, attacked: ServedOutputs) -> str:
    """Formats the served outputs of images before and after an attack.

    Args:
        test_set: the images.
        clean: the outputs of the signature `detect` for the clean images.
        attacked: the same for the adversarial images.

    Returns:
        A few images that fool the model and a few that do not, then the fractions of all.
    """
    correct = clean["classes"] == test_set.labels
    fooled = correct & (attacked["classes"] != test_set.labels)
    rows = [*np.flatnonzero(fooled)[:EXAMPLES], *np.flatnonzero(correct & ~fooled)[:EXAMPLES]]
    lines = [
        "",
        f"{'image':>6} {'true':>5} | {'clean: class':>12} {'score':>6} {'flagged':>8} |"
        f" {'attacked: class':>15} {'score':>6} {'flagged':>8}",
    ]
    for row in rows:
        cells = [
            f"{outputs['classes'][row]:>{width}} {outputs['detection_score'][row]:6.2f} "
            f"{'yes' if outputs['is_adversarial'][row] else 'no':>8}"
            for outputs, width in ((clean, 12), (attacked, 15))
        ]
        lines.append(f"{row:6d} {test_set.labels[row]:>5} | {cells[0]} | {cells[1]}")
    lines.append(f"All {len(correct)} test images, as the server classifies them:")
    for name, outputs, note in (("clean", clean, " (false alarms)"), ("attacked", attacked, "")):
        accuracy = (outputs["classes"] == test_set.labels).mean()
        lines.append(
            f"  {name:8} {accuracy:6.1%} classified correctly, "
            f"median score {np.median(outputs['detection_score']):.2f}, "
            f"{outputs['is_adversarial'].mean():6.1%} flagged{note}"
        )
    return "\n".join(lines)


def adaptive_summary(labels: np.ndarray, oblivious: ServedOutputs, adaptive: ServedOutputs) -> str:
    """Summarizes the adaptive attack: evasion rate with and without knowledge of the score.

    Args:
        labels: `[n]`, the true classes.
        oblivious: the outputs of the signature `detect` under an attack that ignores the score.
        adaptive: the same under an attack that also lowers the score.

    Returns:
        The fractions of images that are misclassified and not flagged.
    """
    evading, before = (
        ((outputs["classes"] != labels) & ~outputs["is_adversarial"]).mean()
        for outputs in (adaptive, oblivious)
    )
    return (
        "An adaptive attack, which also lowers the detection score, evades the detector:\n"
        f"{evading:.1%} of the images are misclassified and not flagged, against {before:.1%} "
        "under\nthe same attack without knowledge of the score."
    )
