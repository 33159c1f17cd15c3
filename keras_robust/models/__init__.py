"""Classifiers: the architectures of the thesis, ensembles, and `adapt` for your own Keras model.

Each is a built functional `keras.Model` that takes images `[batch, height, width, channels]` in
[0, 1] and returns `{"logits": [batch, classes], "features": [batch, d]}`. `build` describes the
arguments that the architectures share. `smoothed` is no Keras model: it certifies a classifier by
randomized smoothing. `load` loads the trained models that are part of the package,
`load_torch` those of PyTorch. `predictions` returns probabilities as a plain array.
"""

from keras_robust.models.adapting.adapt import adapt
from keras_robust.models.adapting.backbone import backbone, preprocessing
from keras_robust.models.adapting.trainable_parts import set_trainable
from keras_robust.models.architectures.convnext import convnext
from keras_robust.models.architectures.efficientnet import efficientnet_b0
from keras_robust.models.architectures.googlenet import googlenet
from keras_robust.models.architectures.mlp import mlp
from keras_robust.models.architectures.mobilenet import mobilenet_v1
from keras_robust.models.architectures.resnet_cifar import pre_act_resnet18, resnet18, resnet20
from keras_robust.models.architectures.small_cnn import small_cnn
from keras_robust.models.architectures.strided_cnn import strided_cnn
from keras_robust.models.architectures.vgg import vgg16
from keras_robust.models.architectures.vit import vit
from keras_robust.models.architectures.wide_resnet import wide_resnet, wrn_34_10
from keras_robust.models.ensemble import ensemble
from keras_robust.models.predicting import predictions
from keras_robust.models.pytorch.torch_weights import load_torch
from keras_robust.models.registry import ARCHITECTURES, build
from keras_robust.models.smoothed import smoothed
from keras_robust.models.straight_through import straight_through
from keras_robust.models.zoo import available, card_file, load

__all__ = [
    "ARCHITECTURES",
    "adapt",
    "available",
    "backbone",
    "build",
    "card_file",
    "convnext",
    "efficientnet_b0",
    "ensemble",
    "googlenet",
    "load",
    "load_torch",
    "mlp",
    "mobilenet_v1",
    "pre_act_resnet18",
    "predictions",
    "preprocessing",
    "resnet18",
    "resnet20",
    "set_trainable",
    "small_cnn",
    "smoothed",
    "straight_through",
    "strided_cnn",
    "vgg16",
    "vit",
    "wide_resnet",
    "wrn_34_10",
]


def __dir__() -> list[str]:
    return __all__
