"""Speed of PGD, compared with the gradients that it needs and with other libraries.

The lower bound is the same number of forward passes and input gradients in one compiled function.
ART, Foolbox and CleverHans craft with the same model, ball, step size and number of steps in the
same process; a library that is not installed is skipped.

    python benchmarks/attack_throughput.py --net=small_cnn
    python benchmarks/attack_throughput.py --net=resnet20
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # The root, for the packages: `serving` is a benchmark in this directory.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from keras_robust.core.quiet_tensorflow import quiet_start

    with quiet_start():
        import tensorflow as tf

        tf.config.list_logical_devices()

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from absl import app, flags, logging

import keras_robust as kr
from benchmarks import baselines, gradients, report, timing

OURS, HALF = "keras_robust", "keras_robust, bfloat16"
BOUND, CALLS = "lower bound", "lower bound, one by one"
# Random starts: the increase of the mean loss by one attack was seen to vary by 8 %.
STRENGTH = 0.1


class Net(NamedTuple):
    """A model, the batch and radius of the attack, and the targets."""

    title: str
    shape: tuple[int, int, int]
    batch: int
    radius: float
    bfloat16: report.Target | None
    baselines: dict[str, report.Target]


NETS = {
    "small_cnn": Net(
        "MNIST CNN",
        (28, 28, 1),
        128,
        0.3,
        report.Target(0.4),
        {"ART": report.Target(2.5, least=True), "Foolbox": report.Target(2.2, least=True)},
    ),
    "resnet20": Net(
        "ResNet20",
        (32, 32, 3),
        64,
        8 / 255,
        None,
        {"ART": report.Target(3.3, least=True), "Foolbox": report.Target(3.3, least=True)},
    ),
}


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of the program."""
    flags.DEFINE_enum("net", "small_cnn", list(NETS), "Model to attack.", flag_values=values)
    for name, default, text in (
        ("steps", 20, "Number of steps of PGD."),
        ("batch_size", None, "Images per batch; by default 128 for small_cnn, 64 for resnet20."),
        ("repeats", 15, "Rounds of the library and the lower bound."),
        ("baseline_repeats", 5, "Rounds of the library and the other libraries."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=1, flag_values=values)


def run(values: flags.FlagValues = flags.FLAGS) -> list[report.Row]:
    """Runs the benchmark; returns the rows to print."""
    net, steps = NETS[values.net], values.steps
    batch = values.batch_size or net.batch
    keras.utils.set_random_seed(0)
    classifier = kr.models.build(values.net, net.shape, 10)
    x = tf.random.stateless_uniform([batch, *net.shape], [0, 0])
    y = tf.random.stateless_uniform([batch], [0, 1], 0, 10, tf.int64)
    attack = kr.attacks.pgd(kr.LinfBall(net.radius), steps)
    compiled = attack.compiled(classifier)
    crafters = {OURS: lambda: compiled(x, y), HALF: half_precision(classifier, attack, x, y)}
    bound = lower_bound(classifier, tf.random.stateless_uniform([steps, *x.shape], [0, 2]), y)
    times = timing.interleaved({**bound, **crafters}, values.repeats)

    logits = keras.Model(classifier.input, classifier.output["logits"])
    task = baselines.Task(logits, x, y, net.radius, attack.step_rule.size, steps)
    others = dict(baselines.installed(task))
    gains = check_strength(task, {**crafters, **others})
    work = {OURS: crafters[OURS], **others}
    baseline_times = timing.interleaved(work, values.baseline_repeats, warm_ups=1)

    def row(name: str, to: str, table: dict[str, list[float]], target: Any = None) -> report.Row:
        speed = f"{batch / statistics.median(table[name]):.0f} images/s"
        reached = f", loss +{gains[name]:.3g}" if name in gains else ""
        what = f"PGD-{steps}, {net.title}, batch {batch}: time of {name} / {to}"
        return report.Row(what, timing.ratio(table[name], table[to]), target, speed + reached)

    return [
        row(OURS, BOUND, times, report.Target(1.03)),
        row(HALF, BOUND, times, net.bfloat16),
        row(CALLS, BOUND, times),
        *(row(name, OURS, baseline_times, net.baselines.get(name)) for name in others),
        report.Row(
            f"PGD-{steps}, {net.title}: traces over 3 batches, 3 radii and 3 seeds",
            traces(classifier, attack, batch),
            report.Target(1),
        ),
    ]


def lower_bound(classifier: keras.Model, points: tf.Tensor, y: tf.Tensor) -> dict[str, Callable]:
    """The gradients alone: in one compiled function, and in one call for each."""
    chained = gradients.chained(classifier)
    single = tf.function(gradients.input_gradient(classifier), autograph=False)
    apart = tf.unstack(points)
    return {
        BOUND: lambda: chained(points, y),
        CALLS: lambda: [single(x, y) for x in apart],
    }


def half_precision(
    classifier: keras.Model, attack: kr.Attack, x: tf.Tensor, y: tf.Tensor
) -> Callable[[], tf.Tensor]:
    """Crafting as in a training with `crafting_dtype="bfloat16"`."""
    loss = kr.losses.Adversarial()
    model = kr.RobustModel(classifier, attack, loss, crafting_dtype="bfloat16")
    craft = tf.function(model.craft, autograph=False)
    return lambda: craft(x, y)


def check_strength(task: baselines.Task, crafters: dict[str, Callable]) -> dict[str, float]:
    """The increase of the mean loss by each implementation.

    Raises:
        RuntimeError: an implementation is weaker or stronger than the others, or leaves the ball.
    """

    def loss(x: tf.Tensor) -> float:
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(task.y, task.logits(x))
        return float(tf.reduce_mean(tf.cast(each, tf.float64)))

    clean, gains = loss(task.x), {}
    for name, craft in crafters.items():
        x_adv = tf.convert_to_tensor(craft())
        moved = float(tf.reduce_max(tf.abs(x_adv - task.x)))
        gains[name] = loss(x_adv) - clean
        if not 0.9 * task.radius < moved < 1.001 * task.radius:
            raise RuntimeError(f"{name} moved a pixel by {moved}; the radius is {task.radius}.")
    usual = statistics.median(gains.values())
    if any(abs(gain / usual - 1) > STRENGTH for gain in gains.values()):
        raise RuntimeError(f"Increases of the loss differ by more than {STRENGTH:.0%}: {gains}.")
    return gains


def traces(classifier: keras.Model, attack: kr.Attack, batch: int) -> int:
    """Number of traces of a compiled attack over batches, radii and seeds."""
    compiled = attack.compiled(classifier)
    for number, radius in enumerate((0.01, 0.02, tf.constant(0.03))):
        x = tf.random.stateless_uniform([batch, *classifier.input_shape[1:]], [number, 0])
        compiled(x, tf.fill([batch], number), seed=number, radius=radius)
    return compiled.traces()


def main(_: list[str]) -> None:
    """Prints the table."""
    logging.set_verbosity(logging.WARNING)
    report.show(run(), "attack_throughput")


if __name__ == "__main__":
    define_flags()
    app.run(main)
