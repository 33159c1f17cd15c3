"""`adapt`: every kind of Keras model, its own weights, the same predictions."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust.models import adapt, mlp, small_cnn
from keras_robust.models.building import is_classifier

L = keras.layers


def images(shape=(8, 8, 1), batch=5, seed=0):
    return np.random.default_rng(seed).uniform(size=(batch, *shape)).astype("float32")


def body(activation="softmax", **options):
    return [
        L.Conv2D(4, 3, activation="relu", name="conv"),
        L.Flatten(name="flat"),
        L.Dense(6, activation="relu", name="hidden"),
        L.Dense(3, activation=activation, name="out", **options),
    ]


def sequential_with_activation():
    return keras.Sequential([keras.Input((8, 8, 1)), *body(None), L.Activation("softmax")])


def sequential_added_layer_by_layer():
    model = keras.Sequential()
    model.add(keras.Input((8, 8, 1)))
    for layer in (*body(None), L.Softmax()):
        model.add(layer)
    return model


def sequential_built_by_data():
    model = keras.Sequential(body())
    model(images(batch=2))
    return model


def functional_with_op():
    x = image = keras.Input((8, 8, 1))
    for layer in body(None):
        x = layer(x)
    return keras.Model(image, keras.ops.softmax(x))


def functional_with_dictionary_input_and_list_output():
    image = keras.Input((8, 8, 1), name="picture")
    x = image
    for layer in body():
        x = layer(x)
    return keras.Model({"picture": image}, [x])


def functional_with_shortcut():
    image = keras.Input((8, 8, 1))
    x = L.Conv2D(4, 3, padding="same", activation="relu")(image)
    x = L.Add()([x, L.Conv2D(4, 3, padding="same", activation="relu")(x)])
    x = L.BatchNormalization()(L.GlobalAveragePooling2D()(x))
    return keras.Model(image, L.Dense(3, activation="softmax")(L.Concatenate()([x, x])))


def fully_convolutional():
    return keras.Sequential(
        [keras.Input((8, 8, 1)), L.Conv2D(4, 3), L.Conv2D(3, 1), L.GlobalMaxPool2D(), L.Softmax()]
    )


def softmax_then_cast():
    return keras.Sequential(
        [keras.Input((8, 8, 1)), *body(), L.Identity(), L.Activation("linear", dtype="float32")]
    )


def nested_at_the_end():
    inner = keras.Sequential([keras.Input((8, 8, 1)), *body()], name="inner")
    return keras.Sequential([keras.Input((8, 8, 1)), L.Rescaling(2.0, offset=-1.0), inner])


def nested_twice():
    image = keras.Input((8, 8, 1))
    return keras.Model(image, L.Identity()(nested_at_the_end()(image)), name="outer")


def nested_with_softmax_outside():
    inner = keras.Sequential([keras.Input((8, 8, 1)), *body(None)], name="inner")
    return keras.Sequential([keras.Input((8, 8, 1)), inner, L.Softmax()])


def nested_at_the_beginning():
    base = keras.Sequential([keras.Input((8, 8, 1)), *body()[:2]], name="base")
    image = keras.Input((8, 8, 1))
    return keras.Model(image, L.Dense(3, "softmax")(L.Dropout(0.5)(base(image))))


def layer_used_twice():
    image = keras.Input((8, 8, 1))
    shared = L.Conv2D(1, 3, padding="same", activation="relu", name="shared")
    x = L.Flatten()(shared(shared(image)))
    return keras.Model(image, L.Dense(3, activation="softmax")(x))


def taken_names():
    image = keras.Input((8, 8, 1), name="images")
    x = L.Dense(5, name="features")(L.Flatten(name="classifier")(image))
    return keras.Model(image, L.Dense(3, "softmax", name="logits")(L.ReLU(name="out_logits")(x)))


def no_bias():
    return keras.Sequential([keras.Input((8, 8, 1)), *body(use_bias=False)])


def integer_images():
    image = keras.Input((8, 8, 1), dtype="uint8")
    x = L.Rescaling(1.0)(image)
    for layer in body():
        x = layer(x)
    return keras.Model(image, x)


def compiled_with_a_loss_of_ones_own():
    model = keras.Sequential([keras.Input((8, 8, 1)), *body()])
    model.compile("sgd", loss=lambda y, p: keras.ops.mean(p), metrics=[lambda y, p: 0.0])
    return model


class Functional(keras.Model):
    """Functional by inheritance, with its own training step; its graph is still valid."""

    def train_step(self, data):
        raise NotImplementedError


def functional_subclass():
    x = image = keras.Input((8, 8, 1))
    for layer in body():
        x = layer(x)
    return Functional(image, x)


PROBABILITIES = [
    sequential_with_activation,
    sequential_added_layer_by_layer,
    sequential_built_by_data,
    functional_with_op,
    functional_with_dictionary_input_and_list_output,
    functional_with_shortcut,
    fully_convolutional,
    softmax_then_cast,
    nested_at_the_end,
    nested_twice,
    nested_with_softmax_outside,
    nested_at_the_beginning,
    layer_used_twice,
    taken_names,
    no_bias,
    integer_images,
    compiled_with_a_loss_of_ones_own,
    functional_subclass,
]

FEATURES = {
    functional_with_shortcut: 8,
    fully_convolutional: 6 * 6 * 4,
    nested_at_the_beginning: 6 * 6 * 4,
    layer_used_twice: 64,
    taken_names: 5,
}


@pytest.mark.parametrize("make", PROBABILITIES)
def test_softmax_is_removed_and_the_model_unchanged(make):
    keras.utils.set_random_seed(3)
    model = make()
    for weight in model.weights:  # biases start at zero, where a forgotten one would not show
        weight.assign(weight + np.random.default_rng(1).uniform(0.1, 0.4, weight.shape))
    x = images()
    if make is integer_images:  # the model would cut off what the classifier does not
        x = np.floor(255 * x)
    inputs = {"picture": x} if make is functional_with_dictionary_input_and_list_output else x
    predicted = keras.tree.flatten(model(inputs, training=False))[0].numpy()
    config = model.to_json() if not model.compiled else None
    classifier = adapt(model)

    assert is_classifier(classifier)
    outputs = classifier(x, training=False)
    np.testing.assert_allclose(keras.ops.softmax(outputs["logits"]), predicted, atol=1e-6)
    assert not np.allclose(outputs["logits"].numpy().sum(axis=1), 1.0)
    assert outputs["features"].shape == (5, FEATURES.get(make, 6))
    # The very same variables, and nothing added.
    assert {id(v) for v in classifier.weights} == {id(v) for v in model.weights}
    # The model predicts, and describes itself, as before.
    again = keras.tree.flatten(model(inputs, training=False))[0]
    np.testing.assert_array_equal(again, predicted)
    assert config is None or model.to_json() == config


@pytest.mark.parametrize("make", PROBABILITIES)
def test_saved_and_loaded_gives_the_same(make, tmp_path):
    classifier = adapt(make())
    classifier.save(tmp_path / "model.keras")
    custom = {"Functional": Functional}
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects=custom)
    assert is_classifier(loaded)
    assert adapt(loaded) is loaded
    before, after = classifier(images(), training=False), loaded(images(), training=False)
    for key in ("logits", "features"):
        np.testing.assert_array_equal(before[key], after[key])


@pytest.mark.parametrize("make", [nested_twice, functional_with_shortcut, integer_images])
def test_gradient_reaches_the_images(make):
    classifier, x = adapt(make()), tf.constant(images())
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = classifier(x, training=False)["logits"][:, 0]
    gradient = tape.gradient(logits, x)
    assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)


def test_logits_stay_as_they_are():
    model = keras.Sequential([keras.Input((8, 8, 1)), *body(None)])
    outputs = adapt(model)(images(), training=False)
    np.testing.assert_array_equal(outputs["logits"], model(images(), training=False))
    assert outputs["features"].shape == (5, 6)


def test_log_softmax_is_good_enough():
    """softmax(log p) = p: log-probabilities are logits, shifted by a constant per image."""
    model = keras.Sequential([keras.Input((8, 8, 1)), *body(None), L.Activation("log_softmax")])
    outputs = adapt(model)(images())
    np.testing.assert_array_equal(outputs["logits"], model(images()))


def test_training_the_one_trains_the_other():
    model = keras.Sequential([keras.Input((8, 8, 1)), *body()])
    classifier = adapt(model)
    before, x, y = model(images()).numpy(), images(), np.array([0, 1, 2, 0, 1])
    with tf.GradientTape() as tape:
        logits = classifier(x, training=True)["logits"]
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
    gradients = tape.gradient(loss, classifier.trainable_weights)
    assert all(gradient is not None for gradient in gradients)
    keras.optimizers.SGD(0.1).apply_gradients(
        zip(gradients, classifier.trainable_weights, strict=True)
    )
    after = model(x).numpy()
    assert not np.allclose(before, after)
    np.testing.assert_allclose(keras.ops.softmax(classifier(x)["logits"]), after, atol=1e-6)


def test_frozen_layers_and_regularizers_are_kept():
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), *body(kernel_regularizer=keras.regularizers.L2(0.1))]
    )
    model.get_layer("conv").trainable = False
    classifier = adapt(model)
    trainable = {id(v) for v in classifier.trainable_weights}
    assert trainable == {id(v) for v in model.trainable_weights}
    np.testing.assert_allclose(classifier.losses, model.losses)
    assert len(classifier.losses) == 1


def test_a_classifier_is_returned_unchanged():
    model = mlp((8, 8, 1), 3, hidden=(7,))
    assert adapt(model) is model
    assert adapt(model, input_shape=[8, 8, 1]) is model
    classifier = adapt(sequential_with_activation())
    assert adapt(classifier) is classifier


@pytest.mark.parametrize("wrap", [lambda image: [image], lambda image: {"images": image}])
def test_outputs_of_the_contract_but_an_input_in_a_container(wrap):
    plain = mlp((8, 8, 1), 3, hidden=(7,))
    model = keras.Model(wrap(plain.input), plain(plain.input))
    assert not is_classifier(model)
    classifier = adapt(model)
    assert is_classifier(classifier)
    np.testing.assert_array_equal(classifier(images())["logits"], plain(images())["logits"])


def test_a_layer_called_images():
    model = keras.Sequential([keras.Input((8, 8, 1)), L.Rescaling(2.0, name="images"), *body()])
    assert adapt(model, features="images")(images())["features"].shape == (5, 64)


@pytest.mark.parametrize(
    ("make", "features", "size"),
    [
        (sequential_with_activation, "conv", 6 * 6 * 4),
        (sequential_with_activation, "flat", 6 * 6 * 4),
        (sequential_with_activation, "hidden", 6),
        (sequential_with_activation, "out", 3),
        (softmax_then_cast, "out", 3),
        (nested_at_the_end, "inner/flat", 6 * 6 * 4),
        (nested_at_the_end, "flat", 6 * 6 * 4),
        (nested_at_the_end, "inner", 3),
        (nested_at_the_beginning, "base", 6 * 6 * 4),
        (nested_with_softmax_outside, "inner/hidden", 6),
        (layer_used_twice, "shared", 64),
        (taken_names, "features", 5),
    ],
)
def test_features_by_name(make, features, size):
    model = make()
    classifier = adapt(model, features=features)
    plain = adapt(model)(images(), training=False)["logits"]
    outputs = classifier(images(), training=False)
    assert outputs["features"].shape == (5, size)
    np.testing.assert_array_equal(outputs["logits"], plain)
    if features in ("out", "inner"):  # the layer that makes the logits: before its softmax
        np.testing.assert_array_equal(outputs["features"], outputs["logits"])


def test_named_features_are_that_layers_output():
    model = sequential_with_activation()
    conv = keras.Model(model.inputs[0], model.get_layer("conv").output)(images())
    features = adapt(model, features="conv")(images())["features"]
    np.testing.assert_array_equal(features, np.reshape(conv, (5, -1)))


def test_features_of_a_layer_used_twice_are_those_of_its_last_call():
    model = layer_used_twice()
    shared = model.get_layer("shared")
    features = adapt(model, features="shared")(images())["features"]
    np.testing.assert_allclose(features, np.reshape(shared(shared(images())), (5, -1)), rtol=1e-6)


def test_features_are_the_logits_where_the_graph_branches():
    image = keras.Input((8, 8, 1))
    flat = L.Flatten()(image)
    model = keras.Model(image, L.Average()([L.Dense(3)(flat), L.Dense(3)(flat)]))
    outputs = adapt(model)(images())
    np.testing.assert_array_equal(outputs["features"], outputs["logits"])


def test_features_of_a_classifier_can_be_chosen_again():
    model = small_cnn((8, 8, 1), 3)
    first = adapt(model, features="flatten")
    assert first(images())["features"].shape == (5, 256)
    assert adapt(first, features="fc1")(images())["features"].shape == (5, 200)
    prepared = adapt(model, preprocess=L.Rescaling(2.0))
    chosen = adapt(prepared, features="fc1")
    assert chosen(images())["features"].shape == (5, 200)
    np.testing.assert_array_equal(chosen(images())["logits"], prepared(images())["logits"])


def test_further_outputs_of_a_dictionary_are_kept():
    image = keras.Input((8, 8, 1))
    hidden = L.Dense(4, name="hidden")(L.Flatten()(image))
    members = L.Reshape((2, 3))(L.Dense(6)(hidden))
    logits = L.GlobalAveragePooling1D()(members)
    outputs = {"logits": logits, "features": logits, "member_logits": members}
    model = keras.Model(image, outputs)
    assert adapt(model) is model
    chosen = adapt(model, features="hidden")(images())
    assert chosen["features"].shape == (5, 4)
    np.testing.assert_array_equal(chosen["member_logits"], model(images())["member_logits"])


@keras.saving.register_keras_serializable(package="test_adapt")
class Subclassed(keras.Model):
    """A model whose layers are not accessible."""

    def __init__(self, kind="logits", **kwargs):
        super().__init__(**kwargs)
        self.kind = kind
        self.flatten, self.hidden, self.out = L.Flatten(), L.Dense(6), L.Dense(3)

    def call(self, x):
        hidden = self.hidden(self.flatten(x))
        logits = self.out(hidden)
        if self.kind == "probabilities":
            return keras.ops.softmax(logits)
        return {"logits": logits, "features": hidden} if self.kind == "both" else logits

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


@pytest.mark.parametrize(("kind", "size"), [("logits", 3), ("both", 6)])
@pytest.mark.parametrize("built", [True, False])
def test_subclassed(kind, size, built, tmp_path):
    model = Subclassed(kind)
    if built:
        model(images(batch=2))
    classifier = adapt(model, input_shape=None if built else (8, 8, 1))
    assert is_classifier(classifier)
    outputs = classifier(images())
    assert outputs["features"].shape == (5, size)
    direct = model(images())
    np.testing.assert_array_equal(outputs["logits"], direct["logits"] if size == 6 else direct)
    assert {id(v) for v in classifier.weights} == {id(v) for v in model.weights}
    classifier.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images())["logits"], outputs["logits"])


def test_unbuilt_sequential_is_built_by_input_shape():
    model = keras.Sequential(body())
    classifier = adapt(model, input_shape=(8, 8, 1))
    assert model.built
    np.testing.assert_allclose(
        keras.ops.softmax(classifier(images())["logits"]), model(images()), atol=1e-6
    )


def test_open_sizes_are_closed_by_input_shape():
    model = keras.Sequential(
        [keras.Input((None, None, 3)), L.Conv2D(4, 3), L.GlobalMaxPool2D(), L.Dense(3, "softmax")]
    )
    classifier = adapt(model, input_shape=(9, 7, 3))
    assert classifier.input_shape == (None, 9, 7, 3)
    chosen = adapt(model, features=model.layers[0].name, input_shape=(9, 7, 3))
    assert chosen(images((9, 7, 3)))["features"].shape == (5, 7 * 5 * 4)


@pytest.mark.parametrize("kind", ["functional", "subclassed"])
def test_preprocess_comes_first(kind):
    model = sequential_with_activation() if kind == "functional" else Subclassed()
    shape = None if kind == "functional" else (8, 8, 1)
    plain = adapt(model, input_shape=shape)
    prepared = adapt(model, input_shape=shape, preprocess=L.Rescaling(255.0, offset=-1.0))
    x = images()
    np.testing.assert_allclose(
        prepared(x)["logits"], plain(255.0 * x - 1.0)["logits"], rtol=1e-5, atol=1e-4
    )
    assert is_classifier(prepared)


def test_preprocess_may_change_the_size(tmp_path):
    model = sequential_with_activation()
    resize = keras.Sequential([L.Resizing(8, 8), L.Rescaling(2.0)])
    classifier = adapt(model, input_shape=(12, 10, 1), preprocess=resize)
    assert classifier.input_shape == (None, 12, 10, 1)
    outputs = classifier(images((12, 10, 1)))
    classifier.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images((12, 10, 1)))["logits"], outputs["logits"])


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("make", [no_bias, sequential_with_activation, nested_twice, Subclassed])
def test_mixed_precision(make, precision):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        model = make()
        classifier = adapt(model, input_shape=(8, 8, 1))
        outputs = classifier(images(), training=False)
    finally:
        keras.config.set_dtype_policy(before)
    assert outputs["logits"].dtype == outputs["features"].dtype == tf.float32
    if make is Subclassed:
        assert model.hidden.compute_dtype == precision.removeprefix("mixed_")
        return
    predicted = keras.ops.cast(model(images(), training=False), "float32")
    np.testing.assert_allclose(keras.ops.softmax(outputs["logits"]), predicted, atol=0.01)


def test_adapting_often_does_not_change_the_model(tmp_path):
    model = nested_at_the_end()
    before = model(images()).numpy()
    for _ in range(3):
        adapt(model, features="inner/conv")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images()), before)


# Two classes by the sigmoid of one unit.


def single_unit(kind):
    x = image = keras.Input((8, 8, 1))
    for layer in [L.Flatten(), L.Dense(6, "relu", name="hidden")]:
        x = layer(x)
    if kind == "dense":
        return keras.Model(image, L.Dense(1, "sigmoid")(x))
    logit = L.Dense(1)(x)
    if kind == "operation":
        return keras.Model(image, keras.ops.sigmoid(logit))
    if kind == "activation":
        return keras.Model(image, L.Activation("sigmoid")(logit))
    if kind == "nested":
        return keras.Sequential([keras.Input((8, 8, 1)), single_unit("dense"), L.Identity()])
    return keras.Sequential([keras.Model(image, logit), L.Activation("sigmoid")])


@pytest.mark.parametrize("kind", ["dense", "activation", "operation", "nested", "around"])
def test_a_single_sigmoid_is_two_logits(kind, tmp_path):
    """Softmax of [0, z] is (1 - sigmoid(z), sigmoid(z)); the gradient is that of z."""
    model, x = single_unit(kind), images()
    classifier = adapt(model)
    assert is_classifier(classifier) and classifier.output["features"].shape[1] == 6
    outputs = classifier(x)
    probability = model(x).numpy()
    np.testing.assert_allclose(
        tf.nn.softmax(outputs["logits"]), np.hstack([1 - probability, probability]), atol=1e-6
    )
    np.testing.assert_array_equal(outputs["logits"][:, 0], np.zeros(5))
    assert adapt(classifier) is classifier
    classifier.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x)["logits"], outputs["logits"])


def test_the_classifier_of_a_robust_model():
    import keras_robust as kr

    classifier = mlp((4, 4, 1), 3, hidden=(5,))
    robust = kr.defenses.trades(classifier, kr.LinfBall(0.1), steps=1)
    assert adapt(robust) is classifier
    with pytest.raises(TypeError, match=r"is a RobustModel; .* Pass `model\.classifier`"):
        kr.defenses.trades(robust, kr.LinfBall(0.1))
    kr.defenses.trades(robust.classifier, kr.LinfBall(0.1))
