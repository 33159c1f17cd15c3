"""`adapt` says what is wrong with a model, and how to fix it."""

from __future__ import annotations

import keras
import pytest

from keras_robust.models import adapt

L = keras.layers


def dense(units=3, activation="softmax", **options):
    return keras.Sequential(
        [keras.Input((4, 4, 1)), L.Flatten(), L.Dense(units, activation, name="out", **options)],
        name="mine",
    )


class Subclassed(keras.Model):
    """A model whose layers are not accessible."""

    def __init__(self, activation=None):
        super().__init__(name="mine")
        self.flatten, self.head = L.Flatten(), L.Dense(3, activation)

    def call(self, x):
        return self.head(self.flatten(x))


class TwoOutputs(Subclassed):
    """Returns a pair."""

    def call(self, x):
        return super().call(x), super().call(x)


class OverridesCall(keras.Model):
    """Functional by inheritance, but not what its graph says."""

    def call(self, x):
        return keras.ops.softmax(2.0 * super().call(x))


def two_outputs(names):
    image = keras.Input((4,))
    first, second = L.Dense(3)(image), L.Dense(2)(image)
    return keras.Model(
        image, dict(zip(names, (first, second), strict=True)) if names else [first, second]
    )


def two_inputs():
    first, second = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    return keras.Model([first, second], L.Dense(3)(L.Add()([first, second])))


def with_lambda(function):
    image = keras.Input((4,))
    return keras.Model(image, L.Lambda(function, output_shape=(3,))(L.Dense(3)(image)), name="mine")


@pytest.mark.parametrize(
    "model",
    [None, "model.keras", lambda x: x, L.Dense(3), keras.Model],
    ids=["None", "a path", "a function", "a layer", "a class"],
)
def test_not_a_keras_model(model):
    with pytest.raises(TypeError, match="takes a Keras 3 model, received"):
        adapt(model)


def test_preprocess_not_a_layer():
    with pytest.raises(TypeError, match=r"expected a Keras layer, such as keras.layers.Rescaling"):
        adapt(dense(), preprocess=lambda x: 255 * x)


@pytest.mark.parametrize("model", [keras.Sequential([L.Flatten(), L.Dense(3)]), Subclassed()])
def test_unbuilt_without_input_shape(model):
    with pytest.raises(ValueError, match=r"is not built.*input_shape=\(32, 32, 3\)"):
        adapt(model)


def test_open_sizes_without_input_shape():
    model = keras.Sequential([keras.Input((None, None, 3)), L.GlobalMaxPool2D(), L.Dense(3)])
    with pytest.raises(ValueError, match=r"leaves sizes .* open \(\(None, None, 3\)\)"):
        adapt(model)


@pytest.mark.parametrize("model", [dense(), keras.Sequential([keras.Input((4,)), L.Dense(3)])])
def test_input_shape_of_another_rank(model):
    with pytest.raises(ValueError, match=r"takes images of .*, not \(4, 4\)"):
        adapt(model, input_shape=(4, 4))


def test_input_shape_that_does_not_fit():
    with pytest.raises(
        ValueError, match=r"takes images of \(4, 4, 1\), not \(5, 4, 1\): .*Resizing"
    ):
        adapt(dense(), input_shape=(5, 4, 1))


@pytest.mark.parametrize(
    ("units", "activation"), [(3, "sigmoid"), (3, "hard_sigmoid"), (1, "hard_sigmoid")]
)
def test_sigmoid(units, activation):
    with pytest.raises(ValueError, match=r"'mine' ends in a sigmoid \('out'\).*Dense\(2\)"):
        adapt(dense(units, activation))


def test_sigmoid_as_a_function():
    image = keras.Input((4,))
    with pytest.raises(ValueError, match="ends in a sigmoid"):
        adapt(keras.Model(image, keras.ops.sigmoid(L.Dense(3)(image))))


def test_one_value_per_image():
    with pytest.raises(ValueError, match=r"one value per image.*Dense\(2\)") as caught:
        adapt(dense(1, None))
    advice = "keras.Sequential([model, keras.layers.Activation('sigmoid')])"
    assert advice in str(caught.value)
    assert (
        adapt(eval(advice, {"keras": keras, "model": dense(1, None)})).output["logits"].shape[1]
        == 2
    )


def test_output_of_a_wrong_rank():
    model = keras.Sequential([keras.Input((4, 4, 1)), L.Conv2D(3, 4)], name="mine")
    with pytest.raises(ValueError, match=r"returns \(None, 1, 1, 3\); expected \[batch, classes\]"):
        adapt(model)


@pytest.mark.parametrize("names", [None, ("left", "right")])
def test_several_outputs(names):
    with pytest.raises(ValueError, match=r"has several outputs .*Choose the one that classifies"):
        adapt(two_outputs(names))


def test_several_outputs_of_a_subclassed_model():
    with pytest.raises(ValueError, match="has several outputs"):
        adapt(TwoOutputs(), input_shape=(4, 4, 1))


def test_several_inputs():
    with pytest.raises(ValueError, match=r"has 2 inputs \(left, right\); expected one"):
        adapt(two_inputs())


@pytest.mark.parametrize(
    ("features", "text"),
    [
        ("outt", r"'outt' names no layer; expected one of .*out\. Did you mean 'out'\?"),
        ("", "features='' names no layer"),
    ],
)
def test_unknown_features(features, text):
    with pytest.raises(ValueError, match=text):
        adapt(dense(), features=features)


@pytest.mark.parametrize(
    ("features", "text"),
    [
        ("out2", "'out2' names no layer; expected one of scale, mine, mine/flatten.*, mine/out"),
        ("mine/outt", "'mine/outt' names no layer; .*mine/out. Did you mean 'mine/out'"),
        ("mine/scale", "'mine/scale' names no layer"),
    ],
)
def test_unknown_features_of_a_nested_model(features, text):
    model = keras.Sequential([keras.Input((4, 4, 1)), L.Rescaling(1.0, name="scale"), dense()])
    with pytest.raises(ValueError, match=text):
        adapt(model, features=features)


def test_of_many_layers_the_last_are_listed():
    layers = [L.Dense(3, name=f"layer{number}") for number in range(30)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    with pytest.raises(
        ValueError, match=r"expected one of layer10, .*layer29 \(the last 20 of 30\)"
    ):
        adapt(model, features="conv")


def test_features_that_are_not_one_tensor():
    image = keras.Input((4, 4))
    _, *state = L.LSTM(3, return_state=True, name="lstm")(image)
    model = keras.Model(image, L.Dense(3)(state[0]))
    with pytest.raises(ValueError, match="features must be one tensor"):
        adapt(model, features="lstm")


@pytest.mark.parametrize("make", [Subclassed, OverridesCall])
def test_features_of_a_subclassed_model(make):
    image = keras.Input((4, 4, 1))
    inside = (image, L.Dense(3, name="out")(L.Flatten()(image))) if make is OverridesCall else ()
    with pytest.raises(ValueError, match=r"cannot be found: .*\{'logits': ..., 'features': ...\}"):
        adapt(make(*inside), features="out", input_shape=(4, 4, 1))


def test_probabilities_of_a_subclassed_model():
    with pytest.raises(ValueError, match=r"'mine' returns probabilities.*model.head.activation"):
        adapt(Subclassed("softmax"), input_shape=(4, 4, 1))


def test_the_advice_about_probabilities_works():
    model = Subclassed("softmax")
    model.head.activation = keras.activations.linear
    assert adapt(model, input_shape=(4, 4, 1))


def test_probabilities_out_of_a_lambda():
    with pytest.raises(ValueError, match="'mine' returns probabilities"):
        adapt(with_lambda(keras.ops.softmax))


def test_an_average_of_softmax_models_is_an_ensemble():
    image = keras.Input((4, 4, 1))
    average = L.Average()([L.Dense(3, "softmax")(L.Flatten()(image)) for _ in range(2)])
    with pytest.raises(ValueError, match=r"keras_robust\.models\.ensemble\(\[adapt\(first\)"):
        adapt(keras.Model(image, average))


def test_an_overridden_call_counts_rather_than_the_graph():
    image = keras.Input((4,))
    with pytest.raises(ValueError, match="returns probabilities"):
        adapt(OverridesCall(image, L.Dense(3)(image)))


def test_softmax_twice():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, "softmax"), L.Softmax()])
    with pytest.raises(ValueError, match="returns probabilities"):
        adapt(model)


def test_no_gradient():
    with pytest.raises(ValueError, match=r"No gradient flows .*'mine'.*argmax"):
        adapt(with_lambda(lambda x: keras.ops.one_hot(keras.ops.argmax(x, axis=-1), 3) * 2.0))


def test_returns_its_input():
    image = keras.Input((4,))
    with pytest.raises(ValueError, match="returns its input"):
        adapt(keras.Model(image, L.Identity()(image)))


@pytest.mark.slow  # Keras quantizes for ten seconds
def test_quantized():
    model = dense()
    model.quantize("int8")
    with pytest.raises(ValueError, match=r"is quantized .int8.*before quantizing"):
        adapt(model)
