from __future__ import annotations

import json

import pytest
from absl import flags

import keras_robust as kr
from trainers import diagnose_latents


def parsed(*arguments):
    values = flags.FlagValues()
    diagnose_latents.define_flags(values)
    values(["program", *arguments])
    return values


@pytest.mark.slow
def test_it_measures_and_draws(trained, loaded, tmp_path, capsys):
    arguments = [f"--run={trained}", f"--output_dir={tmp_path}", "--limit=100", "--points=40",
                 "--radii=0.15", "--pairs=1", "--pictures=0"]  # fmt: skip
    (found,) = diagnose_latents.run(parsed(*arguments), command="python -m x")
    attack = loaded.attack("pgd")
    expected = kr.evaluation.divergence(loaded.model, loaded.splits.test, attack, limit=100)
    assert found.divergence == expected
    report = kr.evaluation.evaluate(loaded.model, loaded.splits.test, attack, limit=100)
    assert found.clean_accuracy == pytest.approx(report.clean_accuracy)
    # The report's attack leaves out what is wrong already, and draws other starts.
    assert found.robust_accuracy == pytest.approx(report.worst_case_accuracy, abs=0.05)
    assert found.row() in (tmp_path / "latents.md").read_text()
    training = kr.attacks.pgd(loaded.ball(), 1, initialization="gaussian")
    sizes = kr.evaluation.perturbations(loaded.model, loaded.splits.test, training, limit=100)
    assert found.trained_on.linf == pytest.approx(sizes.linf, rel=0.05)
    assert found.training_row() in (tmp_path / "latents.md").read_text()
    document = json.loads((tmp_path / "latents.json").read_text())
    assert document["command"] == "python -m x"
    assert document["runs"][0]["divergence"]["intra"] == found.divergence.intra
    pictures = {path.name for path in tmp_path.glob("*.png")}
    names = ("latents", "pairs")
    assert pictures == {
        "divergence_over_radius.png",
        *(f"{trained.name}_{name}.png" for name in names),
    }
    (at_radius,) = found.over_radius  # that of the run
    assert (at_radius.radius, at_radius.divergence) == (0.15, found.divergence)
    assert at_radius.robust_accuracy == found.robust_accuracy
    assert found.radius_rows()[0] in (tmp_path / "latents.md").read_text()
    assert found.row() in capsys.readouterr().out


@pytest.mark.slow
def test_the_loss_around_clean_and_attacked_images(trained, tmp_path):
    """Of both kinds of attacked images: those that fool the model, and the others."""
    arguments = [f"--run={trained}", f"--output_dir={tmp_path}", "--limit=20", "--points=0"]
    diagnose_latents.run(parsed(*arguments))
    surfaces = (f"{space}_surface_{kind}0" for space in ("input", "latent")
                for kind in ("", "fooling_", "robust_"))  # fmt: skip
    assert {path.name for path in tmp_path.glob("*.png")} == {
        f"{trained.name}_{name}.png" for name in surfaces
    }


def test_an_option_that_pgd_does_not_take(trained, tmp_path):
    with pytest.raises(ValueError, match="'pgd' does not take queries"):
        diagnose_latents.run(parsed(f"--run={trained}", f"--output_dir={tmp_path}", "--queries=7"))


def test_a_radius_that_is_not_a_number(tmp_path):
    with pytest.raises(ValueError, match="'a' is not a radius"):
        diagnose_latents.run(parsed("--run=x", f"--output_dir={tmp_path}", "--radii=a"))


def test_what_is_missing():
    with pytest.raises(ValueError, match="--run is missing"):
        diagnose_latents.run(parsed())
    with pytest.raises(ValueError, match="--output_dir is missing"):
        diagnose_latents.run(parsed("--run=x"))
