"""The embedded model server: TensorFlow Serving's interfaces for small deployments.

    python -m serving.serve --model_name=digits --model_base_path=exported/digits

implements TensorFlow Serving's PredictionService and ModelService over gRPC, and its REST paths. In
production use TensorFlow Serving itself (`serving/tf_serving/`); clients work with both.
"""

from __future__ import annotations

from absl import flags

from keras_robust.cli.serve import define_flags, run
from keras_robust.experiments.flags import command_line

PROGRAM = "serving.serve"


def main(_: list[str]) -> None:
    """Serves until SIGTERM or SIGINT."""
    run(flags.FLAGS)


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
