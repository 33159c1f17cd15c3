"""Serves an export on this machine, and asks it about images before and after attacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from keras_robust.experiments.runs.attack_run import AttackedTestSet

SHOWN = 3  # images of a kind in the table
Answers = dict[str, np.ndarray]


def serve_and_query(
    model: str, base: Path, ignorant: AttackedTestSet, knowing: AttackedTestSet, say: Callable[[str], None]
) -> None:
    """Starts a server, asks it about all images over gRPC and REST, and stops it.

    Args:
        model: the name to serve it by.
        base: the directory of its versions.
        ignorant: images of an attack that ignores the detector.
        knowing: the same images, of an attack that lowers the score as well.
        say: called with lines of text.
    """
    from keras_robust.serving.client.grpc_client import Client
    from keras_robust.serving.client.rest_client import RestClient
    from keras_robust.serving.server.server import Server

    with Server(model, base, port=0, rest_api_port=0) as server:
        say(
            f"Serving {model} version {server.version}: gRPC {server.grpc_address}, "
            f"REST http://{server.rest_address}/v1/models/{model}"
        )
        rest = RestClient(server.rest_address)
        with Client(server.grpc_address) as grpc:
            answers, gap = [], 0.0
            for images in (ignorant.images, ignorant.adversarial, knowing.adversarial):
                answers.append(grpc.predict(model, images, "detect"))
                again = rest.predict(model, images[:SHOWN], "detect")
                gap = max(gap, _gap({k: v[:SHOWN] for k, v in answers[-1].items()}, again))
    clean, attacked, hidden = answers
    say(table(ignorant, clean, attacked))
    say(adaptive_summary(ignorant.labels, attacked, hidden))
    say(f"gRPC and REST give the same answers (largest difference {gap:.0e}). Server stopped.")


def _gap(mine: Answers, theirs: Answers) -> float:
    return max(
        float(np.abs(mine[name].astype(float) - theirs[name].astype(float)).max()) for name in mine
    )


def table(crafted: AttackedTestSet, clean: Answers, attacked: Answers) -> str:
    """What a server said of images, before and after an attack.

    Args:
        crafted: the images.
        clean: the outputs of the signature `detect` for the images as they were.
        attacked: the same for the attacked ones.

    Returns:
        A few images that were fooled and a few that withstood, then the shares of all.
    """
    right = clean["classes"] == crafted.labels
    fooled = right & (attacked["classes"] != crafted.labels)
    rows = [*np.flatnonzero(fooled)[:SHOWN], *np.flatnonzero(right & ~fooled)[:SHOWN]]
    lines = [
        "",
        f"{'image':>6} {'true':>5} | {'clean: says':>11} {'score':>6} {'flagged':>8} |"
        f" {'attacked: says':>14} {'score':>6} {'flagged':>8}",
    ]
    for row in rows:
        cells = [
            f"{said['classes'][row]:>{width}} {said['detection_score'][row]:6.2f} "
            f"{'yes' if said['is_adversarial'][row] else 'no':>8}"
            for said, width in ((clean, 11), (attacked, 14))
        ]
        lines.append(f"{row:6d} {crafted.labels[row]:>5} | {cells[0]} | {cells[1]}")
    lines.append(f"Of all {len(right)} test images, as the server sees them:")
    for name, said, note in (("clean", clean, " (false alarms)"), ("attacked", attacked, "")):
        accurate = (said["classes"] == crafted.labels).mean()
        lines.append(
            f"  {name:8} {accurate:6.1%} classified correctly, "
            f"median score {np.median(said['detection_score']):.2f}, "
            f"{said['is_adversarial'].mean():6.1%} flagged{note}"
        )
    return "\n".join(lines)


def adaptive_summary(labels: np.ndarray, ignorant: Answers, knowing: Answers) -> str:
    """One sentence on the attacker who knows of the detector, with what he achieves.

    Args:
        labels: `[n]`, the true classes.
        ignorant: the outputs of the signature `detect` for images of an attack that ignores it.
        knowing: the same for images of an attack that lowers the score as well.

    Returns:
        The sentence: it tells the share of the images that are wrong, and are not flagged.
    """
    unseen, before = (
        ((said["classes"] != labels) & ~said["is_adversarial"]).mean()
        for said in (knowing, ignorant)
    )
    return (
        "The score is no defense against an attacker who knows of it, and lowers it while fooling\n"
        f"the model: {unseen:.1%} of the images end up wrong and not flagged, against {before:.1%} "
        "with an attack\nthat ignores it."
    )
