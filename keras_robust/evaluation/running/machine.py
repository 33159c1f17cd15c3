"""The machine and the time of an evaluation, as text for its report."""

from __future__ import annotations

import datetime
import os
import platform

import tensorflow as tf


def hardware() -> str:
    """The processors of this machine that TensorFlow sees.

    Example:
        >>> hardware().split(" CPU core")[0].isdecimal()
        True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{cores} CPU core{'s' * (cores != 1)} ({platform.machine()}, {platform.system()})"
    names: dict[str, int] = {}
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        name = str(details.get("device_name", "GPU"))
        names[name] = names.get(name, 0) + 1
    return ", ".join([text, *(f"{count} x {name}" for name, count in names.items())])


def now() -> str:
    """The time in UTC, to the minute.

    Example:
        >>> now().endswith(" UTC")
        True
    """
    return f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
