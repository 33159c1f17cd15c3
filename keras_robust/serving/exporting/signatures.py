"""The signatures of a served model, as functions that `keras.export.ExportArchive` traces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import keras
import tensorflow as tf

from keras_robust.core.classifier import classifier_of
from keras_robust.core.validation import lookup
from keras_robust.detection import Detector
from keras_robust.detection.calibration import exceeds

Outputs = dict[str, tf.Tensor]
Endpoint = tuple[Callable[[tf.Tensor], Outputs], tf.TensorSpec]

# Outputs, one row per image: name -> dtype.
CLASSIFICATION = {"probabilities": tf.float32, "classes": tf.int64}
DETECTION = {"detection_score": tf.float32, "is_adversarial": tf.bool}
CERTIFICATION = {"certified": tf.bool}
MEMBERS = {"member_probabilities": tf.float32}  # ensembles only, in every signature
OUTPUTS = {
    "serving_default": CLASSIFICATION,
    "detect": {**CLASSIFICATION, **DETECTION},
    "serving_bytes": CLASSIFICATION,
    "detect_bytes": {**CLASSIFICATION, **DETECTION},
    "certify": {**CLASSIFICATION, **CERTIFICATION},  # of versions with bounds
}
INPUTS = {
    "serving_default": "images",
    "detect": "images",
    "serving_bytes": "image_bytes",
    "detect_bytes": "image_bytes",
}
# Outputs that an export can leave out of all answers: they help who attacks over the network.
WITHHOLDABLE = (*DETECTION, *MEMBERS)
CERTIFY_INPUTS = ("images", "radius")
# A few kilobytes of PNG can unpack to gigabytes; images of classifiers are smaller than this.
MAX_PIXELS = 2**24


def signatures_of(certifies: bool) -> dict[str, tuple[str, ...]]:
    """The signatures of a version: name -> names of the inputs.

    Args:
        certifies: whether the version has bounds.

    Example:
        >>> signatures_of(certifies=True)["certify"]
        ('images', 'radius')
    """
    signatures: dict[str, tuple[str, ...]] = {name: (key,) for name, key in INPUTS.items()}
    if certifies:
        signatures["certify"] = CERTIFY_INPUTS
    return signatures


def check_withheld(names: Iterable[str]) -> tuple[str, ...]:
    """The outputs to leave out of answers, without duplicates.

    Raises:
        ValueError: another output.

    Example:
        >>> check_withheld(["is_adversarial", "is_adversarial"])
        ('is_adversarial',)
    """
    names = tuple(dict.fromkeys(names))
    for name in names:
        lookup("output to withhold", name, WITHHOLDABLE)
    return names


def exportable_classifier(model: keras.Model) -> keras.Model:
    """The classifier inside a `RobustModel`, or the model itself if it is a classifier.

    Raises:
        TypeError: neither of the two.
    """
    classifier = classifier_of(model)
    if not isinstance(classifier, keras.Model):
        raise TypeError(
            f"export_model was given {type(model).__name__}; expected a RobustModel or a "
            "classifier: a built functional keras.Model that returns {'logits', 'features'}."
        )
    outputs = getattr(classifier, "output", None)
    if not isinstance(outputs, dict) or "logits" not in outputs:
        raise TypeError(
            f"The classifier {classifier.name!r} is not a built functional model that returns a "
            "dictionary with 'logits'; wrap your own with `keras_robust.models.adapt(model)`."
        )
    return classifier


def image_shape(classifier: keras.Model) -> tuple[int, int, int]:
    """The input shape `(height, width, channels)` of a built functional classifier.

    Raises:
        ValueError: the model does not have one image input of known size with 1 or 3 channels.
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
            "model also takes PNG and JPEG files, so expected 1 (gray) or 3 (RGB)."
        )
    return shape


def endpoints(
    classifier: keras.Model, detector: Detector, threshold: tf.Variable
) -> dict[str, Endpoint]:
    """Builds the four signatures of a classifier and its detector.

    Args:
        classifier: a built functional model `images -> {"logits", "features"}`.
        detector: computes the score, from those outputs or from further ones.
        threshold: scalar; images with a larger score are flagged.

    Returns:
        `{signature: (function, input spec)}`.
    """
    shape = image_shape(classifier)
    images = tf.TensorSpec([None, *shape], tf.float32, name="images")
    image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")

    def forward(x: tf.Tensor) -> Outputs:
        return classifier(x, training=False)

    def classify(x: tf.Tensor) -> Outputs:
        return classification(forward(validate_images(x)))

    def detect(x: tf.Tensor) -> Outputs:
        outputs, score = detector.outputs_and_score(validate_images(x), forward)
        detection = {"detection_score": score, "is_adversarial": exceeds(score, threshold)}
        return {**classification(outputs), **detection}

    return {
        "serving_default": (classify, images),
        "detect": (detect, images),
        "serving_bytes": (lambda x: classify(decode_images(x, shape)), image_bytes),
        "detect_bytes": (lambda x: detect(decode_images(x, shape)), image_bytes),
    }


def classification(outputs: Mapping[str, tf.Tensor]) -> Outputs:
    """Probabilities and classes, and the members' probabilities of an ensemble."""
    logits = tf.cast(outputs["logits"], tf.float32)
    answer = {"probabilities": tf.nn.softmax(logits), "classes": tf.argmax(logits, axis=-1)}
    if "member_logits" in outputs:
        members = tf.cast(outputs["member_logits"], tf.float32)
        answer["member_probabilities"] = tf.nn.softmax(members)
    return answer


def without(function: Callable[..., Outputs], withheld: Iterable[str]) -> Callable[..., Outputs]:
    """The function of a signature without some of its outputs."""
    kept_out = frozenset(withheld)

    def answer(*inputs: tf.Tensor) -> Outputs:
        return {name: one for name, one in function(*inputs).items() if name not in kept_out}

    return answer


def validate_images(images: tf.Tensor) -> tf.Tensor:
    """Returns the images; an invalid batch fails with INVALID_ARGUMENT and a message.

    The checks are part of the graph, so that every server makes them.
    """
    low, high = tf.reduce_min(images), tf.reduce_max(images)
    is_nan = tf.math.is_nan(images)
    outside = tf.reduce_any((images < 0) | (images > 1))
    checks = [
        require(
            tf.shape(images)[0] > 0, "images is an empty batch; expected at least one image", ()
        ),
        require(
            ~tf.reduce_any(is_nan),
            "images must lie in [0, 1]; received {} values that are NaN",
            (tf.math.count_nonzero(is_nan),),
        ),
        require(
            ~outside,
            "images must lie in [0, 1]; received values from {} to {}; divide 8-bit images by 255",
            (low, high),
        ),
    ]
    # The classifier depends on the checked copy: no optimizer can drop the checks or run it first.
    with tf.control_dependencies(checks):
        return tf.identity(images)


def decode_images(image_bytes: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Decodes PNG and JPEG files to images in [0, 1].

    Converts between gray and RGB, drops transparency, reduces 16 bits to 8, and resizes files of
    another size (bilinear, antialiased, without keeping the aspect ratio). CMYK becomes RGB, and is
    refused by a model of gray images. EXIF data, such as an orientation, is ignored.

    Args:
        image_bytes: `[batch]` strings, each the content of one file.
        shape: height, width and channels of the result.

    Returns:
        `[batch, height, width, channels]` float32.
    """

    def one(content: tf.Tensor) -> tf.Tensor:
        return _resized(_pixels(content, shape[2]), shape) / 255.0

    return tf.map_fn(one, image_bytes, fn_output_signature=tf.TensorSpec(shape, tf.float32))


def _pixels(content: tf.Tensor, channels: int) -> tf.Tensor:
    is_png = tf.strings.substr(content, 0, 8) == b"\x89PNG\r\n\x1a\n"
    is_jpeg = tf.strings.substr(content, 0, 3) == b"\xff\xd8\xff"
    known = require(
        is_png | is_jpeg,
        "image_bytes must hold PNG or JPEG files; received {} bytes of another format",
        (tf.strings.length(content),),
    )
    with tf.control_dependencies([known]):
        size = tf.cond(is_png, lambda: _png_size(content), lambda: _jpeg_size(content, channels))
    small_enough = require(
        tf.reduce_prod(size) <= MAX_PIXELS,
        f"an image of image_bytes must have at most {MAX_PIXELS} pixels; received {{}} x {{}}",
        (size[0], size[1]),
    )
    with tf.control_dependencies([small_enough]):
        pixels = tf.io.decode_image(content, channels=channels, expand_animations=False)
    return tf.ensure_shape(pixels, [None, None, channels])


def _png_size(content: tf.Tensor) -> tf.Tensor:
    complete = require(
        tf.strings.length(content) >= 24,
        "image_bytes holds a PNG file truncated in its header, after {} bytes",
        (tf.strings.length(content),),
    )
    with tf.control_dependencies([complete]):
        header = tf.strings.substr(content, 16, 8)
    width_height = tf.io.decode_raw(header, tf.int32, little_endian=False)
    return tf.cast(tf.ensure_shape(width_height, [2]), tf.int64)[::-1]


def _jpeg_size(content: tf.Tensor, channels: int) -> tf.Tensor:
    shape = tf.image.extract_jpeg_shape(content, output_type=tf.int64)
    readable = require(
        # TensorFlow turns CMYK into RGB, but not into gray.
        (shape[2] != 4) | (channels == 3),
        "image_bytes holds a JPEG file in CMYK ({} channels), which this model of gray images "
        "cannot read; convert the file to gray or RGB",
        (shape[2],),
    )
    with tf.control_dependencies([readable]):
        return tf.identity(shape[:2])


def _resized(pixels: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    size = shape[:2]

    def resize() -> tf.Tensor:
        resized = tf.image.resize(pixels, size, method="bilinear", antialias=True)
        # The interpolation weights of a pixel sum to 1 only within rounding.
        return tf.clip_by_value(resized, 0.0, 255.0)

    same_size = tf.reduce_all(tf.shape(pixels)[:2] == tf.constant(size))
    image = tf.cond(same_size, lambda: tf.cast(pixels, tf.float32), resize)
    return tf.ensure_shape(image, shape)


def require(condition: tf.Tensor, message: str, values: tuple[tf.Tensor, ...]) -> tf.Operation:
    """An operation that fails with INVALID_ARGUMENT and a message, `{}` standing for values."""
    text = tf.strings.format(message, values) if values else tf.constant(message)
    return tf.debugging.Assert(condition, [text])
