"""Creates the `tf.distribute` strategy that the flags choose."""

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


def make(config: StrategyConfig) -> Devices:
    """Creates the strategy; call it before TensorFlow's devices are initialized.

    With several workers it waits until all of them have started.

    Args:
        config: the devices that the flags choose.

    Returns:
        The strategy, and the position of this process in it.

    Raises:
        ValueError: too few devices, or TensorFlow's devices are already initialized.
    """
    if config.strategy == "mirrored":
        return Devices(_mirrored(config.replicas))
    if config.strategy == "multi_worker":
        communication = tf.distribute.experimental.CommunicationImplementation
        # AUTO works on CPUs as well, but logs a warning.
        kind = communication.AUTO if tf.config.list_physical_devices("GPU") else communication.RING
        options = tf.distribute.experimental.CommunicationOptions(implementation=kind)
        strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
        return Devices(strategy, config.workers, config.worker)
    return Devices()


def _mirrored(replicas: int | None) -> tf.distribute.Strategy:
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        if (replicas or 1) > gpus:
            raise ValueError(f"--replicas is {replicas}; this machine has {gpus} GPUs.")
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(replicas or gpus)])
    count = replicas or 1
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError:
        raise ValueError(
            f"Cannot create {count} logical CPU devices: TensorFlow is already initialized. Create "
            "the strategy before anything else."
        ) from None
    # On CPUs the default works only once per process, and for one step per execution.
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(count)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


@contextlib.contextmanager
def workers_lost(devices: Devices) -> Iterator[None]:
    """Turns TensorFlow's errors about a lost worker into a one-line `ConnectionError`.

    Raises:
        ConnectionError: another worker has ended.
    """
    try:
        yield
    except _GONE as error:
        if devices.workers == 1:
            raise
        raise ConnectionError(
            f"Another worker has ended, so worker {devices.worker} of {devices.workers} ends as "
            "well. Start all workers again with the same command and --resume."
        ) from error
