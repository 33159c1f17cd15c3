"""The embedded digits: 1,797 handwritten digits of 8 x 8 pixels from scikit-learn."""

from __future__ import annotations

import numpy as np

from keras_robust.data.splits import Arrays, Source

TEST_EXAMPLES = 360


def read() -> Source:
    """Reads the digits: real scans, with values 0, 1/16, ..., 1. Nothing is downloaded.

    Scikit-learn has no test set of them: `splits.stratified_split` holds out 360 examples, the same
    in every run.

    Returns:
        1,437 training and 360 test examples, `[8, 8, 1]`, of 10 classes.

    Example:
        >>> source = read()
        >>> len(source.train), len(source.test), source.train.images.shape[1:]
        (1437, 360, (8, 8, 1))

    Reference:
        Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
        Repository, 1998.
    """
    from sklearn.datasets import load_digits  # slow to import

    bunch = load_digits()
    images = (bunch.images / 16.0).astype(np.float32)[..., None]
    train, test = Arrays(images, bunch.target.astype(np.int32)).hold_out(TEST_EXAMPLES)
    return Source(
        name="scikit-learn load_digits",
        train=train,
        test=test,
        class_names=tuple(str(name) for name in bunch.target_names),
        test_split="held out of all examples",
    )
