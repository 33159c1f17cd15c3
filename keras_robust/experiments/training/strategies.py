"""From what the user asked for to a strategy of `tf.distribute`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from keras_robust.experiments.flags.strategy_flags import StrategyConfig
from keras_robust.experiments.training.devices import Devices

_GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


def make(wanted: StrategyConfig) -> Devices:
    """What to train on; to be called before anything else has woken TensorFlow's devices.

    With several workers it waits until all of them are there.

    Args:
        wanted: what was asked for.

    Returns:
        The strategy, and the part that this process has in it.

    Raises:
        ValueError: there are not as many devices, or it is too late to divide the processor.
    """
    if wanted.strategy == "mirrored":
        return Devices(_mirrored(wanted.replicas))
    if wanted.strategy == "multi_worker":
        communication = tf.distribute.experimental.CommunicationImplementation
        # On GPUs TensorFlow chooses; on processors it would as well, and warns that it has to.
        kind = communication.AUTO if tf.config.list_physical_devices("GPU") else communication.RING
        options = tf.distribute.experimental.CommunicationOptions(implementation=kind)
        strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
        return Devices(strategy, wanted.workers, wanted.worker)
    return Devices()


def _mirrored(replicas: int | None) -> tf.distribute.Strategy:
    graphics = len(tf.config.list_physical_devices("GPU"))
    if graphics:
        if (replicas or 1) > graphics:
            raise ValueError(f"--replicas is {replicas}, and there are {graphics} GPUs here.")
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(replicas or graphics)])
    count = replicas or 1
    processor = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            processor, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError:
        raise ValueError(
            f"The processor cannot be divided into {count} any more: TensorFlow has started to use "
            "it. Make the strategy before anything else."
        ) from None
    # The default works on processors only once in a process, and for one step at a time.
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(count)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


@contextlib.contextmanager
def workers_lost(devices: Devices) -> Iterator[None]:
    """Says in one sentence that another worker is gone, which TensorFlow says in many.

    Args:
        devices: on what is trained.

    Raises:
        ConnectionError: another worker is gone.
    """
    try:
        yield
    except _GONE as error:
        if devices.workers == 1:
            raise
        raise ConnectionError(
            f"Another worker is gone, so worker {devices.worker} of {devices.workers} ends as "
            "well. Start all workers again with the same command and --resume."
        ) from error
