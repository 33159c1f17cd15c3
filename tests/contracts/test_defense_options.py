"""Every defense takes the options of `RobustModel`, by name, and passes them on."""

from __future__ import annotations

import dataclasses
import inspect
from typing import get_type_hints

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.training.robust_model import model_options
from tests.contracts.defense_table import ENSEMBLES, KINDS, each

BALL = kr.LinfBall(0.1)
# Required arguments after the classifier and the ball.
REQUIRED = {
    "adr": {"base": "pgd_at"},
    "scl": {"augment": kr.data.shift_flip(0.3)},
    "udr": {"base": "trades"},
    "union": {"base": "pgd_at"},
}
BALLS = {"union": kr.UnionBall((BALL, kr.L2Ball(0.3)))}  # where it has to be one of a kind
OPTIONS = {
    "validation_attack": kr.attacks.fgsm(kr.LinfBall(0.03)),
    "crafting_mode": "train",
    "crafting_dtype": "bfloat16",
    "radius_warmup": 3,
    "radius_schedule": kr.training.RandomRadius(0.01, 0.05),
    "label_smoothing": 0.1,
    "mixing": kr.data.cutmix(0.5),
    "microbatches": 2,
    "weight_perturbation": kr.AWP(0.02),
    "seed": 11,
    "name": "hardened",
}
# Their losses need one label of an image, so that images cannot be mixed.
ONE_LABEL = ("adr", "ascl", "crown_ibp", "ibp", "sabr", "scl")
every_defense = pytest.mark.parametrize("name", kr.defenses.__all__)
# One of each kind by default: that an option reaches its model is tested of all.
every_kind = each(kr.defenses.__all__, KINDS)


@pytest.fixture
def build(make_classifier):
    def build(name, /, **options):
        classifier = make_classifier()
        if name in ENSEMBLES:
            classifier = kr.models.ensemble([make_classifier(seed=seed) for seed in range(2)])
        return getattr(kr.defenses, name)(
            classifier, BALLS.get(name, BALL), steps=2, **REQUIRED.get(name, {}), **options
        )

    return build


@dataclasses.dataclass(frozen=True)
class Counting(kr.Attack):
    """Blackens every image, and records the sizes of its batches."""

    calls: list[int]
    ball = kr.LinfBall(1.0)
    name = "counting"

    def craft(self, forward, x, y, seed, targets):
        self.calls.append(len(x))
        return tf.zeros_like(x)

    def at_radius(self, radius, step_size=None):
        return self


def test_the_table_has_every_option_and_type_checkers_know_them():
    hints = get_type_hints(kr.training.RobustModelOptions)
    assert [option.name for option in model_options()] == list(OPTIONS) == list(hints)


@every_defense
def test_signatures_show_every_option(name):
    shown = inspect.signature(getattr(kr.defenses, name)).parameters
    for option in model_options():
        assert shown[option.name] == option
    # A defense over another one passes on the options of its base too.
    passes_on = any(p.kind == p.VAR_KEYWORD for p in shown.values())
    assert passes_on == ("base" in shown)


@every_defense
def test_docstrings_describe_every_parameter_once(name):
    function = getattr(kr.defenses, name)
    sections = [section.partition("\n") for section in function.__doc__.split("\n\n")]
    (arguments,) = (body for title, _, body in sections if title == "Args:")
    described = [line.strip().strip("*").split(":")[0] for line in arguments.splitlines()
                 if line.startswith("    ") and line[4] != " "]  # fmt: skip
    assert described == list(inspect.signature(function).parameters)
    assert sum(title == "Returns:" for title, *_ in sections) == 1


@every_defense
def test_every_option_reaches_the_model(name, build):
    options = {k: v for k, v in OPTIONS.items() if k != "mixing" or name not in ONE_LABEL}
    model, plain = build(name, **options), build(name)
    for option, value in options.items():
        assert getattr(model, option) == value != getattr(plain, option), option
    assert model.attack == plain.attack and model.robust_loss == plain.robust_loss


@pytest.mark.parametrize("name", ONE_LABEL)
def test_a_loss_of_one_label_refuses_mixed_images(name, build):
    with pytest.raises(ValueError, match="a mixed image has two; expected mixing=None"):
        build(name, mixing=kr.data.mixup())


@every_kind
def test_validation_uses_the_validation_attack(name, build, make_batch):
    counting = Counting([])
    model = build(name, validation_attack=counting)
    model.compile("sgd", run_eagerly=True)
    logs = model.evaluate(*make_batch(6), batch_size=3, verbose=0, return_dict=True)
    assert counting.calls == [3, 3]
    x, y = make_batch(6)
    predicted = model(tf.zeros_like(x))["logits"].numpy().argmax(axis=1)
    assert logs["robust_accuracy"] == pytest.approx((predicted == y).mean())


@every_kind
def test_none_is_the_validation_attack_of_the_defense(name, build):
    assert build(name, validation_attack=None).validation_attack == build(name).validation_attack


@every_defense
def test_an_unknown_option_is_refused_before_anything_is_built(name):
    """The classifier would be refused too, later."""
    required = REQUIRED.get(name, {})
    with pytest.raises(TypeError, match=rf"{name}\(\) has no option 'sede'.* Did you mean 'seed'"):
        getattr(kr.defenses, name)("classifier", BALL, sede=1, **required)


def test_options_of_the_base_are_known():
    with pytest.raises(TypeError, match=r"udr\(\) has no option 'betta'.* Did you mean 'beta'"):
        kr.defenses.udr("classifier", BALL, base="trades", betta=1.0)
    with pytest.raises(TypeError, match=r"udr\(\) has no option 'tua'.* Did you mean 'tau'"):
        kr.defenses.udr("classifier", BALL, base=kr.defenses.trades, tua=1.0)


def test_a_base_may_be_a_function_that_is_not_a_declared_defense(make_classifier):
    def own(classifier, ball, *, strength=1.0, **options):
        return kr.defenses.pgd_at(classifier, ball, clean_weight=strength, **options)

    model = kr.defenses.udr(make_classifier(), BALL, base=own, strength=0.5, steps=1, seed=3)
    assert model.robust_loss == kr.losses.Adversarial(0.5) and model.seed == 3


def test_numbers_of_numpy_are_numbers(make_classifier):
    model = kr.defenses.trades(make_classifier(), BALL, beta=np.float32(6), seed=np.int64(2))
    assert model.robust_loss.beta == 6 and model.seed == 2


def test_a_name_is_declared_once():
    def trades(classifier, ball, **options):
        """Another defense of that name."""

    trades.__module__ = "elsewhere"
    with pytest.raises(ValueError, match=r"trades is defined twice: in .*trades and elsewhere"):
        kr.training.defense(trades)
