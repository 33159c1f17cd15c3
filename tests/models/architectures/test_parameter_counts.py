"""Numbers of parameters against the published ones, each derived from the paper's table."""

from __future__ import annotations

import itertools
import math

import keras
import pytest

from keras_robust import models


@pytest.fixture(autouse=True)
def zeros(monkeypatch):
    """Initializes kernels to zero: only their number counts here, and random ones take time."""

    def call(self, shape, dtype=None):
        return keras.ops.zeros(shape, dtype)

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", call)


def trainable(model):
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def conv(size, inputs, outputs, bias=False):
    return size * size * inputs * outputs + (outputs if bias else 0)


def batch_norm(channels):
    return 2 * channels


def test_resnet18():
    """Stem, 4 stages of 2 basic blocks, dense: 11,173,962, the known figure of ResNet18 on CIFAR10.

    A block from a to b channels has conv 9ab, BN 2b, conv 9bb, BN 2b; where its shape changes (the
    first block of stages 2 to 4) also a 1x1 convolution ab and its BN 2b.
    """

    def block(a, b, changes):
        shortcut = conv(1, a, b) + batch_norm(b) if changes else 0
        return conv(3, a, b) + conv(3, b, b) + 2 * batch_norm(b) + shortcut

    count = conv(3, 3, 64) + batch_norm(64) + 512 * 10 + 10
    for a, b in [(64, 64), (64, 128), (128, 256), (256, 512)]:
        count += block(a, b, changes=a != b) + block(b, b, changes=False)
    assert count == 11_173_962
    assert trainable(models.resnet18((32, 32, 3), 10)) == count


def test_pre_act_resnet18():
    """As ResNet18, but a block from a to b channels normalizes before: BN 2a, conv, BN 2b, conv.

    The 1x1 shortcut has no BN, nor has the stem. That gives 11,171,146, the known figure of copies
    that stop there; the last BN of the paper adds 2 * 512: 11,172,170.
    """

    def block(a, b, changes):
        shortcut = conv(1, a, b) if changes else 0
        return batch_norm(a) + conv(3, a, b) + batch_norm(b) + conv(3, b, b) + shortcut

    count = conv(3, 3, 64) + 512 * 10 + 10
    for a, b in [(64, 64), (64, 128), (128, 256), (256, 512)]:
        count += block(a, b, changes=a != b) + block(b, b, changes=False)
    assert count == 11_171_146
    assert trainable(models.pre_act_resnet18((32, 32, 3), 10)) == count + batch_norm(512)
    assert trainable(models.pre_act_resnet18((32, 32, 3), 10, last_norm=False)) == count


def wide_resnet_count(depth, factor, classes):
    count, a = conv(3, 3, 16), 16
    for b in (16 * factor, 32 * factor, 64 * factor):
        for _ in range((depth - 4) // 6):
            shortcut = conv(1, a, b) if a != b else 0
            count += batch_norm(a) + conv(3, a, b) + batch_norm(b) + conv(3, b, b) + shortcut
            a = b
    return count + batch_norm(a) + a * classes + classes


def test_wrn_34_10():
    """Stem of 16, 3 stages of 5 blocks, 160, 320 and 640 filters, BN, dense: 46,160,474."""
    assert wide_resnet_count(34, 10, 10) == 46_160_474
    model = models.wrn_34_10((32, 32, 3), 10)
    assert trainable(model) == 46_160_474
    assert model.output["features"].shape == (None, 640)


@pytest.mark.parametrize(("depth", "factor"), [(10, 1), (16, 2), (22, 1)])
def test_other_wide_resnets(depth, factor):
    model = models.wide_resnet((32, 32, 3), 7, depth=depth, widen_factor=factor)
    assert trainable(model) == wide_resnet_count(depth, factor, 7)


def test_resnet20():
    """Stem, 3 stages of 3 blocks, 16, 32 and 64 filters, convolutions with bias: 273,066.

    Two 1x1 projections without BN (stages 2 and 3). With the moving statistics, 2 per normalized
    channel, 274,442: the figures of the Keras example whose network the thesis's code uses.
    """
    count = conv(3, 3, 16, bias=True) + batch_norm(16) + 64 * 10 + 10
    for a, b in [(16, 16), (16, 32), (32, 64)]:
        count += conv(3, a, b, bias=True) + 5 * conv(3, b, b, bias=True) + 6 * batch_norm(b)
        count += conv(1, a, b, bias=True) if a != b else 0
    assert count == 273_066
    model = models.resnet20((32, 32, 3), 10)
    assert trainable(model) == count
    assert model.count_params() == 274_442


def test_vgg16():
    """13 convolutions of 3x3 with bias, each with BN, and a dense layer: 14,728,266.

    The figure of copies for CIFAR10 with batch norm; 14,714,688 of it are the convolutions.
    """
    filters = (64, 64, 128, 128, 256, 256, 256, *(512,) * 6)
    pairs = list(zip((3, *filters), filters, strict=False))
    convolutions = sum(conv(3, a, b, bias=True) for a, b in pairs)
    assert convolutions == 14_714_688
    count = convolutions + sum(map(batch_norm, filters)) + 512 * 10 + 10
    assert count == 14_728_266
    assert trainable(models.vgg16((32, 32, 3), 10)) == count


def test_googlenet():
    """A 3x3 stem of 192 filters, 9 inception modules (table 1 of the paper), dense: 6,166,250.

    Every convolution has a bias and BN; a 5x5 is two 3x3. What a module gives is the sum of its
    four branches' filters, at the end 384 + 384 + 128 + 128 = 1024.
    """

    def unit(size, a, b):
        return conv(size, a, b, bias=True) + batch_norm(b)

    count, a = unit(3, 3, 192), 192
    for one, reduce_3, three, reduce_5, five, pool in [
        (64, 96, 128, 16, 32, 32),
        (128, 128, 192, 32, 96, 64),
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
        (256, 160, 320, 32, 128, 128),
        (384, 192, 384, 48, 128, 128),
    ]:
        count += unit(1, a, one) + unit(1, a, reduce_3) + unit(3, reduce_3, three)
        count += unit(1, a, reduce_5) + unit(3, reduce_5, five) + unit(3, five, five)
        count += unit(1, a, pool)
        a = one + three + five + pool
    assert a == 1024
    count += a * 10 + 10
    assert count == 6_166_250
    assert trainable(models.googlenet((32, 32, 3), 10)) == count


def test_mobilenet_v1():
    """Stem of 32, 13 pairs of depthwise (9 a) and 1x1 (a b), each with BN, dense: 3,217,226."""
    count, a = conv(3, 3, 32) + batch_norm(32), 32
    for b in (64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024):
        count += 9 * a + batch_norm(a) + conv(1, a, b) + batch_norm(b)
        a = b
    count += a * 10 + 10
    assert count == 3_217_226
    assert trainable(models.mobilenet_v1((32, 32, 3), 10)) == count


def test_efficientnet_b0():
    """Stem of 32, 16 inverted residual blocks, dense on 320 values: 3,598,598.

    A block from a to b channels with expansion e has h = e a hidden ones: a 1x1 to h and BN (where
    e > 1), a depthwise k k h and BN, squeeze and excitation over a / 4 with biases, a 1x1 to b and
    BN. Copies that make the first block's expansion of 1 as well, and never run it, have 32 * 32 +
    2 * 32 = 1,088 more: 3,599,686.
    """
    count, a = conv(3, 3, 32) + batch_norm(32), 32
    for blocks, e, b, k in [
        (1, 1, 16, 3),
        (2, 6, 24, 3),
        (2, 6, 40, 5),
        (3, 6, 80, 3),
        (3, 6, 112, 5),
        (4, 6, 192, 5),
        (1, 6, 320, 3),
    ]:
        for _ in range(blocks):
            h = e * a
            count += conv(1, a, h) + batch_norm(h) if e > 1 else 0
            count += k * k * h + batch_norm(h)
            count += conv(1, h, a // 4, bias=True) + conv(1, a // 4, h, bias=True)
            count += conv(1, h, b) + batch_norm(b)
            a = b
    count += a * 10 + 10
    assert count == 3_598_598 == 3_599_686 - 1_088
    assert trainable(models.efficientnet_b0((32, 32, 3), 10)) == count


def convnext_count(patch, classes):
    """Stem with a norm, 2, 2, 6 and 2 blocks, three 2x2 convolutions with a norm before, a norm.

    A block of a channels: 49 a + a depthwise, norm 2a, 1x1 a to 4a and back with biases, scale a.
    """

    def block(a):
        ends = conv(1, a, 4 * a, bias=True) + conv(1, 4 * a, a, bias=True)
        return 49 * a + a + 2 * a + ends + a

    filters = (40, 80, 160, 320)
    count = conv(patch, 3, 40, bias=True) + 2 * 40
    count += sum(depth * block(a) for depth, a in zip((2, 2, 6, 2), filters, strict=True))
    count += sum(2 * a + conv(2, a, b, bias=True) for a, b in itertools.pairwise(filters))
    return count + 2 * 320 + 320 * classes + classes


def test_convnext():
    """With patches of 4 pixels and 1,000 classes 3.7 M, the published size of Atto."""
    assert convnext_count(4, 1000) == 3_695_520
    assert convnext_count(2, 10) == 3_376_290
    assert trainable(models.convnext((32, 32, 3), 10)) == convnext_count(2, 10)


def vit_count(patch, tokens, dim, depth, classes):
    """Patches with bias, class token, positions, blocks of 12 d^2 + 13 d, a norm, dense.

    A block has two norms (4d), four projections of the attention (4 d^2 + 4 d), an MLP (8 d^2 + 5
    d).
    """
    count = conv(patch, 3, dim, bias=True) + dim + (tokens + 1) * dim
    return count + depth * (12 * dim**2 + 13 * dim) + 2 * dim + dim * classes + classes


def test_vit():
    """6 of the 12 blocks of DeiT-Ti, whose 5,717,416 parameters are well known."""
    assert vit_count(16, 196, 192, 12, 1000) == 5_717_416
    assert vit_count(4, 64, 192, 6, 10) == 2_693_578
    assert trainable(models.vit((32, 32, 3), 10)) == 2_693_578


@pytest.mark.slow
def test_deit_ti():
    model = models.vit((224, 224, 3), 1000, patch=16, depth=12)
    assert trainable(model) == 5_717_416


@pytest.mark.parametrize(
    ("shape", "classes", "flat", "stages", "dense"),
    [
        # 28 - 4 = 24, pool 12, - 4 = 8, pool 4: 4 * 4 * 64 = 1024.
        ((28, 28, 1), 10, 1024, ((32, 32), (64, 64)), (200, 200)),
        # 32 - 4 = 28, pool 14, - 4 = 10, pool 5: 5 * 5 * 128 = 3200.
        ((32, 32, 3), 10, 3200, ((64, 64), (128, 128)), (256, 256)),
        # 32 - 6 = 26, pool 13, - 6 = 7, pool 3: 3 * 3 * 128 = 1152.
        ((32, 32, 3), 100, 1152, ((64,) * 3, (128,) * 3), (256, 256, 256)),
    ],
    ids=["mnist", "cifar10", "cifar100"],
)
def test_small_cnn(shape, classes, flat, stages, dense):
    """The thesis's table, by hand: 3x3 valid convolutions with bias, 2x2 pools, dense layers."""
    count, channels = 0, shape[-1]
    for filters in [f for stage in stages for f in stage]:
        count += conv(3, channels, filters, bias=True)
        channels = filters
    units = flat
    for layer in (*dense, classes):
        count += units * layer + layer
        units = layer
    model = models.small_cnn(shape, classes)
    assert model.get_layer("flatten").output.shape == (None, flat)
    assert trainable(model) == count == model.count_params()
