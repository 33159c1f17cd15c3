"""The attack wave of the demo: which images it sends, and what it reads of the metrics."""

from __future__ import annotations

import numpy as np
import pytest

from keras_robust.experiments.publishing import attack_wave as module
from keras_robust.experiments.publishing.attack_wave import attack_wave, table


class Server:
    """Counts images; raises an alarm for each request after 10 attacked ones."""

    def __init__(self, sensitive=True):
        self.images, self.attacked, self.alarms, self.sensitive = [], 0, 0, sensitive

    def predict(self, model, images, signature):
        assert (model, signature) == ("digits", "detect") and len(images) <= module.IMAGES
        self.images += images.ravel().tolist()
        self.attacked += int((images < 0).sum())
        self.alarms += self.sensitive and self.attacked >= 10

    def metrics(self, address):
        share = self.attacked / max(1, len(self.images))
        return {
            "images_total": len(self.images),
            "flagged_ratio": share,
            "alarms_total": self.alarms,
        }


@pytest.mark.parametrize(("sensitive", "raised"), [(True, 20), (False, None)])
def test_half_of_the_images_are_the_quiet_time_and_every_second_of_the_rest_is_attacked(
    monkeypatch, sensitive, raised
):
    server, lines = Server(sensitive), []
    monkeypatch.setattr(module, "read_metrics", server.metrics)
    clean = np.arange(1.0, 62.0).reshape(-1, 1)
    found = attack_wave(server, "address", "digits", clean, -clean, lines.append)
    assert found == raised
    expected = clean.ravel()
    expected[30::2] *= -1
    assert server.images == expected.tolist()
    text = "\n".join(lines)
    assert "30 clean images, then a wave of 31, every second one attacked" in text
    assert ("The alarm went off within 20 images" in text) == sensitive
    assert ("No alarm: the detector flags too few" in text) != sensitive


def test_the_table_has_the_metrics_before_and_after():
    before = {"images_total": 180.0, "flagged_ratio": 0.033, "alarms_total": 0.0}
    after = {"images_total": 360.0, "flagged_ratio": 0.286, "alarms_total": 8.0}
    rows = [line.split() for line in table(180, 180, before, after, 15).splitlines()]
    assert ["images", "180", "360"] in rows and ["flagged", "3.3%", "28.6%"] in rows
    assert ["alarms", "0", "8"] in rows
