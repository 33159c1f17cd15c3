from __future__ import annotations

import pytest
from absl import flags

from keras_robust.experiments.publishing import publish_run, published_models
from keras_robust.models import zoo
from trainers import publish


def parsed(*arguments):
    values = flags.FlagValues()
    publish.define_flags(values)
    values(["program", *arguments])
    return values


def test_a_run_is_published(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(zoo, "DIRECTORY", tmp_path)
    monkeypatch.setattr(publish_run, "changed_verdicts", lambda *_: {})
    table = tmp_path / "models.md"
    table.write_text(f"# A\n\n{published_models.BEGIN}\nold\n{published_models.END}\nrest\n")
    monkeypatch.setattr(publish, "TABLE", table)
    arguments = [f"--run={trained}", "--name=digits/x", "--limit=20", "--attacks=fgsm"]
    path = publish.run(parsed(*arguments), "python -m y")
    assert path == tmp_path / "digits" / "x"
    text = table.read_text("utf-8")
    assert "\nold" not in text and "| digits/x | Linf, radius 0.15 | 20 |" in text
    assert text.startswith("# A\n") and text.endswith("-->\nrest\n")
    publish.verify(parsed("--verify=digits/x"))
    assert not (trained / "unfinished").exists()
    with pytest.raises(FileExistsError, match="pass --overwrite"):
        publish.run(parsed(*arguments), "")
    capsys.readouterr()


def test_auto_attack_is_the_default():
    assert parsed().attacks == ["auto_attack"]


def test_a_card_that_does_not_hold(monkeypatch):
    monkeypatch.setattr(published_models, "verify", lambda *_: ("A.", "B."))
    with pytest.raises(ValueError, match=r"a/b does not hold\.\n  A\.\n  B\."):
        publish.verify(parsed("--verify=a/b"))
    with pytest.raises(ValueError, match="--verify does not take --name"):
        publish.verify(parsed("--verify=a/b", "--name=c/d"))
