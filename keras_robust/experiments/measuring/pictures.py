"""Figures written as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from keras_robust.core.atomic_files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_pictures(directory: Path, figures: Mapping[str, Figure], prefix: str = "") -> None:
    """Writes figures as PNG files, each atomically.

    Args:
        directory: created if it does not exist.
        figures: name -> a matplotlib figure.
        prefix: start of each file name.
    """
    from keras_robust.plots import to_png  # here, as it imports TensorFlow

    for name, figure in figures.items():
        with replacing(directory / f"{prefix}{name}.png") as draft:
            draft.write_bytes(to_png(figure, dpi=120))
