"""Architectures by name."""

from __future__ import annotations

import pytest

from keras_robust import models
from keras_robust.models.registry import architecture


def test_options_reach_the_builder():
    model = models.build("mlp", [8, 8, 1], 3, hidden=[7], mean=0.5)
    assert model.get_layer("fc1").units == 7
    assert model.get_layer("logits").units == 3
    assert model.get_layer("normalization")


def test_names():
    assert set(models.ARCHITECTURES) == {
        *("mlp", "small_cnn", "strided_cnn", "resnet20", "resnet18", "pre_act_resnet18"),
        *("wide_resnet", "wrn_34_10", "vgg16", "googlenet", "mobilenet_v1", "efficientnet_b0"),
        *("convnext", "vit", "backbone", "ensemble"),
    }


@pytest.mark.parametrize(
    ("former", "name"),
    [
        ("google_net", "googlenet"),
        ("mobile_net", "mobilenet_v1"),
        ("efficient_net", "efficientnet_b0"),
    ],
)
def test_names_of_release_0_1(former, name):
    assert former not in models.ARCHITECTURES
    assert architecture(former) is architecture(name) is models.ARCHITECTURES[name]


def test_an_architecture_of_release_0_1_is_built_by_its_former_name():
    model = models.build("mobile_net", (8, 8, 1), 10, width=0.05)
    assert model.get_layer("pair13_point_relu")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet_18", "no architecture 'resnet_18'; expected one of mlp, .*mean 'resnet18'"),
        ("WRN-34-10", "expected one of mlp, small_cnn"),
        (None, "expected one of mlp, small_cnn"),
    ],
)
def test_unknown_name(name, text):
    with pytest.raises(ValueError, match=text):
        models.build(name, (8, 8, 1), 10)


@pytest.mark.parametrize(
    ("name", "option", "text"),
    [
        (
            "resnet18",
            "widht",
            "no option 'widht'; expected one of width, mean, std, activation. Did you mean 'width'",
        ),
        ("wrn_34_10", "depth", "no option 'depth'; expected one of dropout, mean, std"),
        ("mlp", "classes", "no option 'classes'|multiple values"),
    ],
)
def test_unknown_option(name, option, text):
    with pytest.raises(TypeError, match=text):
        models.build(name, (8, 8, 1), 10, **{option: 1})
