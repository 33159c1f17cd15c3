from __future__ import annotations

import os

import pytest

from keras_robust.core.quiet_tensorflow import LEVEL, quiet_start


@pytest.mark.parametrize(
    ("level", "shown"),
    [(None, False), ("0", True), ("1", True), ("2", False), ("3", False)],
)
def test_what_tensorflow_logs_at_its_start_is_shown_to_who_asks_for_it(
    level, shown, monkeypatch, capfd
):
    """Its first lines ignore the level: with 3, more was shown than without a level."""
    monkeypatch.delenv(LEVEL, raising=False)
    if level is not None:
        monkeypatch.setenv(LEVEL, level)
    with quiet_start():
        os.write(2, b"I0000 port.cc:153] oneDNN custom operations are on.\n")
    os.write(2, b"after\n")
    assert ("oneDNN" in capfd.readouterr().err) is shown
    assert os.environ[LEVEL] == (level or "2")
