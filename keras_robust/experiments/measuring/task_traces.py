"""Files and pictures of the steps of multi-task attacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import keras_robust as kr
from keras_robust.core.atomic_files import write_json, write_text
from keras_robust.evaluation.rendering.markdown import markdown_table
from keras_robust.experiments.measuring.attack_run import AttackedTestSet
from keras_robust.experiments.measuring.pictures import write_pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# More curves cannot be told apart; groups of more images are drawn by their first ones.
DRAWN_TASKS = 8


def write(directory: Path, attacked: Mapping[str, AttackedTestSet], command: str) -> None:
    """Writes the histories of attacks, and the gradients of their tasks at the end.

    `trace.json` contains the averages over the images, `gradients.md` the norms, weights and
    cosines at the end, `trace_NAME.png` the tasks of each attack, `trace.png` all attacks.

    Args:
        directory: the directory of the files.
        attacked: the traced results by name, such as that of the solver.
        command: the command of the user.
    """
    histories = {name: one.history for name, one in attacked.items() if one.history is not None}
    rows = {name: dataclasses.asdict(history) for name, history in histories.items()}
    write_json(directory / "trace.json", {"command": command, "attacks": rows})
    tables = [
        f"## {name}\n\n{markdown_table(one.gradients.table())}"
        for name, one in attacked.items()
        if one.gradients is not None
    ]
    head = "Gradients of the cross-entropy at the end of the attack, and the last weights"
    text = "\n\n".join([head, *tables, f"Command: `{command}`"])
    write_text(directory / "gradients.md", text + "\n")
    write_pictures(directory, _figures(histories))


def _figures(histories: Mapping[str, kr.evaluation.TaskHistory]) -> dict[str, Figure]:
    """The pictures by the names of their files."""
    figures = {}
    for name, history in histories.items():
        panels = {
            label: dict(list(curves.items())[:DRAWN_TASKS])
            for label, curves in history.curves().items()
        }
        figures[f"trace_{name.replace(':', '_').replace('/', '_')}"] = kr.plots.step_curves(panels)
    whole = {
        "Norm of the combined gradient": {n: h.combined_norms for n, h in histories.items()},
        "Success rate on all tasks": {n: h.all_tasks for n, h in histories.items()},
    }
    return {**figures, "trace": kr.plots.step_curves(whole)}
