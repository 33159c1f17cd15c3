"""The flags of the alarm and of the log of requests."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from keras_robust.serving.metrics.telemetry import Monitoring


def define_alarm(values: flags.FlagValues) -> None:
    """Declares the flags of the alarm of detection scores."""
    flags.DEFINE_float(
        "alarm_every",
        1_000_000,
        "Alarm of the detection scores: clean images until a false alarm, on average at least.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "clean_scores",
        None,
        "File .npy of clean images' detection scores, by default those that each version holds.",
        flag_values=values,
    )


def define_log(values: flags.FlagValues) -> None:
    """Declares the flags of the metrics and of the log of requests."""
    flags.DEFINE_bool(
        "metrics", True, "Serve metrics at /metrics, in Prometheus' format.", flag_values=values
    )
    flags.DEFINE_string(
        "request_log", None, "File to which requests are appended as JSON.", flag_values=values
    )
    flags.DEFINE_float(
        "request_log_sampling_rate",
        1.0,
        "Share of the requests that are logged.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "request_log_images", False, "Log the images of the requests too.", flag_values=values
    )
    flags.DEFINE_float(
        "request_log_max_mb",
        100.0,
        "MiB after which the log begins anew; the one before is kept.",
        flag_values=values,
    )


def monitoring(values: flags.FlagValues) -> Monitoring:
    """What the flags say; those of the log are the server's alone."""
    from keras_robust.serving.metrics.telemetry import Monitoring

    alarm = Monitoring(alarm_every=values.alarm_every, clean_scores=values.clean_scores)
    if "metrics" not in values:
        return alarm
    return dataclasses.replace(
        alarm,
        metrics=values.metrics,
        request_log=values.request_log,
        sampling_rate=values.request_log_sampling_rate,
        log_images=values.request_log_images,
        log_max_mb=values.request_log_max_mb,
    )
