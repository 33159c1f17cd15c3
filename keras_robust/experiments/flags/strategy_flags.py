"""`--strategy`: the devices of a training, checked before TensorFlow starts."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from absl import flags

from keras_robust.core.validation import check_integer

STRATEGIES = ("none", "mirrored", "multi_worker")
_EXAMPLE = (
    """TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222"]}, """
    """"task": {"type": "worker", "index": 0}}'"""
)


@dataclasses.dataclass(frozen=True)
class StrategyConfig:
    """The devices that the flags choose.

    Args:
        strategy: one of `STRATEGIES`.
        replicas: number of replicas of `"mirrored"`; None for one on each GPU.
        workers: number of processes of `"multi_worker"`.
        worker: index of this process, from 0.
    """

    strategy: str = "none"
    replicas: int | None = None
    workers: int = 1
    worker: int = 0


def define(values: flags.FlagValues) -> None:
    """Declares the flags."""
    flags.DEFINE_enum(
        "strategy",
        "none",
        STRATEGIES,
        "Devices of the training. none: one device. mirrored: all GPUs of this machine. "
        "multi_worker: this process is one of several, which TF_CONFIG lists. Each batch is "
        "divided among them.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "replicas",
        None,
        "Number of GPUs of --strategy=mirrored; without a GPU, of logical CPU devices.",
        flag_values=values,
    )


def strategy_config(
    values: flags.FlagValues, environment: Mapping[str, str] = os.environ
) -> StrategyConfig:
    """The devices that the parsed flags and TF_CONFIG choose.

    Args:
        values: the parsed flags.
        environment: the environment variables.

    Raises:
        ValueError: incompatible flags; a missing or invalid TF_CONFIG.
    """
    if values.replicas is not None:
        if values.strategy != "mirrored":
            raise ValueError(
                f"--replicas={values.replicas} needs --strategy=mirrored; the strategy is "
                f"{values.strategy}."
            )
        check_integer("--replicas", values.replicas, 1)
    if values.strategy != "multi_worker":
        return StrategyConfig(values.strategy, values.replicas)
    text = environment.get("TF_CONFIG")
    if not text:
        raise ValueError(
            "--strategy=multi_worker needs the variable TF_CONFIG, which lists all workers and "
            f"gives the index of this process: {_EXAMPLE}"
        )
    try:
        workers, worker = _position(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"TF_CONFIG is invalid: {reason}. Expected: {_EXAMPLE}") from None
    return StrategyConfig("multi_worker", None, workers, worker)


def as_flags(config: StrategyConfig) -> list[str]:
    """The flags that choose a strategy.

    Example:
        >>> as_flags(StrategyConfig("mirrored", 2)), as_flags(StrategyConfig())
        (['--strategy=mirrored', '--replicas=2'], [])
    """
    strategy = [] if config.strategy == "none" else [f"--strategy={config.strategy}"]
    return strategy + ([] if config.replicas is None else [f"--replicas={config.replicas}"])


def _position(document: Any) -> tuple[int, int]:
    """The number of workers, and the index of this one."""
    cluster, task = document["cluster"], document["task"]
    others = set(cluster) - {"chief", "worker"}
    if others:
        names = ", ".join(sorted(others))
        raise ValueError(f"its cluster has {names}; only chief and worker are valid")
    addresses = {kind: cluster.get(kind, []) for kind in ("chief", "worker")}
    for kind, listed in addresses.items():
        if not isinstance(listed, list) or not all(map(_is_address, listed)):
            raise ValueError(f"its cluster.{kind} is {listed!r}, not a list of host:port")
    every = [*addresses["chief"], *addresses["worker"]]
    if len(set(every)) != len(every) or len(addresses["chief"]) > 1:
        raise ValueError("its cluster has an address twice, or several chiefs")
    kind, index = task["type"], task["index"]
    if kind not in addresses or not isinstance(index, int):
        raise ValueError(f"its task is {task!r}")
    if not 0 <= index < len(addresses[kind]):
        raise ValueError(f"its task is {kind} {index}, of {len(addresses[kind])} in the cluster")
    return len(every), index + (len(addresses["chief"]) if kind == "worker" else 0)


def _is_address(address: Any) -> bool:
    return isinstance(address, str) and address.rpartition(":")[2].isdigit() and address[0] != ":"
