from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import pytest
from absl import flags

import keras_robust as kr
from keras_robust.evaluation import save_page
from keras_robust.experiments.measuring import evaluate_run, evaluation_reports
from keras_robust.experiments.training import train_run
from trainers import evaluate


def parsed(*arguments):
    values = flags.FlagValues()
    evaluate.define_flags(values)
    values(["program", *arguments])
    return values


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of the run to write into; its reports are without pictures, which take long."""
    plain = functools.partial(save_page, formats=("json", "md"))
    monkeypatch.setattr(evaluation_reports, "save_page", plain)
    return shutil.copytree(trained, tmp_path / "run")


def test_the_report_of_a_run(run, monkeypatch, capsys):
    monkeypatch.setattr(evaluation_reports, "save_page", save_page)
    values = parsed(f"--run={run}", "--limit=50", "--attacks=fgsm,pgd", "--radii=0,1/20,0.1")
    (directory,) = evaluate.run(values, command="python -m y")
    assert directory == run / "report"
    assert {path.name for path in directory.iterdir()} == {
        "report.json",
        "report.md",
        "report.html",
    }
    (report,) = kr.evaluation.load_reports(directory)
    assert [attack.name for attack in report.attacks] == ["FGSM", "PGD-2"]
    assert (report.samples, report.radius) == (50, 0.15)
    assert report.curves[0].radii == (0.0, 0.05, 0.1)
    assert report.command == "python -m y"
    assert (report.dataset, report.model) == ("digits", "mlp")
    assert report.defense == "trades, beta 6, 1 steps"
    assert report.detection.false_alarm_rate == 0.05
    assert "best checkpoint" in capsys.readouterr().out


@pytest.mark.slow
def test_corruptions_are_next_to_the_report(run, capsys):
    arguments = [f"--run={run}", "--limit=20", "--attacks=fgsm", "--radii="]
    (directory,) = evaluate.run(parsed(*arguments, "--corruptions=contrast,pixelate"), "")
    found = json.loads((directory / "corruptions.json").read_text())
    assert set(found["accuracy"]) == {"contrast", "pixelate"} and found["samples"] == 20
    assert all(len(values) == 5 for values in found["accuracy"].values())
    assert "| contrast |" in (directory / "corruptions.md").read_text()
    assert "| contrast |" in (directory / "report.md").read_text()
    (report,) = kr.evaluation.load_reports(directory)
    assert set(report.corruptions.accuracy) == {"contrast", "pixelate"}
    assert "corruptions: " in capsys.readouterr().out
    with pytest.raises(ValueError, match="There is no corruption 'fogg'"):
        evaluate.run(parsed(*arguments, "--corruptions=fogg"), "")


@pytest.mark.slow
def test_a_budget_of_passes_ends_an_attack(run):
    arguments = [f"--run={run}", "--limit=20", "--attacks=pgd:steps=20", "--radii="]
    (directory,) = evaluate.run(parsed(*arguments, "--budget_per_image=6"), "")
    (report,) = kr.evaluation.load_reports(directory)
    (attack,) = report.attacks
    assert report.budget_per_image == 6
    assert 0 < attack.forward_passes + attack.backward_passes <= 6


@pytest.mark.slow
def test_checks_are_in_the_report(run):
    quick = ["--limit=40", "--attacks=fgsm", "--radii="]
    (directory,) = evaluate.run(parsed(f"--run={run}", "--checks", *quick), "")
    (report,) = kr.evaluation.load_reports(directory)
    names = [check.name for check in report.checks]
    assert names[:2] == ["gradients", "logits"] and len(names) == 8
    assert [check.passed for check in report.checks if check.name != "steps"] == [True] * 7


def test_auto_attack_resumes_after_an_interruption(run, monkeypatch, capsys):
    """Killed before its last round; what was kept is used, and gone when the report is there."""
    from keras_robust.evaluation.running import attack_runner

    monkeypatch.setattr("keras_robust.evaluation.running.run_state.SECONDS", 0.0)
    values = parsed(
        f"--run={run}", "--limit=20", "--attacks=auto_attack:steps=2:queries=3", "--radii=",
        "--radius=0.01",
    )  # fmt: skip
    run_round = attack_runner.AttackRunner._run_round

    def interrupted(self, name, part, *rest):
        if part.attack.name == "Square":
            raise KeyboardInterrupt
        return run_round(self, name, part, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(attack_runner.AttackRunner, "_run_round", interrupted)
        evaluate.run(values, command="")
    assert list((run / "unfinished").iterdir())
    capsys.readouterr()
    (directory,) = evaluate.run(values, command="")
    output = capsys.readouterr().out
    assert "AutoAttack: resumes in round 19 of 20" in output
    assert "round 20 of 20, Square: accuracy" in output and "round 18" not in output
    (report,) = kr.evaluation.load_reports(directory)
    (found,) = report.attacks
    assert found.name == "AutoAttack"
    names = [part.name for part in found.parts]
    assert names == ["APGD-CE-2", "APGD-DLR-T-2", "targeted FAB-2", "Square"]
    assert found.parts[-1].accuracy == found.accuracy
    assert not (run / "unfinished").exists()


class Clock:
    """Seconds pass with every look at it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.mark.slow
def test_out_of_time_it_resumes_with_another_budget(run, monkeypatch, capsys):
    """No card and no checks of half an evaluation; what was kept stays until all is done."""
    from keras_robust.evaluation import evaluator
    from keras_robust.evaluation.running.time_budget import TimeBudget

    monkeypatch.setattr(evaluator, "TimeBudget", lambda seconds: TimeBudget(seconds, Clock()))
    check = kr.evaluation.Check("c", True, 0, ".")
    monkeypatch.setattr(evaluator, "sanity_checks", lambda *_, **__: (check,))
    arguments = [f"--run={run}", "--limit=300", "--attacks=pgd,fgsm", "--radii=0.1", "--checks"]
    # The clock is looked at at the beginning, then before the round, before and after each batch.
    (directory,) = evaluate.run(parsed(*arguments, "--card", "--time_budget=3"), "")
    output = capsys.readouterr().out
    assert "model card: not written, as the evaluation is not finished" in output
    (report,) = kr.evaluation.load_reports(directory)
    assert [attack.name for attack in report.attacks] == ["PGD-2"]
    assert "PGD-2 stopped after 128 of " in report.unfinished
    assert "Not started: FGSM, accuracy over radius" in report.unfinished
    assert report.unfinished in output and report.checks == () and report.detection is None
    assert not (directory / "card.json").exists()
    kept = list((run / "unfinished").iterdir())
    evaluate.run(parsed(f"--run={run}", "--limit=10", "--attacks=fgsm", "--radii="), "")
    assert list((run / "unfinished").iterdir()) == kept  # it is of another evaluation
    evaluate.run(parsed(*arguments), "")
    assert "PGD-2: resumes in round 1 of 1" in capsys.readouterr().out
    (found,) = kr.evaluation.load_reports(directory)
    assert found.unfinished == "" and [check.name for check in found.checks] == ["c"]
    assert [attack.name for attack in found.attacks] == ["PGD-2", "FGSM"]
    assert found.curves and found.detection and not (run / "unfinished").exists()


@pytest.mark.slow
def test_attacks_from_another_run(trained, run, capsys):
    """From a twin, PGD is what it is on the run itself; FGSM takes one step and is left out."""
    twin = shutil.copytree(trained, run.parent / "twin")
    quick = [f"--run={run}", "--limit=40", "--attacks=pgd,fgsm", "--radii=", "--card"]
    (directory,) = evaluate.run(parsed(*quick, f"--transfer_from={twin},{run}"), "")
    (report,) = kr.evaluation.load_reports(directory)
    assert [attack.name for attack in report.attacks] == ["PGD-2", "FGSM", "PGD-2 from twin"]
    assert report.attacks[2].accuracy == pytest.approx(report.attacks[0].accuracy, abs=0.026)
    card = directory / "card.json"
    evaluate.verify(parsed(f"--verify={card}"))  # the twin lies beside it
    away = shutil.move(twin, run / "twin")
    with pytest.raises(
        ValueError, match="crafted on the run twin, .*give its place by --transfer_from=RUNS/"
    ):
        evaluate.verify(parsed(f"--verify={card}"))
    evaluate.verify(parsed(f"--verify={card}", f"--transfer_from={away}"))


def test_runs_that_cannot_be_crafted_on(trained, loaded, run):
    from keras_robust.experiments.measuring.transfer_sources import crafted_on, load_sources
    from keras_robust.experiments.runs.loaded_run import load_run

    arguments = [f"--run={run}", "--attacks=pgd"]
    with pytest.raises(ValueError, match="--transfer_from names .* alone"):
        evaluate.run(parsed(*arguments, f"--transfer_from={run}"), "")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        evaluate.run(parsed(*arguments, "--transfer_from=nowhere"), "")
    sources = load_sources([trained, str(trained)])
    assert list(sources) == [trained.name]
    here = load_run(run)
    ball = here.ball()
    with pytest.raises(ValueError, match=r"None of the attacks FGSM, FAB-100 can be crafted on"):
        crafted_on(here, [kr.attacks.fgsm(ball), kr.attacks.fab(ball)], sources)
    names = [
        attack.name
        for name in ("pgd", "apgd", "multi_targeted", "auto_attack")
        for attack in crafted_on(here, [here.attack(name)], sources)
    ]
    assert len(names) == 4 and names[3] == f"AutoAttack from {trained.name}"
    here.config.dataset.name = "mnist"
    with pytest.raises(
        ValueError, match=r"trained on digits \(images .*, 10 classes\), and .* on mnist"
    ):
        crafted_on(here, [kr.attacks.pgd(ball)], sources)


def test_every_class_as_target_has_a_name(run):
    quick = [f"--run={run}", "--limit=20", "--attacks=multi_targeted", "--radii="]
    (directory,) = evaluate.run(parsed(*quick), "")
    (report,) = kr.evaluation.load_reports(directory)
    assert [attack.name for attack in report.attacks] == ["multi-targeted PGD-2"]


def test_a_card_is_verified_and_says_what_differs(run, capsys):
    from keras_robust.experiments.measuring import run_cards

    quick = ["--limit=30", "--attacks=pgd", "--radii=", "--steps=3"]
    (directory,) = evaluate.run(parsed(f"--run={run}", "--card", *quick), "")
    card = directory / "card.json"
    assert f"model card: {card}" in capsys.readouterr().out
    evaluate.verify(parsed(f"--verify={card}"))  # its run is where it lies
    text = card.read_text()
    assert run_cards.commit() in text
    assert bool(run_cards.commit()) == (Path(kr.__file__).parents[1] / ".git").exists()
    # Another accuracy, other weights and another recipe.
    document = json.loads(text)
    document["sample"]["clean_accuracy"] = document["report"]["clean_accuracy"] = 0.9
    document["weights"] = "sha256:0"
    document["recipe"]["epochs"] = 50
    card.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="card.json does not hold") as raised:
        evaluate.verify(parsed(f"--verify={card}", f"--run={run}"))
    recipe, weights, accuracy = str(raised.value).splitlines()[1:]
    assert recipe == "  The recipe differs in epochs."
    assert weights.endswith("the card has sha256:0.")
    assert accuracy.startswith("  Clean accuracy: 90.0% of the sample in the card, ")


def test_a_card_that_cannot_be_verified(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="No model card at nowhere.json; `--card` writes"):
        evaluate.verify(parsed("--verify=nowhere.json"))
    with pytest.raises(ValueError, match="--run names 2"):
        evaluate.verify(parsed("--verify=card.json", "--run=a,b"))
    with pytest.raises(ValueError, match="--verify does not take --steps; it takes --run, --chec"):
        evaluate.verify(parsed("--verify=card.json", "--steps=3"))
    (tmp_path / "card.json").write_text("{}")
    with pytest.raises(ValueError, match="Not a model card"):
        evaluate.verify(parsed(f"--verify={tmp_path / 'card.json'}"))


@pytest.mark.slow
def test_several_runs_on_one_page(tiny, run, tmp_path):
    train_run.train(tiny("standard"), tmp_path / "plain", verbose=0)
    runs = f"--run={tmp_path / 'plain'},{run}"
    with pytest.raises(ValueError, match="--output_dir is missing"):
        evaluate.run(parsed(runs), "")
    page = tmp_path / "page"
    quick = ["--limit=20", "--attacks=fgsm", "--radii="]
    written = evaluate.run(parsed(runs, f"--output_dir={page}", *quick), "")
    assert written == [tmp_path / "plain" / "report", run / "report", page]
    reports = kr.evaluation.load_reports(page)
    assert [report.defense for report in reports] == ["standard", "trades, beta 6, 1 steps"]


def test_the_page_of_one_run(run, tmp_path):
    quick = [f"--run={run}", "--limit=20", "--attacks=fgsm", "--radii="]
    written = evaluate.run(parsed(*quick, f"--output_dir={tmp_path / 'page'}"), "")
    assert written == [run / "report", tmp_path / "page"]


def test_the_recipe_says_what_is_not_given(loaded):
    attacks, radii = evaluate_run.EvaluationPlan().for_run(loaded)
    ball = kr.LinfBall(0.15)
    assert attacks == [kr.attacks.pgd(ball, 2), kr.attacks.fgsm(ball)]
    assert radii == (0.1, 0.2)


def test_another_ball_has_no_use_for_the_recipes_step_size_and_radii(loaded):
    before = loaded.config.evaluation.attacks
    loaded.config.evaluation.attacks = ("pgd:steps=2:step_size=0.01", "fgsm")
    try:
        (attack, _), _ = evaluate_run.EvaluationPlan().for_run(loaded)
        assert attack == kr.attacks.pgd(kr.LinfBall(0.15), 2, 0.01)
        plan = evaluate_run.EvaluationPlan(["pgd"], {"restarts": 2}, norm="l2", radius=1.0)
        (attack,), radii = plan.for_run(loaded)
        assert attack == kr.attacks.restarts(kr.attacks.pgd(kr.L2Ball(1.0), 2), 2)
        assert radii == ()
    finally:
        loaded.config.evaluation.attacks = before


def test_a_union_of_balls_is_attacked_in_each_of_them(loaded):
    """Its radius is a factor, by default 1; a step size is a fraction of each radius."""
    values = parsed(
        "--run=run", "--attacks=bim:steps=2", "--step_size=0.5", "--norm=linf=1/10+l2=1"
    )
    (attack,), radii = evaluate.plan(values, {}).for_run(loaded)
    ball = kr.UnionBall((kr.LinfBall(0.1), kr.L2Ball(1.0)))
    assert attack == kr.attacks.in_each_ball(kr.attacks.bim, ball, steps=2, step_size=0.5)
    assert radii == ()


def test_another_norm_wants_a_radius(loaded):
    with pytest.raises(ValueError, match=r"radius is 0.15 in linf; give the radius in l2"):
        evaluate_run.EvaluationPlan(norm="l2").for_run(loaded)


def test_a_detector_belongs_to_its_checkpoint(run):
    from keras_robust.experiments.runs.loaded_run import load_run

    best, last = load_run(run), load_run(run, "last")
    assert (best.checkpoint, last.checkpoint) == ("best", "last")
    kept = kr.detection.Calibration.load(run / "detector.json")
    assert best.detector.threshold == kept.threshold
    # Both are of the only epoch, so the threshold found anew is the one that was kept.
    assert last.detector.threshold == pytest.approx(kept.threshold, abs=1e-5)
    (run / "detector.json").unlink()
    assert load_run(run).detector is None


def test_a_detector_is_by_the_score_of_its_calibration(run):
    from keras_robust.experiments.runs.loaded_run import load_run

    validation = load_run(run).splits.validation
    detector = kr.detection.Detector(load_run(run).model, scored_by="least_confidence")
    kept = detector.calibrate(validation, 0.1).calibration.save(run / "detector.json")
    for checkpoint in ("best", "last"):  # the second one is calibrated anew
        found = load_run(run, checkpoint).detector
        assert (found.scored_by, found.false_alarm_rate) == ("least_confidence", 0.1)
        threshold = kr.detection.Calibration.load(kept).threshold
        assert found.threshold == pytest.approx(threshold, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([], ValueError, "--run is missing"),
        (["--run=nowhere"], FileNotFoundError, "nowhere does not exist; train one with"),
        (["--run={run}", "--attacks=pgdd"], ValueError, "no attack 'pgdd'.*Did you mean 'pgd'"),
        (["--run={run}", "--radii=a"], ValueError, "'a' is not a radius"),
        (["--run={run}", "--radius=-1"], ValueError, "radius is -1"),
        (["--run={run}", "--attacks=fgsm", "--loss=kl"], ValueError, "no gradient"),
        (["--run={run}", "--attacks=pgd,fgsm", "--steps=3"], ValueError, "'fgsm' does not take st"),
        (["--run={run}", "--queries=3"], ValueError, "None of the attacks takes queries: pgd take"),
    ],
)
def test_what_cannot_be_measured(trained, arguments, error, message):
    with pytest.raises(error, match=message):
        evaluate.run(parsed(*(a.format(run=trained) for a in arguments)), "")


@pytest.mark.parametrize(
    "argument",
    [
        "--norm=l3",
        "--norm=linf=0.1",
        "--norm=linf=0.1+l3=1",
        "--steps=0",
        "--radius=x",
        "--checkpoint=first",
    ]
    + [f"--time_budget={text}" for text in ("0", "-1", "nan", "inf", "soon")],
)
def test_what_cannot_be_parsed(argument):
    with pytest.raises(flags.IllegalFlagValueError):
        parsed(argument)
