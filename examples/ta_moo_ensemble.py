"""Fool every member of an ensemble with one perturbation (TA-MOO).

An attack on the mean prediction of an ensemble may leave members untouched. A multi-task attack has
an objective for each member; TA-MOO moves its effort to the members that are not fooled yet.
"""

# %% [markdown]
# ## The ensemble
#
# Three different networks, each trained on clean digits.

# %%
import keras

import keras_robust as kr

keras.utils.set_random_seed(0)
train, validation, test = kr.data.load("digits", batch_size=64)
members = [
    kr.models.strided_cnn((8, 8, 1), 10, filters=(16, 32), kernels=(3, 3), strides=(1, 2)),
    kr.models.mlp((8, 8, 1), 10, hidden=(128, 64)),
    kr.models.mlp((8, 8, 1), 10, hidden=(32,)),
]
for member in members:
    model = kr.defenses.standard(member, kr.LinfBall(0.1))
    model.compile(optimizer=keras.optimizers.Adam(2e-3))
    model.fit(train, epochs=15, verbose=0)
ensemble = kr.models.ensemble(members)

# %% [markdown]
# ## Three attacks in the same ball
#
# "All" is the fraction of images whose one perturbation fools all three members.

# %%
ball = kr.LinfBall(radius=0.12)
solvers = {"uniform weights": "uniform", "MinMax": "min_max", "TA-MOO": "task_oriented"}
attacks = {
    name: kr.attacks.multi_task(ball, steps=30, tasks="members", solver=solver)
    for name, solver in solvers.items()
}
found = {
    name: kr.evaluation.task_success(ensemble, test, attack) for name, attack in attacks.items()
}
for name, success in found.items():
    each = ", ".join(f"{share:.1%}" for share in success.per_task)
    print(f"{name:16} all {success.all_tasks:6.1%}   each member {each}")

# %% [markdown]
# ## What the weights do
#
# The weights of the members over the steps, and how many images fool each of them:

# %%
history = kr.evaluation.task_history(ensemble, test, attacks["TA-MOO"], limit=100)
kr.plots.step_curves(
    {
        "Weight": dict(zip(history.names, zip(*history.weights, strict=True), strict=True)),
        "Success rate": dict(zip(history.names, zip(*history.success, strict=True), strict=True)),
    }
)
