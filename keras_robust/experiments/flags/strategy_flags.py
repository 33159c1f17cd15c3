"""`--strategy`: what a training runs on, checked before TensorFlow starts."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from absl import flags

STRATEGIES = ("none", "mirrored", "multi_worker")
_EXAMPLE = (
    """TF_CONFIG='{"cluster": {"worker": ["host0:2222", "host1:2222"]}, """
    """"task": {"type": "worker", "index": 0}}'"""
)


@dataclasses.dataclass(frozen=True)
class StrategyConfig:
    """What the user asked for.

    Args:
        strategy: one of `STRATEGIES`.
        replicas: of `"mirrored"`: how many; None for one on each GPU.
        workers: of `"multi_worker"`: how many processes there are.
        worker: the number of this one, from 0.
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
        "none: one device. mirrored: all GPUs of this machine. multi_worker: this process is one "
        "of several, which TF_CONFIG names. Each batch is divided among them.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "replicas",
        None,
        "With --strategy=mirrored, use so many GPUs; without a GPU, divide the processor.",
        flag_values=values,
    )


def strategy_config(
    values: flags.FlagValues, environment: Mapping[str, str] = os.environ
) -> StrategyConfig:
    """What the parsed flags and TF_CONFIG ask for.

    Args:
        values: the parsed flags.
        environment: the variables of the environment.

    Returns:
        What to train on.

    Raises:
        ValueError: flags that do not fit together; no TF_CONFIG, or one that cannot be.
    """
    if values.replicas is not None:
        if values.strategy != "mirrored":
            raise ValueError(
                f"--replicas={values.replicas} is for --strategy=mirrored, and the strategy is "
                f"{values.strategy}."
            )
        if values.replicas < 1:
            raise ValueError(f"--replicas is {values.replicas}; expected a whole number >= 1.")
    if values.strategy != "multi_worker":
        return StrategyConfig(values.strategy, values.replicas)
    text = environment.get("TF_CONFIG")
    if not text:
        raise ValueError(
            "--strategy=multi_worker needs the variable TF_CONFIG, which names all workers and "
            f"says which of them this process is: {_EXAMPLE}"
        )
    try:
        workers, worker = _place(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"TF_CONFIG cannot be used: {reason}. Expected: {_EXAMPLE}") from None
    return StrategyConfig("multi_worker", None, workers, worker)


def typed(config: StrategyConfig) -> list[str]:
    """The flags that give a strategy.

    Example:
        >>> typed(StrategyConfig("mirrored", 2)), typed(StrategyConfig())
        (['--strategy=mirrored', '--replicas=2'], [])
    """
    strategy = [] if config.strategy == "none" else [f"--strategy={config.strategy}"]
    return strategy + ([] if config.replicas is None else [f"--replicas={config.replicas}"])


def _place(document: Any) -> tuple[int, int]:
    """How many workers there are, and which of them this is."""
    cluster, task = document["cluster"], document["task"]
    others = set(cluster) - {"chief", "worker"}
    if others:
        raise ValueError(f"its cluster has {', '.join(sorted(others))}, where workers are expected")
    addresses = {kind: cluster.get(kind, []) for kind in ("chief", "worker")}
    for kind, listed in addresses.items():
        if not isinstance(listed, list) or not all(map(_is_address, listed)):
            raise ValueError(f"its cluster.{kind} is {listed!r}, where host:port are expected")
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
