"""Suppresses the log lines of TensorFlow's start, and its warnings in one thread."""

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
    """Silences standard error while TensorFlow is imported, unless TF_CPP_MIN_LOG_LEVEL is 0 or 1.

    TensorFlow logs lines before any setting of its log applies, so this redirects the file
    descriptor. For programs only: the descriptor belongs to the whole process.
    """
    if os.environ.setdefault(LEVEL, "2") in ("0", "1"):  # the user wants to read the log
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)


@contextlib.contextmanager
def quiet_logger(name: str = "tensorflow") -> Iterator[None]:
    """Drops this thread's records below ERROR from a logger; other threads are not affected."""
    thread = threading.get_ident()
    logger = logging.getLogger(name)

    def keep(record: logging.LogRecord) -> bool:
        return record.thread != thread or record.levelno >= logging.ERROR

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
