"""Classifiers on backbones of `keras.applications`, with random weights: their pixels, their parts,
and how they are fine-tuned.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.evaluation.running.model_warnings import range_warnings
from keras_robust.models import backbone, set_trainable
from keras_robust.models.adapting.backbone import APPLICATIONS, _prepared
from keras_robust.models.building import is_classifier

A = keras.applications
# One application of each kind of pixels, and its module, which has `preprocess_input`.
MODULES = {
    "MobileNetV2": A.mobilenet_v2,
    "ResNet50V2": A.resnet_v2,
    "InceptionV3": A.inception_v3,
    "Xception": A.xception,
    "NASNetMobile": A.nasnet,
    "MobileNet": A.mobilenet,
    "InceptionResNetV2": A.inception_resnet_v2,
    "DenseNet121": A.densenet,
    "ResNet50": A.resnet,
    "VGG16": A.vgg16,
    "VGG19": A.vgg19,
    "MobileNetV3Small": A.mobilenet_v3,
    "EfficientNetB0": A.efficientnet,
    "EfficientNetV2B0": A.efficientnet_v2,
    "ConvNeXtTiny": A.convnext,
}
SMALL = {"application": "MobileNet", "options": {"alpha": 0.25}}


def images(shape=(32, 32, 3), count=4):
    return np.random.default_rng(0).uniform(size=(count, *shape)).astype("float32")


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(0)
    return backbone((32, 32, 3), 5, **SMALL)


def test_every_application_has_its_pixels():
    assert set(APPLICATIONS) == {name for name in dir(A) if name[0].isupper()}


@pytest.mark.parametrize("name", MODULES)
def test_pixels_are_those_of_keras(name):
    """What `preprocess_input` of the application's module makes of pixels of 0 to 255."""
    image = keras.Input((4, 3, 3))
    model = keras.Model(image, _prepared(image, APPLICATIONS[name], None))
    x = images((4, 3, 3))
    expected = MODULES[name].preprocess_input(255 * x.copy())
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-4)


def test_images_are_resized_and_repeated():
    """Twice as many pixels, of which those inside are 3/4 of the nearer and 1/4 of the other."""
    image = keras.Input((1, 2, 1))
    model = keras.Model(image, _prepared(image, APPLICATIONS["MobileNet"], 4))
    row = 2 * np.array([0.0, 0.2, 0.6, 0.8]) - 1
    found = model(np.array([0.0, 0.8], "float32").reshape(1, 1, 2, 1))
    np.testing.assert_allclose(found, np.tile(row[None, None, :, None], (1, 4, 1, 3)), atol=1e-6)


@pytest.mark.slow
def test_contract(small):
    assert is_classifier(small) and kr.models.adapt(small) is small
    assert small.output["features"].shape == (None, 256)
    assert not range_warnings(small, (0.0, 1.0))
    x = tf.constant(images())
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = small(x, training=False)["logits"]
    gradient = tape.gradient(logits, x).numpy()
    assert np.all(np.isfinite(gradient)) and np.all(np.abs(gradient).sum(axis=(1, 2, 3)) > 0)
    base = small.get_layer("backbone")
    features = small(x, training=False)["features"]
    np.testing.assert_allclose(features, base(2 * x - 1, training=False), atol=1e-6)


def test_parts(make_classifier):
    """Of a convolution, batch norm and a dense layer; frozen statistics are used in training."""
    model = make_classifier(dropout=0)
    norm = next(one for one in model.layers if isinstance(one, keras.layers.BatchNormalization))
    x = images((6, 6, 1))
    counts = {"head": 2, "all_but_batch_norm": 4, "all": 6}
    for part, count in counts.items():
        set_trainable(model, part)
        assert len(model.trainable_weights) == count
        before, inference = norm.moving_mean.numpy(), model(x, training=False)["logits"]
        same = np.array_equal(inference, model(x, training=True)["logits"])
        assert same == np.array_equal(before, norm.moving_mean) == (part != "all")


@pytest.mark.slow
def test_batch_norm_of_a_backbone(small):
    """27 layers, each with a scale and an offset, that follow a few steps once they are trained."""
    norms = [one for one in small.get_layer("backbone").layers if "_bn" in one.name]
    assert len(norms) == 27 and {one.momentum for one in norms} == {0.9}
    set_trainable(small, "all")
    every = len(small.trainable_weights)
    for part, count in {"head": 2, "all_but_batch_norm": every - 2 * 27, "all": every}.items():
        set_trainable(small, part)
        assert len(small.trainable_weights) == count
        before = [one.moving_mean.numpy() for one in norms]
        small(images(), training=True)
        moved = [np.any(a != one.moving_mean) for a, one in zip(before, norms, strict=True)]
        assert all(moved) if part == "all" else not any(moved)


def test_the_head_of_other_classifiers():
    one, other = (kr.models.mlp((2, 2, 1), 3, hidden=(4, 5)) for _ in range(2))
    ensemble = kr.models.ensemble([one, other])
    set_trainable(kr.defenses.standard(ensemble, kr.LinfBall(0.1)), "head")
    heads = [model.get_layer("logits") for model in (one, other)]
    assert {id(w) for w in ensemble.trainable_weights} == {id(w) for h in heads for w in h.weights}
    own = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
            keras.layers.Dense(3, activation="softmax", name="own"),
        ],
        name="sequential",
    )
    adapted = kr.models.adapt(own)
    set_trainable(adapted, "head")
    assert [weight.path for weight in adapted.trainable_weights] == [
        "sequential/own/kernel",
        "sequential/own/bias",
    ]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"application": "MobileNetV4"}, ValueError, "no application 'MobileNetV4'.*Did you mean"),
        ({"trainable": "body"}, ValueError, "trainable is 'body'; expected one of 'all', 'all_bu"),
        ({"weights": "none.weights.h5"}, FileNotFoundError, "weights is 'none.weights.h5'; expec"),
        ({"options": {"top": 1}}, ValueError, "MobileNet has no option 'top' here; there are al"),
        ({"options": {"weights": None}}, ValueError, "no option 'weights' here"),
        ({"size": 0}, ValueError, "size is 0; expected an integer >= 1"),
        ({"input_shape": (32, 32, 4)}, ValueError, "Images have 4 channels; expected 3, or 1"),
        ({"input_shape": (16, 16, 3)}, ValueError, "at least 32x32"),
    ],
)
def test_refused(options, error, text):
    with pytest.raises(error, match=text):
        backbone(**{"input_shape": (32, 32, 3), "classes": 5, **SMALL, **options})


def test_a_model_without_a_head_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return keras.ops.mean(x, axis=(1, 2))

    with pytest.raises(ValueError, match="has no layer of its own that makes the logits"):
        set_trainable(kr.models.adapt(Own(), input_shape=(4, 4, 3)), "head")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("ConvNeXtTiny", 768),
        ("DenseNet121", 1024),
        ("EfficientNetB0", 1280),
        ("MobileNetV2", 1280),
        ("ResNet50", 2048),
        ("VGG16", 512),
    ],
)
def test_every_kind_of_application(name, features, tmp_path):
    """Grayscale images of 8 x 8 pixels; what was frozen stays frozen in a file."""
    keras.utils.set_random_seed(0)
    model = backbone((8, 8, 1), 3, name, trainable="all_but_batch_norm", size=32)
    assert model.output["features"].shape == (None, features)
    assert not range_warnings(model, (0.0, 1.0))
    x = images((8, 8, 1))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.trainable_weights) == len(model.trainable_weights)
    outputs = model(x, training=False)
    for key, value in loaded(x, training=False).items():
        np.testing.assert_allclose(value, outputs[key], atol=1e-6)
    x_adv = kr.attacks.pgd(kr.LinfBall(0.1), 2)(model, x, np.arange(4) % 3)
    assert x_adv.shape == x.shape and np.all(np.abs(x_adv - x) <= 0.1 + 1e-6)


@pytest.mark.slow
def test_weights_from_a_file(tmp_path):
    """Random ones, as pretrained ones cannot be downloaded; for images of another size too."""
    path = tmp_path / "pretrained.weights.h5"
    first = backbone((32, 32, 3), 5, **SMALL)
    first.get_layer("backbone").save_weights(path)
    second = backbone((8, 8, 1), 3, weights=path, size=64, **SMALL)
    bases = [model.get_layer("backbone") for model in (first, second)]
    for mine, theirs in zip(*(base.get_weights() for base in bases), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert len(first.trainable_weights) - len(second.trainable_weights) == 2 * 27
    with pytest.raises(ValueError, match=r"does not fit MobileNet without its top \(A total of"):
        backbone((32, 32, 3), 5, "MobileNet", weights=path)
    (tmp_path / "junk.weights.h5").write_text("junk")
    with pytest.raises(ValueError, match="does not fit MobileNet without its top"):
        backbone((32, 32, 3), 5, weights=tmp_path / "junk.weights.h5", **SMALL)


def bright_and_dark(count, size):
    """Noise around one of two gray levels, and which."""
    y = np.arange(count) % 2
    noise = np.random.default_rng(0).uniform(size=(count, size, size, 3))
    return (0.3 * noise + 0.5 * y[:, None, None, None] + 0.1).astype("float32"), y


def robust_accuracy(model, x, y):
    x_adv = kr.attacks.pgd(kr.LinfBall(4 / 255), 5)(model, x, y, seed=0)
    return np.mean(np.argmax(model(x_adv)["logits"], axis=1) == y)


@pytest.mark.slow
def test_fine_tuning_at_96_pixels(tmp_path):
    """The head first, then all but batch norm at a small rate; from a file of pretrained
    weights to a file of a classifier that is robust in a ball.
    """
    keras.utils.set_random_seed(0)
    path = tmp_path / "pretrained.weights.h5"
    x, y = bright_and_dark(32, 96)
    pretrained = kr.defenses.standard(backbone((96, 96, 3), 3), kr.LinfBall(4 / 255))
    pretrained.compile(keras.optimizers.Adam(1e-3))
    pretrained.fit(x, y + 1, batch_size=16, epochs=8, verbose=0)
    # Values of random weights are so small that running statistics reach them in hundreds of steps.
    kr.training.BatchNormStatistics(pretrained).recompute([(x[:16], y[:16]), (x[16:], y[16:])])
    pretrained.classifier.get_layer("backbone").save_weights(path)
    classifier = backbone((96, 96, 3), 2, weights=path, trainable="head")
    base, head = (classifier.get_layer(name) for name in ("backbone", "logits"))
    before = base.get_weights()
    model = kr.defenses.pgd_at(classifier, kr.LinfBall(4 / 255), steps=2)
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    with_head = robust_accuracy(classifier, x, y)
    for old, new in zip(before, base.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    first = head.get_weights()
    set_trainable(model, "all_but_batch_norm")
    model.compile(keras.optimizers.Adam(1e-3))
    history = model.fit(x, y, batch_size=16, epochs=4, verbose=0).history
    assert np.any(first[0] != head.get_weights()[0])
    norms = {
        weight.path
        for layer in base.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        for weight in layer.weights
    }
    pairs = zip(base.weights, before, strict=True)
    changed = {weight.path for weight, old in pairs if np.any(old != weight.numpy())}
    assert not changed & norms and len(changed) > 50
    assert history["loss"][-1] < history["loss"][0]
    classifier.save(tmp_path / "robust.keras")
    loaded = keras.models.load_model(tmp_path / "robust.keras")
    assert np.mean(np.argmax(loaded(x)["logits"], axis=1) == y) > 0.9
    assert robust_accuracy(loaded, x, y) > max(0.7, with_head)


@pytest.mark.slow
def test_one_step_at_224_pixels():
    keras.utils.set_random_seed(0)
    classifier = backbone((224, 224, 3), 2)
    model = kr.defenses.pgd_at(classifier, kr.LinfBall(4 / 255), steps=1)
    model.compile(keras.optimizers.Adam(1e-3))
    x, y = bright_and_dark(4, 224)
    before = classifier.get_layer("backbone").get_layer("conv").get_weights()[0]
    logs = model.train_on_batch(x, y, return_dict=True)
    assert np.isfinite(logs["loss"])
    assert np.any(before != classifier.get_layer("backbone").get_layer("conv").get_weights()[0])
