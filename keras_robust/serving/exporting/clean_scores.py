"""The detection scores of clean images, which a version holds for the alarm of its stream."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from keras_robust.core.bounded_files import open_arrays

CLEAN_SCORES_FILE = "clean_scores.npy"
LEAST = 20
MOST = 50_000
_HEAD_BYTES = 4096  # more than the head of any file of this kind


def check_clean_scores(scores: npt.ArrayLike) -> np.ndarray:
    """Returns scores as `[n]` float64.

    Raises:
        ValueError: too few scores, or scores that are not finite.

    Example:
        >>> check_clean_scores(range(20)).shape
        (20,)
    """
    clean = np.asarray(scores, np.float64)
    if clean.ndim != 1 or len(clean) < LEAST or not np.isfinite(clean).all():
        raise ValueError(
            f"clean_scores has shape {clean.shape}; expected at least {LEAST} finite numbers, "
            "one per clean image, such as `detector.score_dataset(validation)`."
        )
    return clean


def write_clean_scores(version_dir: str | os.PathLike[str], scores: npt.ArrayLike) -> Path:
    """Writes the scores into a version directory; of more than 50,000, every second, third, ...

    Returns:
        The file written.

    Raises:
        ValueError: too few scores, or scores that are not finite.
    """
    clean = check_clean_scores(scores)
    clean = clean[:: -(-len(clean) // MOST)]
    path = Path(version_dir) / "assets.extra" / CLEAN_SCORES_FILE
    path.parent.mkdir(exist_ok=True)
    np.save(path, clean.astype(np.float32), allow_pickle=False)
    return path


def find_clean_scores(version_dir: str | os.PathLike[str]) -> np.ndarray | None:
    """The scores that a version holds; None if it has none.

    Raises:
        ValueError: the file is damaged or too large.
    """
    path = Path(version_dir) / "assets.extra" / CLEAN_SCORES_FILE
    return read_clean_scores(path) if path.is_file() else None


def read_clean_scores(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads scores from an `.npy` file: `[n]` numbers, at least 20 and at most 50,000.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or too large, or holds something else.
    """
    size, most = os.path.getsize(path), 8 * MOST + _HEAD_BYTES
    if size > most:
        raise ValueError(
            f"{path} has {size} bytes; expected at most {MOST} scores of clean images, which take "
            f"{most} bytes."
        )
    try:
        return check_clean_scores(open_arrays(path))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} does not hold the scores of clean images ({error}); expected what "
            "`numpy.save(path, detector.score_dataset(validation))` writes."
        ) from error
