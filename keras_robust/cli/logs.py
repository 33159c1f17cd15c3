"""The log of commands that run for long, on standard error."""

from __future__ import annotations

import logging

LOGGER = logging.getLogger("keras_robust.serving")


def log_to_stderr() -> None:
    """Sends the log of `keras_robust.serving` to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
