"""The signatures of a served model, as functions that `keras.export.ExportArchive` traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_robust.detection import Detector
from keras_robust.detection.calibration import exceeds

Answers = dict[str, tf.Tensor]
Endpoint = tuple[Callable[[tf.Tensor], Answers], tf.TensorSpec]

# Outputs, one for each image: name -> dtype.
CLASSIFICATION = {"probabilities": tf.float32, "classes": tf.int64}
DETECTION = {"detection_score": tf.float32, "is_adversarial": tf.bool}
MEMBERS = {"member_probabilities": tf.float32}  # of ensembles, in every signature
OUTPUTS = {
    "serving_default": CLASSIFICATION,
    "detect": {**CLASSIFICATION, **DETECTION},
    "serving_bytes": CLASSIFICATION,
    "detect_bytes": {**CLASSIFICATION, **DETECTION},
}
INPUTS = {
    "serving_default": "images",
    "detect": "images",
    "serving_bytes": "image_bytes",
    "detect_bytes": "image_bytes",
}
# A few kilobytes of PNG can unpack to gigabytes; nothing that a classifier sees is this large.
MAX_PIXELS = 2**24


def classifier_of(model: Any) -> keras.Model:
    """The classifier inside a `RobustModel`, or the model itself if it is a classifier.

    Raises:
        TypeError: when it is neither.
    """
    classifier = getattr(model, "classifier", model)
    if not isinstance(classifier, keras.Model):
        raise TypeError(
            f"export_model was given {type(model).__name__}; expected a RobustModel or a "
            "classifier, that is a built functional keras.Model that gives {'logits', 'features'}."
        )
    outputs = getattr(classifier, "output", None)
    if not isinstance(outputs, dict) or "logits" not in outputs:
        raise TypeError(
            f"The classifier {classifier.name!r} is not a built functional model that gives a "
            "dictionary with 'logits'; wrap your own with `keras_robust.models.adapt(model)`."
        )
    return classifier


def image_shape(classifier: keras.Model) -> tuple[int, int, int]:
    """Height, width and channels of the images that a classifier takes.

    Args:
        classifier: a built functional model with one image input.

    Returns:
        `(height, width, channels)`.

    Raises:
        ValueError: when it has another kind of input, or one that no PNG or JPEG can fill.
    """
    inputs = getattr(classifier, "inputs", None) or []
    shape = tuple(inputs[0].shape[1:]) if len(inputs) == 1 else None
    if shape is None or len(shape) != 3 or None in shape:
        raise ValueError(
            f"The classifier {classifier.name!r} has inputs {[tuple(i.shape) for i in inputs]}; "
            "expected a built functional model with one input of shape "
            "(None, height, width, channels), all but the batch known."
        )
    if shape[2] not in (1, 3):
        raise ValueError(
            f"The classifier {classifier.name!r} takes images of {shape[2]} channels; a served "
            "model also takes PNG and JPEG files, so expected 1 (grey) or 3 (RGB)."
        )
    return shape


def endpoints(
    classifier: keras.Model, detector: Detector, threshold: tf.Variable
) -> dict[str, Endpoint]:
    """The four signatures of a classifier and a detector.

    Args:
        classifier: a built functional model `images -> {"logits", "features"}`.
        detector: gives the score of those outputs.
        threshold: the scalar that the score is compared with.

    Returns:
        `{signature: (function, what it takes)}`.
    """
    shape = image_shape(classifier)
    images = tf.TensorSpec([None, *shape], tf.float32, name="images")
    image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")

    def classify(x: tf.Tensor) -> Answers:
        return _classification(classifier(checked(x), training=False))

    def detect(x: tf.Tensor) -> Answers:
        outputs = classifier(checked(x), training=False)
        score = detector.score_outputs(outputs)
        detection = {"detection_score": score, "is_adversarial": exceeds(score, threshold)}
        return {**_classification(outputs), **detection}

    return {
        "serving_default": (classify, images),
        "detect": (detect, images),
        "serving_bytes": (lambda x: classify(decoded(x, shape)), image_bytes),
        "detect_bytes": (lambda x: detect(decoded(x, shape)), image_bytes),
    }


def _classification(outputs: dict[str, Any]) -> Answers:
    logits = tf.cast(outputs["logits"], tf.float32)
    answers = {"probabilities": tf.nn.softmax(logits), "classes": tf.argmax(logits, axis=-1)}
    if "member_logits" in outputs:
        members = tf.cast(outputs["member_logits"], tf.float32)
        answers["member_probabilities"] = tf.nn.softmax(members)
    return answers


def checked(images: tf.Tensor) -> tf.Tensor:
    """The same images, or an INVALID_ARGUMENT that says what is wrong with them.

    The checks are part of the graph, so that every server makes them.
    """
    low, high = tf.reduce_min(images), tf.reduce_max(images)
    not_numbers = tf.math.is_nan(images)
    outside = tf.reduce_any((images < 0) | (images > 1))
    wanted = "divide 8-bit images by 255"
    checks = [
        _require(tf.shape(images)[0] > 0, "images holds no image; expected at least one", ()),
        _require(
            ~tf.reduce_any(not_numbers),
            "images must lie in [0, 1]; received {} values that are not numbers (NaN)",
            (tf.math.count_nonzero(not_numbers),),
        ),
        _require(
            ~outside,
            "images must lie in [0, 1]; received values from {} to {}; " + wanted,
            (low, high),
        ),
    ]
    # The classifier hangs on the checked copy: no optimizer can drop the checks or run it first.
    with tf.control_dependencies(checks):
        return tf.identity(images)


def decoded(image_bytes: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """PNG or JPEG files as images in [0, 1].

    Grey is repeated into RGB, RGB is turned into grey, transparency is dropped, 16 bits become 8.
    A file of another size is resized (bilinear, with antialiasing, the aspect ratio not kept).

    Args:
        image_bytes: `[batch]` strings, each the content of one file.
        shape: height, width and channels to give.

    Returns:
        `[batch, height, width, channels]` float32.
    """

    def one(content: tf.Tensor) -> tf.Tensor:
        return _resized(_pixels(content, shape[2]), shape) / 255.0

    return tf.map_fn(one, image_bytes, fn_output_signature=tf.TensorSpec(shape, tf.float32))


def _pixels(content: tf.Tensor, channels: int) -> tf.Tensor:
    is_png = tf.strings.substr(content, 0, 8) == b"\x89PNG\r\n\x1a\n"
    is_jpeg = tf.strings.substr(content, 0, 3) == b"\xff\xd8\xff"
    known = _require(
        is_png | is_jpeg,
        "image_bytes must hold PNG or JPEG files; received {} bytes that begin like neither",
        (tf.strings.length(content),),
    )
    with tf.control_dependencies([known]):
        size = tf.cond(is_png, lambda: _png_size(content), lambda: _jpeg_size(content))
    small = _require(
        tf.reduce_prod(size) <= MAX_PIXELS,
        f"an image of image_bytes must have at most {MAX_PIXELS} pixels; received {{}} x {{}}",
        (size[0], size[1]),
    )
    with tf.control_dependencies([small]):
        pixels = tf.io.decode_image(content, channels=channels, expand_animations=False)
    return tf.ensure_shape(pixels, [None, None, channels])


def _png_size(content: tf.Tensor) -> tf.Tensor:
    whole = _require(
        tf.strings.length(content) >= 24,
        "image_bytes holds a PNG file that ends within its header, after {} bytes",
        (tf.strings.length(content),),
    )
    with tf.control_dependencies([whole]):
        header = tf.strings.substr(content, 16, 8)
    width_height = tf.io.decode_raw(header, tf.int32, little_endian=False)
    return tf.cast(tf.ensure_shape(width_height, [2]), tf.int64)[::-1]


def _jpeg_size(content: tf.Tensor) -> tf.Tensor:
    return tf.image.extract_jpeg_shape(content, output_type=tf.int64)[:2]


def _resized(pixels: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    size = shape[:2]

    def resize() -> tf.Tensor:
        resized = tf.image.resize(pixels, size, method="bilinear", antialias=True)
        # The weights of a pixel add up to 1 only within rounding.
        return tf.clip_by_value(resized, 0.0, 255.0)

    right = tf.reduce_all(tf.shape(pixels)[:2] == tf.constant(size))
    image = tf.cond(right, lambda: tf.cast(pixels, tf.float32), resize)
    return tf.ensure_shape(image, shape)


def _require(condition: tf.Tensor, sentence: str, values: tuple[tf.Tensor, ...]) -> tf.Operation:
    message = tf.strings.format(sentence, values) if values else tf.constant(sentence)
    return tf.debugging.Assert(condition, [message])
