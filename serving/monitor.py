"""Watches a model server: detection metrics and alarms, for TensorFlow Serving too.

    python -m serving.monitor --server=localhost:8501 --port=8502 --model_base_path=exported/digits

is `keras-robust monitor`: a proxy that reads the answers of a model server, or the reader of a log
of requests.
"""

from __future__ import annotations

from absl import flags

from keras_robust.cli.monitor import define_flags, run
from keras_robust.experiments.flags import command_line

PROGRAM = "serving.monitor"


def main(_: list[str]) -> None:
    """Watches until SIGTERM or SIGINT; with --nofollow, prints what a log holds."""
    if text := run(flags.FLAGS):
        print(text)


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
