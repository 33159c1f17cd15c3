"""UDR in the plane: a hard and a soft ball, drawn.

The toy problem of the thesis: a rare class A left of a frequent class B. Adversarial training keeps
perturbations in a hard ball; unified distributional robustness (UDR) lets them leave it at a
price, which it learns.
"""

# %% [markdown]
# A point is an image of two pixels, so everything for images works for points. Distances in the
# plane are divided by 20.

# %%
import keras
import numpy as np

import keras_robust as kr

SIDE, OFFSET = 20.0, 8.0
train, validation, test = kr.data.load("toy", batch_size=128)
ball = kr.LinfBall(radius=1 / SIDE)


def network():
    keras.utils.set_random_seed(0)
    hidden = (10, 10, 10)
    return kr.models.mlp((1, 2, 1), 2, hidden=hidden, mean=OFFSET / SIDE, std=1 / SIDE)


crafting = {"steps": 10, "step_size": 0.2 / SIDE}
dual = kr.DualVariable(learning_rate=0.02 * SIDE)
models = {
    "PGD-AT": kr.defenses.pgd_at(network(), ball, clean_weight=1.0, **crafting),
    "UDR over PGD-AT": kr.defenses.udr(
        network(), ball, base="pgd_at", clean_weight=1.0, dual=dual, **crafting
    ),
}
histories = {}
for name, model in models.items():
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    histories[name] = model.fit(train, epochs=15, verbose=0).history

# %% [markdown]
# ## The attack
#
# It goes twice as far as training did.

# %%
attack = kr.attacks.pgd(kr.LinfBall(2 / SIDE), steps=50, step_size=0.1 / SIDE)
for name, model in models.items():
    report = kr.evaluation.evaluate(model, test, attack)
    print(
        f"{name:16} clean {report.clean_accuracy:6.1%}   attacked {report.worst_case_accuracy:6.1%}"
    )

# %% [markdown]
# ## The boundaries
#
# Color is the probability of class B; the line is where both classes are equally likely.

# %%
points = np.concatenate([np.asarray(x) for x, y in test])[:, 0, :, 0] * SIDE - OFFSET
labels = np.concatenate([np.asarray(y) for x, y in test])
extent = (-5.0, 9.0, -4.0, 4.0)
xs, ys = np.linspace(-5, 9, 141), np.linspace(-4, 4, 81)
grid = np.stack(np.meshgrid(xs, ys), axis=-1)
grid_images = ((grid.reshape(-1, 1, 2, 1) + OFFSET) / SIDE).astype("float32")


def probability_of_b(model):
    logits = np.asarray(model(grid_images, training=False)["logits"])
    return (1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))).reshape(grid.shape[:2])


panels = [kr.plots.Panel(name, points[::4], labels[::4]) for name in models]
kr.plots.decision_regions(
    panels, [probability_of_b(model) for model in models.values()], extent, ("A", "B")
)

# %% [markdown]
# ## The price
#
# The multiplier of UDR over the epochs: it falls while perturbations stay within the radius, and
# rises when they leave it.

# %%
kr.plots.training_curves({"UDR over PGD-AT": histories["UDR over PGD-AT"]["dual"]}, "lambda")
