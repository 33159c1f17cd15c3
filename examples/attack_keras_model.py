"""Attack a Keras model of somebody else in five lines.

The model is plain Keras: it ends in a softmax, takes pixels from 0 to 255, and knows nothing of
this library. Nothing is downloaded.
"""

# %% [markdown]
# ## The model
#
# A small network for the handwritten digits that scikit-learn ships.

# %%
import keras
from sklearn.datasets import load_digits

keras.utils.set_random_seed(0)
digits = load_digits()
images, labels = digits.images[..., None].astype("float32") * 255 / 16, digits.target
layers = keras.layers
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        layers.Rescaling(1 / 255),
        layers.Conv2D(32, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images[:1400], labels[:1400], epochs=15, verbose=0)
loss, accuracy = model.evaluate(images[1400:], labels[1400:], verbose=0)
print(f"accuracy on test images: {accuracy:.1%}")

# %% [markdown]
# ## The attack
#
# `adapt` finds the logits before the softmax. Attacks and radii count in units of images in [0, 1];
# `preprocess` maps them to the range that the model was trained on.

# %%
import keras_robust as kr

classifier = kr.models.adapt(model, preprocess=layers.Rescaling(255.0))
ball = kr.LinfBall(radius=0.1)
attacks = [kr.attacks.fgsm(ball), kr.attacks.pgd(ball, steps=20)]
test = (images[1400:] / 255, labels[1400:])
report = kr.evaluation.evaluate(
    classifier, test, attacks, radii=[0.02, 0.05, 0.1, 0.15], checks=True
)
report

# %% [markdown]
# The accuracy falls although no pixel changes by more than a tenth of its range.
# The images, the perturbations (amplified), and what the model sees in the attacked images:

# %%
shown = report.examples
kr.plots.example_images(
    shown.clean[:6],
    shown.adversarial[:6],
    shown.labels[:6],
    shown.clean_predictions[:6],
    shown.adversarial_predictions[:6],
)

# %% [markdown]
# How far can it be trusted? The accuracy over the radius of the ball:

# %%
curves = {curve.name: (curve.radii, curve.accuracies) for curve in report.curves}
kr.plots.accuracy_over_radius({"the model": curves}, radius=ball.radius)

# %% [markdown]
# `report.save("runs/report")` writes a page with all of this. For a figure to be published, attack
# with `kr.attacks.auto_attack(ball)`.
