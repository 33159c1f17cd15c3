from __future__ import annotations

import json

import pytest
from absl import flags
from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.experiments.measuring import evaluate_ensemble
from keras_robust.experiments.runs.loaded_run import load_run
from keras_robust.experiments.training import train_run
from trainers import evaluate_ensembles


def parsed(*arguments):
    values = flags.FlagValues()
    evaluate_ensembles.define_flags(values)
    values(["program", *arguments])
    return values


@pytest.fixture(scope="module")
def ensemble_run(tmp_path_factory, tiny):
    """Two small members after a moment of training."""
    config = tiny("cce_detection")
    config.model.name = "ensemble"
    config.model.options = ConfigDict({"members": ("mlp", "mlp"), "options": {"hidden": (16,)}})
    directory = tmp_path_factory.mktemp("runs") / "cce"
    train_run.train(config, directory)
    return directory


@pytest.mark.slow
def test_it_measures_and_draws(ensemble_run, tmp_path, capsys):
    arguments = [f"--run={ensemble_run}", f"--output_dir={tmp_path}", "--limit=60", "--steps=3"]
    more = ["--attacks=pgd", "--radii=0.02,0.15"]
    (found,) = evaluate_ensembles.run(parsed(*arguments, *more), command="python -m x")
    loaded = load_run(ensemble_run)
    attack = loaded.attack("pgd", {"steps": 3})
    transfer = kr.evaluation.transfer(loaded.model, loaded.splits.test, attack, limit=60)
    assert found.transfer == transfer
    # Nothing that the program shows within the ball refutes its worst case.
    inside = [found.multi_targeted, *(row[-1] for row in transfer.accuracy)]
    inside += [1 - one.evasion_rate for one in found.detected if one.radius < 0.1]
    assert found.worst_case <= min(inside) + 1e-9
    fooled = sum(found.found_by.values())
    assert found.worst_case == pytest.approx(transfer.clean[-1] - fooled / 60)
    adaptive = {
        one.radius: one for one in found.detected if one.attack == evaluate_ensemble.ADAPTIVE
    }
    oblivious = {one.radius: one for one in found.detected if one.attack == "pgd"}
    assert list(adaptive) == list(oblivious) == [0.02, 0.15]
    assert adaptive[0.15].evasion_rate >= oblivious[0.15].evasion_rate
    assert found.row() in capsys.readouterr().out
    text = (tmp_path / "ensembles.md").read_text()
    assert found.row() in text and "| run | attack | 0.02 | 0.15 |" in text
    document = json.loads((tmp_path / "ensembles.json").read_text())
    assert document["command"] == "python -m x"
    assert document["runs"][0]["transfer"]["samples"] == 60
    assert document["runs"][0]["worst_case"] == found.worst_case
    surfaces = {
        f"cce_{who}_{kind}surface_0"
        for who in ("member_1", "member_2", "ensemble")
        for kind in ("", "attacked_")
    }
    names = {"cce_roc_by_attack", "cce_roc_by_radius", "cce_scores", "cce_members_0", *surfaces}
    assert {path.stem for path in tmp_path.glob("*.png")} == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--queries=7"], "None of the attacks takes queries"),
        (["--attacks=pgd,square", "--queries=7"], "'pgd' does not take queries"),
        (["--attacks=bim", "--restarts=2"], "'bim' does not take restarts"),
    ],
)
def test_options_that_attacks_do_not_take(ensemble_run, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate_ensembles.run(
            parsed(f"--run={ensemble_run}", f"--output_dir={tmp_path}", *arguments)
        )


def test_a_single_model_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match="is not an ensemble; expected one"):
        evaluate_ensembles.run(parsed(f"--run={trained}", f"--output_dir={tmp_path}", "--limit=10"))


def test_an_adaptive_attack_needs_a_detector(loaded):
    attack = loaded.attack("pgd", {"loss": "detector_aware"})
    assert attack.objective == kr.objectives.AdaptiveObjective(loaded.detector.scored_by)
    loaded.__dict__["detector"] = None
    try:
        with pytest.raises(ValueError, match="has no calibrated detector"):
            loaded.attack("pgd", {"loss": "detector_aware"})
    finally:
        del loaded.__dict__["detector"]
