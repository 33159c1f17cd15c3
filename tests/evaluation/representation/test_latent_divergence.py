"""R-DIV as a callback: what it logs is what `divergence` measures."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation import LatentDivergence

DRAW = np.random.default_rng(0)
X, Y = DRAW.uniform(size=(12, 2, 2, 1)).astype("float32"), np.arange(12) % 3


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    made = kr.defenses.pgd_at(kr.models.mlp((2, 2, 1), 3, hidden=(4,)), kr.LinfBall(0.1), steps=1)
    made.compile(optimizer="sgd")
    return made


@pytest.mark.slow
def test_it_logs_every_second_epoch(model):
    attack = kr.attacks.fgsm(kr.LinfBall(0.1))
    log = LatentDivergence((X, Y), attack, images=8, every=2)
    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=[log]).history
    assert len(history["r_div"]) == 1 and len(history["loss"]) == 3
    expected = kr.evaluation.divergence(model, (X, Y), attack, limit=8)
    found = log.measure()  # with the weights of the end
    assert (found.intra, found.inter) == pytest.approx((expected.intra, expected.inter), rel=1e-5)
    intra, inter = history["intra_divergence"][0], history["inter_divergence"][0]
    assert history["r_div"][0] == pytest.approx(intra / inter)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LatentDivergence((X, Y), 0.1), TypeError, "LatentDivergence: attack is 0.1"),
        (lambda: LatentDivergence((X, Y), every=0), ValueError, "every is 0"),
        (lambda: LatentDivergence((X, Y)).measure(), ValueError, "there is no model yet"),
        (
            lambda: LatentDivergence((X, Y)).set_model(kr.models.mlp((2, 2, 1), 3)),
            ValueError,
            "has no validation attack",
        ),
    ],
)
def test_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
