"""Blocks of the networks, where a number can be derived by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_robust.models.architectures import blocks


@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("kernel", [1, 3])
def test_stride_two_looks_at_every_other_pixel_from_the_first(kernel, size):
    """With a kernel that is 1 at its center, stride 2 gives x[::2, ::2].

    So the 3x3 convolution and the 1x1 shortcut are aligned, as with PyTorch's padding of
    one pixel on both sides; Keras's "same" would give x[1::2, 1::2] for the 3x3 on even sizes.
    """
    image = keras.Input((size, size, 1))
    model = keras.Model(image, blocks.convolution(image, 1, "conv", size=kernel, stride=2))
    center = np.zeros((kernel, kernel, 1, 1), "float32")
    center[kernel // 2, kernel // 2] = 1
    model.get_layer("conv").kernel.assign(center)
    x = np.random.default_rng(0).uniform(size=(2, size, size, 1)).astype("float32")
    np.testing.assert_array_equal(model(x), x[:, ::2, ::2])


@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("kernel", [3, 5])
def test_a_depthwise_convolution_of_stride_two_is_aligned_too(kernel, size):
    """And each channel is by itself: kernels with 1 and 2 at their centers give x and 2 x."""
    image = keras.Input((size, size, 2))
    model = keras.Model(image, blocks.depthwise(image, "conv", size=kernel, stride=2))
    center = np.zeros((kernel, kernel, 2, 1), "float32")
    center[kernel // 2, kernel // 2, :, 0] = 1, 2
    model.get_layer("conv").set_weights([center])
    x = np.random.default_rng(0).uniform(size=(2, size, size, 2)).astype("float32")
    np.testing.assert_array_equal(model(x), x[:, ::2, ::2] * [1, 2])


def test_a_depthwise_convolution_starts_with_the_variance_of_its_own_inputs():
    """2 / 9 for a 3x3 kernel, whatever the number of channels."""
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 4096))
    model = keras.Model(image, blocks.depthwise(image, "conv"))
    np.testing.assert_allclose(np.var(model.get_weights()[0]), 2 / 9, rtol=0.02)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [4, 5])
def test_a_max_pool_looks_around_every_pixel_it_keeps(stride, size):
    x = np.random.default_rng(0).uniform(size=(1, size, size, 1)).astype("float32")
    image = keras.Input((size, size, 1))
    found = keras.Model(image, blocks.max_pool(image, "pool", stride))(x)
    around = [
        [x[0, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].max() for j in range(0, size, stride)]
        for i in range(0, size, stride)
    ]
    np.testing.assert_array_equal(found[0, :, :, 0], around)


@pytest.mark.parametrize("block", [blocks.basic_block, blocks.pre_activation_block])
def test_a_block_whose_last_scale_is_zero_is_its_shortcut(block):
    """With its branch switched off a block returns its input (relu of it, in the basic block)."""
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, block(image, 3, 1, "block"))
    last = "block_bn2" if block is blocks.basic_block else "block_conv2"
    layer = model.get_layer(last)
    for weight in layer.trainable_weights:
        weight.assign(np.zeros(weight.shape))
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    expected = np.maximum(x, 0) if block is blocks.basic_block else x
    np.testing.assert_array_equal(model(x, training=False), expected)


@pytest.mark.parametrize(
    ("block", "names"),
    [
        (blocks.basic_block, {"block_shortcut", "block_shortcut_bn"}),
        (blocks.pre_activation_block, {"block_shortcut"}),
    ],
)
@pytest.mark.parametrize(("filters", "stride"), [(4, 1), (3, 2), (4, 2)])
def test_a_convolution_in_the_shortcut_where_the_shape_changes(block, names, filters, stride):
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, block(image, filters, stride, "block"))
    assert {layer.name for layer in model.layers if "shortcut" in layer.name} == names
    assert model.output_shape == (None, 4 // stride, 4 // stride, filters)


def test_batch_norm_has_the_published_settings():
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, blocks.batch_norm(image, "bn"))
    layer = model.get_layer("bn")
    assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)


def test_strided_convolutions_pad_all_sides_or_the_end():
    """A kernel of ones counts how many windows hold pixel (1, 1).

    They begin at -1 and 1 where all sides are padded, at 0 and 2 where the end is.
    """
    image = keras.Input((4, 4, 1))
    found, x = {}, np.zeros((1, 4, 4, 1), "float32")
    x[0, 1, 1] = 1
    for padding in blocks.PADDINGS:
        y = blocks.convolution(image, 1, "conv", 3, 2, "ones", padding=padding)
        found[padding] = keras.Model(image, y)(x)[0, :, :, 0].numpy().tolist()
    assert found == {"symmetric": [[1, 1], [1, 1]], "same": [[1, 0], [0, 0]]}


@pytest.mark.parametrize("field", ["shortcut", "padding"])
def test_unknown_settings_are_refused(field):
    settings = blocks.PreActivation(**{field: "valid"})
    with pytest.raises(ValueError, match=f"{field} is 'valid'; expected one of '"):
        blocks.pre_activation_block(keras.Input((4, 4, 3)), 4, 2, "block", settings)
