from __future__ import annotations

import json

import pytest
from absl import flags

from keras_robust.experiments.flags import strategy_flags
from keras_robust.experiments.flags.strategy_flags import StrategyConfig

HOSTS = ["host0:2222", "host1:2222"]


def config(*arguments, **environment):
    values = flags.FlagValues()
    strategy_flags.define(values)
    values(["program", *arguments])
    return strategy_flags.strategy_config(values, environment)


def tf_config(cluster, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def test_one_device_unless_asked_for_more():
    assert config(TF_CONFIG="left by another program") == StrategyConfig()
    assert config("--strategy=mirrored") == StrategyConfig("mirrored")
    assert config("--strategy=mirrored", "--replicas=2") == StrategyConfig("mirrored", 2)


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "place"),
    [
        ({"worker": HOSTS}, "worker", 0, (2, 0)),
        ({"worker": HOSTS}, "worker", 1, (2, 1)),
        ({"chief": ["host9:1"], "worker": HOSTS}, "chief", 0, (3, 0)),
        ({"chief": ["host9:1"], "worker": HOSTS}, "worker", 1, (3, 2)),
    ],
)
def test_the_place_among_the_workers(cluster, kind, index, place):
    found = config("--strategy=multi_worker", **tf_config(cluster, kind, index))
    assert (found.workers, found.worker) == place


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "needs the variable TF_CONFIG, which lists all workers"),
        ({"TF_CONFIG": "{"}, "TF_CONFIG is invalid: Expecting property name"),
        ({"TF_CONFIG": "[]"}, "is invalid"),
        ({"TF_CONFIG": "{}"}, "'cluster' is missing"),
        (tf_config({"worker": "host0:2222"}), "its cluster.worker is 'host0:2222'"),
        (tf_config({"worker": ["host0"]}), r"its cluster.worker is \['host0'\]"),
        (tf_config({"worker": [HOSTS[0], HOSTS[0]]}), "an address twice"),
        (
            tf_config({"worker": HOSTS, "ps": ["host2:1"]}),
            "its cluster has ps; only chief and worker",
        ),
        (tf_config({"worker": HOSTS}, index=2), "its task is worker 2, of 2 in the cluster"),
        (tf_config({"worker": HOSTS}, "chief"), "its task is chief 0, of 0"),
        (tf_config({"worker": HOSTS}, "evaluator"), "its task is {'type': 'evaluator'"),
        (tf_config({"worker": HOSTS}, index="0"), "its task is"),
    ],
)
def test_a_cluster_that_cannot_be(environment, message):
    with pytest.raises(ValueError, match=message) as raised:
        config("--strategy=multi_worker", **environment)
    assert """TF_CONFIG='{"cluster": {"worker": ["host0:2222",""" in str(raised.value)


def test_the_example_is_valid():
    text = strategy_flags._EXAMPLE.removeprefix("TF_CONFIG='").removesuffix("'")
    assert config("--strategy=multi_worker", TF_CONFIG=text).workers == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--replicas=2"], "--replicas=2 needs --strategy=mirrored; the strategy is none"),
        (["--strategy=mirrored", "--replicas=0"], "--replicas is 0; expected"),
    ],
)
def test_flags_that_do_not_fit_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        config(*arguments)


def test_there_is_no_such_strategy():
    with pytest.raises(flags.Error, match="none.*mirrored.*multi_worker"):
        config("--strategy=tpu")
