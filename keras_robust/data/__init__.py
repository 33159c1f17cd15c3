"""Data pipelines: float images in [0, 1] and integer labels, in a reproducible, resumable order.

`load` goes from a name to `(train, validation, test)`. `digits` and `toy` (points in the plane) are
embedded; any other name is that of an image classification dataset in TensorFlow Datasets. For your
own images, `from_arrays`, `from_directory` and `from_tfds` give the same splits; below them are
`training_epochs` (for a plain `fit`), `training_stream` (from any step on) and
`evaluation_batches`. `pad_crop_flip`, `shift_flip` and `random_erasing` make augmentations, `chain`
joins them; any function `(image, seed) -> image` is one. `mixup` and `cutmix` mix the images of a
batch in training.
"""

from __future__ import annotations

from keras_robust.data.augmentation import (
    Augmentation,
    Chain,
    PadCropFlip,
    RandomErasing,
    ShiftFlip,
    chain,
    pad_crop_flip,
    random_erasing,
    shift_flip,
)
from keras_robust.data.extra import ExtraImages, extra_images
from keras_robust.data.loader import DatasetInfo, Splits, load
from keras_robust.data.mixing import CutMix, Mixing, MixUp, cutmix, mixup
from keras_robust.data.own_data import from_arrays, from_directory, from_tfds
from keras_robust.data.pipelines import evaluation_batches, training_epochs, training_stream

__all__ = [
    "Augmentation",
    "Chain",
    "CutMix",
    "DatasetInfo",
    "ExtraImages",
    "MixUp",
    "Mixing",
    "PadCropFlip",
    "RandomErasing",
    "ShiftFlip",
    "Splits",
    "chain",
    "cutmix",
    "evaluation_batches",
    "extra_images",
    "from_arrays",
    "from_directory",
    "from_tfds",
    "load",
    "mixup",
    "pad_crop_flip",
    "random_erasing",
    "shift_flip",
    "training_epochs",
    "training_stream",
]


def __dir__() -> list[str]:
    return __all__
