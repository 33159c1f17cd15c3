"""The pre-activation residual network for small images: PreActResNet18."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_robust.models import blocks
from keras_robust.models.building import PerChannel, checked_image_shape, classifier, image_input


def pre_act_resnet18(
    input_shape: Sequence[int],
    classes: int,
    width: float = 1.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> keras.Model:
    """PreActResNet18: a 3x3 stem, four stages of two pre-activation blocks, 64 to 512 filters.

    The features are the globally pooled output of the last batch norm and relu, 512 values.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        width: factor on every number of filters; 1.0 is the published network.
        mean: subtracted from the images, a number or one per channel, in units of [0, 1].
        std: the images are then divided by it, a number or one per channel.

    Returns:
        A functional model `images -> {"logits": [batch, classes], "features": [batch, 512]}`.

    Raises:
        ValueError: for a shape, width or number of classes that cannot be built.

    Example:
        >>> model = pre_act_resnet18((8, 8, 1), classes=10, width=0.125)
        >>> model(keras.ops.ones((2, 8, 8, 1)))["features"].shape
        TensorShape([2, 64])

    Reference:
        He et al., Identity mappings in deep residual networks, ECCV 2016, figure 1b.
    """
    inputs, x = image_input(checked_image_shape(input_shape), classes, mean, std)
    x = blocks.convolution(x, blocks.scaled(64, width), "stem_conv")
    for stage, filters in enumerate((64, 128, 256, 512), start=1):
        for block in (1, 2):
            stride = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            x = blocks.pre_activation_block(x, blocks.scaled(filters, width), stride, name)
    # Differs: some copies of this network pool the last sum as it is (11,171,146 parameters); the
    # paper normalises and rectifies it first (11,172,170), because nothing else would.
    x = blocks.relu(blocks.batch_norm(x, "last_bn"), "last_relu")
    return classifier(inputs, blocks.pooled(x), classes)
