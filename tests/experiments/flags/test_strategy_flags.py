from __future__ import annotations

import json

import pytest
from absl import flags

from keras_robust.experiments.flags import strategy_flags
from keras_robust.experiments.flags.strategy_flags import StrategyConfig

HOSTS = ["host0:2222", "host1:2222"]


def wanted(*arguments, **environment):
    values = flags.FlagValues()
    strategy_flags.define(values)
    values(["program", *arguments])
    return strategy_flags.strategy_config(values, environment)


def told(cluster, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def test_one_device_unless_asked_for_more():
    assert wanted(TF_CONFIG="left by another program") == StrategyConfig()
    assert wanted("--strategy=mirrored") == StrategyConfig("mirrored")
    assert wanted("--strategy=mirrored", "--replicas=2") == StrategyConfig("mirrored", 2)


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
    found = wanted("--strategy=multi_worker", **told(cluster, kind, index))
    assert (found.workers, found.worker) == place


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "needs the variable TF_CONFIG, which lists all workers"),
        ({"TF_CONFIG": "{"}, "TF_CONFIG is invalid: Expecting property name"),
        ({"TF_CONFIG": "[]"}, "is invalid"),
        ({"TF_CONFIG": "{}"}, "'cluster' is missing"),
        (told({"worker": "host0:2222"}), "its cluster.worker is 'host0:2222'"),
        (told({"worker": ["host0"]}), r"its cluster.worker is \['host0'\]"),
        (told({"worker": [HOSTS[0], HOSTS[0]]}), "an address twice"),
        (told({"worker": HOSTS, "ps": ["host2:1"]}), "its cluster has ps; only chief and worker"),
        (told({"worker": HOSTS}, index=2), "its task is worker 2, of 2 in the cluster"),
        (told({"worker": HOSTS}, "chief"), "its task is chief 0, of 0"),
        (told({"worker": HOSTS}, "evaluator"), "its task is {'type': 'evaluator'"),
        (told({"worker": HOSTS}, index="0"), "its task is"),
    ],
)
def test_a_cluster_that_cannot_be(environment, message):
    with pytest.raises(ValueError, match=message) as raised:
        wanted("--strategy=multi_worker", **environment)
    assert """TF_CONFIG='{"cluster": {"worker": ["host0:2222",""" in str(raised.value)


def test_the_example_is_one():
    text = strategy_flags._EXAMPLE.removeprefix("TF_CONFIG='").removesuffix("'")
    assert wanted("--strategy=multi_worker", TF_CONFIG=text).workers == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--replicas=2"], "--replicas=2 needs --strategy=mirrored; the strategy is none"),
        (["--strategy=mirrored", "--replicas=0"], "--replicas is 0; expected"),
    ],
)
def test_flags_that_do_not_fit_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        wanted(*arguments)


def test_there_is_no_such_strategy():
    with pytest.raises(flags.Error, match="none.*mirrored.*multi_worker"):
        wanted("--strategy=tpu")
