"""Detect attacked images with an ensemble trained by CCE, and serve it.

Collaborative cross-entropy (CCE) trains the members of an ensemble to be uncertain about images
that were crafted to fool another member. The entropy of the mean prediction is then a score of
"this image looks attacked", which the export serves.
"""

# %% [markdown]
# ## Training

# %%
import tempfile
from pathlib import Path

import keras
import numpy as np

import keras_robust as kr
from keras_robust.serving import Client, Server, export_model

keras.utils.set_random_seed(0)
train, validation, test = kr.data.load("digits", batch_size=64)
ball = kr.LinfBall(radius=0.15)
ensemble = kr.models.ensemble([kr.models.mlp((8, 8, 1), 10, hidden=(128, 64)) for _ in range(3)])
model = kr.defenses.cce(ensemble, ball, mode="detection", demote_ramp_steps=200, steps=5)
model.compile(optimizer=keras.optimizers.Adam(1e-3))
history = model.fit(train, epochs=20, verbose=0)

# %% [markdown]
# ## The threshold
#
# It is set on clean validation images, so that 5 % of them are flagged. The attacks are run twice:
# by an attacker who ignores the detector, and by one who also lowers the score.

# %%
detector = kr.detection.Detector(model).calibrate(validation, false_alarm_rate=0.05)
pgd = kr.attacks.pgd(ball, steps=20)
report = kr.evaluation.evaluate(model, test, pgd, detector=detector, defense="CCE, detection")
report

# %%
found = report.detection
clean, oblivious, adaptive = found.clean_scores, found.oblivious.scores, found.adaptive.scores
kr.plots.roc_curves(
    {
        "oblivious": kr.detection.roc(clean, oblivious),
        "adaptive": kr.detection.roc(clean, adaptive),
    },
    false_alarm_rate=0.05,
)

# %% [markdown]
# The adaptive attack is the one that counts: **detection by entropy does not defend against an
# adaptive attack.** It finds oblivious ones.
#
# ## Serving
#
# The export is a SavedModel, verified by loading it as TensorFlow Serving does. Here the embedded
# server answers, in the same process, on free ports of the loopback address.

# %%
x, y = next(iter(test))
x_adv = pgd(model, x, y, seed=0)
with tempfile.TemporaryDirectory() as folder:
    export_model(model, Path(folder) / "digits", detector)
    with (
        Server("digits", Path(folder) / "digits", port=0, rest_api_port=0) as server,
        Client(server.grpc_address) as client,
    ):
        answers = {
            "clean": client.predict("digits", np.asarray(x), signature="detect"),
            "attacked": client.predict("digits", np.asarray(x_adv), signature="detect"),
        }
for name, answer in answers.items():
    correct = np.mean(answer["classes"] == np.asarray(y))
    flagged = np.mean(answer["is_adversarial"])
    print(f"{name:9} correct {correct:6.1%}   flagged {flagged:6.1%}")
