"""Starts TensorFlow without the lines that it prints on every start."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator

LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Silences standard error while TensorFlow is imported; whoever set the level hears everything.

    No setting hides what TensorFlow writes before its log is ready, hence the file descriptor. For
    programs only: the descriptor belongs to the whole process.
    """
    if LEVEL in os.environ:
        yield
        return
    os.environ[LEVEL] = "2"
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def quiet_logger(name: str = "tensorflow") -> Iterator[None]:
    """Drops what this thread sends below ERROR to a logger; other threads are not affected."""
    thread = threading.get_ident()
    logger = logging.getLogger(name)

    def wanted(record: logging.LogRecord) -> bool:
        return record.thread != thread or record.levelno >= logging.ERROR

    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)
