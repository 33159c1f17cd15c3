"""Queries a model server about images.

    python -m serving.query --server=localhost:8500 --model=digits --images=a.png,b.png

prints the class, its probability, the detection score and the verdict for each image; for an
ensemble also each member's class and probability, as in `7 (0.98), 1 (0.55)`. Images are PNG or
JPEG files, or arrays in `.npy` and `.npz` files: floats in [0, 1], `[height, width, channels]` or
`[batch, height, width, channels]`. --class_names=exported/digits, or names, adds their names. With
--tls, the environment variable SERVING_TOKEN is the token for a proxy that requires one.
"""

from __future__ import annotations

from absl import flags

from keras_robust.cli.query import define_flags, run
from keras_robust.experiments.flags import command_line

PROGRAM = "serving.query"


def main(_: list[str]) -> None:
    """Runs the program."""
    print(run(flags.FLAGS))


if __name__ == "__main__":
    command_line.start(PROGRAM, main, define_flags)
