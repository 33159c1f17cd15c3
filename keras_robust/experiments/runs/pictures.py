"""Figures as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_robust.core.atomic_files import replacing


def write_pictures(directory: Path, figures: Mapping[str, Any], prefix: str = "") -> None:
    """Writes figures as PNG files that are either whole or not there.

    Args:
        directory: made if it is not there.
        figures: name -> a figure of matplotlib.
        prefix: what each file's name begins with.
    """
    from keras_robust.plots import to_png  # TensorFlow takes seconds, and other files need none

    for name, figure in figures.items():
        with replacing(directory / f"{prefix}{name}.png") as draft:
            draft.write_bytes(to_png(figure, dpi=120))
