"""`run.json`: the command, time, data, versions and outcome of each training session."""

from __future__ import annotations

import dataclasses
import datetime
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING

from keras_robust.core.atomic_files import write_json

if TYPE_CHECKING:
    from keras_robust.experiments.training.training_state import Training

_PACKAGES = ("keras_robust", "tensorflow", "keras", "numpy", "tensorflow-datasets")


@contextmanager
def session(training: Training, command: str) -> Iterator[None]:
    """Records a training session in `run.json`."""
    run, config, info = training.run, training.config, training.splits.info
    this = {
        "command": command,
        "first_epoch": len(training.progress.rows) + 1,
        "first_step": training.progress.step,
        "replicas": training.devices.replicas,
        "started": _now(),
        "ended": None,
        "state": "running",
    }
    before = run.facts().get("sessions", [])
    for earlier in before:
        if earlier["state"] == "running":
            earlier["state"] = "killed"  # it could not write its own end
    facts = {
        "recipe": config.name,
        "seed": config.seed,
        "data": dataclasses.asdict(info),
        "parameters": training.model.classifier.count_params(),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "system": platform.system(),
        "sessions": [*before, this],
    }
    write_json(run.run_file, facts)
    state = "failed"
    try:
        yield
        state = "finished"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        this.update(ended=_now(), state=state)
        write_json(run.run_file, facts)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
