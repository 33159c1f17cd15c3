from __future__ import annotations

import json
import shutil

import pytest
from absl import flags

import keras_robust as kr
from trainers import transfer


def parsed(*arguments):
    values = flags.FlagValues()
    transfer.define_flags(values)
    values(["program", *arguments])
    return values


def test_it_asks_every_run_about_every_run(trained, loaded, tmp_path):
    shutil.copytree(trained, tmp_path / "twin")
    arguments = [f"--run={trained},{tmp_path / 'twin'}", f"--output_dir={tmp_path / 'out'}"]
    found = transfer.run(parsed(*arguments, "--limit=100"), command="python -m x")
    # A twin errs on all that its twin errs on: the attack starts at the same points.
    assert found.names == (trained.name, "twin")
    assert len({share for row in found.accuracy for share in row}) == 1
    own = kr.evaluation.evaluate(loaded.model, loaded.splits.test, loaded.attack("pgd"), limit=100)
    assert found.accuracy[0][0] == pytest.approx(own.worst_case_accuracy, abs=0.05)
    assert found.markdown() in (tmp_path / "out" / "transfer.md").read_text()
    document = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert document["command"] == "python -m x" and document["names"] == list(found.names)
    assert (tmp_path / "out" / "transfer.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_missing(trained, tmp_path):
    with pytest.raises(ValueError, match="--run is missing"):
        transfer.run(parsed())
    with pytest.raises(ValueError, match="expected at least two runs of one dataset"):
        transfer.run(parsed(f"--run={trained}", f"--output_dir={tmp_path}"))
    shutil.copytree(trained, tmp_path / "twin")
    runs = [f"--run={trained},{tmp_path / 'twin'}", f"--output_dir={tmp_path}"]
    with pytest.raises(ValueError, match="'pgd' does not take queries"):
        transfer.run(parsed(*runs, "--queries=7"))
