from __future__ import annotations

import keras
import numpy as np
import pytest
from ml_collections import ConfigDict

import keras_robust as kr
from keras_robust.core.classifier import members_of
from keras_robust.experiments.recipes import build, defense_options
from trainers import recipes


def rates(config, steps, steps_per_epoch=4):
    """The learning rate of each step, beginning with step 0."""
    optimizer = build.optimizer(config, steps_per_epoch)
    found = []
    for step in range(steps):
        optimizer.iterations.assign(step)
        found.append(float(optimizer.learning_rate))
    return found


def test_a_step_schedule_changes_at_the_first_step_after_its_epochs(tiny):
    config = tiny()
    config.optimizer.learning_rate = 1.0
    config.optimizer.schedule.kind = "step"
    config.optimizer.schedule.boundaries = (1, 2)
    config.optimizer.schedule.factor = 0.5
    # By definition: epoch 1 has the steps 0 to 3, epoch 2 the steps 4 to 7.
    np.testing.assert_allclose(rates(config, 10), [1] * 4 + [0.5] * 4 + [0.25] * 2)


def test_a_cosine_schedule_ends_with_the_last_epoch(tiny):
    config = tiny()
    config.optimizer.learning_rate = 1.0
    config.optimizer.schedule.kind = "cosine"
    config.epochs = 2
    # rate (1 + cos(pi s / 8)) / 2: 1 at step 0, 1/2 in the middle, 0 after 8 steps.
    np.testing.assert_allclose(np.array(rates(config, 9))[[0, 4, 8]], [1, 0.5, 0], atol=1e-7)


def test_one_cycle_ends_with_the_last_epoch(tiny):
    config = tiny(epochs=2)
    config.optimizer.learning_rate = 0.9
    config.optimizer.schedule.update({"kind": "one_cycle", "peak": 1 / 3})
    # The value at k + 1 of the lines (0, 0), (3, 0.9), (9, 0); the last of 8 steps is k = 7.
    expected = [0.3, 0.6, 0.9, 0.75, 0.6, 0.45, 0.3, 0.15, 0]
    np.testing.assert_allclose(rates(config, 9), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "after"),
    [("constant", [1, 1, 1]), ("step", [1, 0.1, 0.1]), ("cosine", [0.8535534, 0.6913417, 0.5])],
)
def test_a_warm_up_multiplies_any_schedule(tiny, kind, after):
    """By 1/2 and 1 in the first two steps, half an epoch; then it is the schedule, of which the
    cosine is (1 + cos(pi k / 8)) / 2 at step k."""
    config = tiny(epochs=2)
    config.optimizer.learning_rate = 1.0
    config.optimizer.schedule.update({"kind": kind, "boundaries": (0.75,), "warmup": 0.5})
    first = [0.5, (1 + np.cos(np.pi / 8)) / 2 if kind == "cosine" else 1]
    np.testing.assert_allclose(rates(config, 5), [*first, *after], rtol=1e-6)


def test_the_optimizer_gets_every_setting(tiny):
    config = tiny()
    config.optimizer.update(
        {"name": "sgd", "momentum": 0.9, "weight_decay": 0.01, "ema": 0.99, "learning_rate": 0.5}
    )
    config.optimizer.global_clipnorm = 2.0
    settings = build.optimizer(config, 1).get_config()
    assert settings["global_clipnorm"] == 2.0
    assert build.optimizer(tiny(), 1).global_clipnorm is None
    assert settings["momentum"] == 0.9
    assert settings["weight_decay"] == 0.01
    assert (settings["use_ema"], settings["ema_momentum"]) == (True, 0.99)
    assert settings["learning_rate"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("norm", "kind"), [("linf", kr.LinfBall), ("l2", kr.L2Ball), ("l1", kr.L1Ball)]
)
def test_balls(tiny, norm, kind):
    config = tiny()
    config.ball.norm = norm
    assert build.ball(config) == kind(0.15)


def test_a_union_of_balls(tiny):
    config = tiny()
    config.ball.norm, config.ball.radius = "linf=8/255+l2=0.5+l1=12", 0.5
    balls = (kr.LinfBall(8 / 255), kr.L2Ball(0.5), kr.L1Ball(12.0))
    assert build.ball(config) == kr.UnionBall(balls, 0.5)


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        ("l3=1+l2=1", "no norm"),
        ("l2=1", "expected at least two"),
        ("l2=1+linf=x", "ball.norm"),
        ("l2=1+linf", "ball.norm"),
    ],
)
def test_what_is_no_union_of_balls(tiny, norm, message):
    config = tiny()
    config.ball.norm = norm
    with pytest.raises(ValueError, match=message):
        build.ball(config)


def test_augmentation(tiny):
    config = tiny()
    assert build.augmentation(config) is None
    config.dataset.augment.name = "shift_flip"
    with config.unlocked():
        config.dataset.augment.options = {"flip": False}
    assert build.augmentation(config) == kr.data.shift_flip(flip=False)
    config.dataset.random_erasing = 0.25
    both = kr.data.chain(kr.data.shift_flip(flip=False), kr.data.random_erasing(0.25))
    assert build.augmentation(config) == both
    config.dataset.augment.name = "none"
    assert build.augmentation(config) == kr.data.random_erasing(0.25)


def test_extra_images_of_a_file(tiny, tmp_path):
    config = tiny(**{"dataset.batch_size": 100, "dataset.extra.proportion": 0.3})
    assert build.extra_images(config) is None
    config.dataset.extra.file = str(tmp_path / "more.npz")
    with pytest.raises(FileNotFoundError, match="more.npz"):
        build.data(config)
    assert build.data(config, for_training=False).info.test_size  # an evaluation needs no such file
    np.savez(tmp_path / "more.npz", images=np.zeros([40, 8, 8, 1], "uint8"))
    with pytest.raises(ValueError, match=r"more.npz'; expected a .npz file with .*'labels'"):
        build.data(config)
    np.savez(
        tmp_path / "more.npz", images=np.zeros([40, 8, 8, 1], "uint8"), labels=np.zeros(40, int)
    )
    x, _ = next(build.data(config).stream().as_numpy_iterator())
    assert (x == 0).all(axis=(1, 2, 3)).sum() == 30


@pytest.mark.parametrize(("validation", "count"), [(0.25, 359), (100.0, 100), (0.0, 0)])
def test_validation_is_a_part_or_a_number(tiny, validation, count):
    config = tiny()
    config.dataset.validation = validation
    assert build.data(config).info.validation_size == count


def test_a_limit_of_training_images(tiny):
    assert build.data(tiny(**{"dataset.limit": 300})).info.train_size == 255


def test_the_latent_is_of_the_layer_that_is_named(tiny):
    config = tiny()
    info = build.data(config).info
    config.model.options.hidden = (16, 8)
    assert build.classifier(config, info).output["features"].shape == (None, 8)
    config.model.features = "fc1"
    assert build.classifier(config, info).output["features"].shape == (None, 16)
    config.model.features = "fc3"
    with pytest.raises(ValueError, match="features='fc3' names no layer; expected one of"):
        build.classifier(config, info)


def test_training_begins_with_the_weights_of_a_file(tiny, tmp_path):
    """Without the projection that contrastive training adds; only the head is trained."""
    config = tiny()
    info = build.data(config).info
    first = build.classifier(config, info)
    projected = kr.defenses.ascl(first, kr.LinfBall(0.1), head="linear")
    projected.save(tmp_path / "first.keras")
    config.seed, config.model.weights = 5, str(tmp_path / "first.keras")
    config.model.trainable = "head"
    second = build.classifier(config, info)
    for mine, theirs in zip(second.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert [w.path for w in second.trainable_weights] == ["logits/kernel", "logits/bias"]
    config.model.options.hidden = (8,)
    with pytest.raises(
        ValueError, match=r"model.weights \(.*first.keras\) has weights of the shap"
    ):
        build.classifier(config, info)
    config.model.trainable = "tail"
    with pytest.raises(ValueError, match=r"no part \(model.trainable\) 'tail'"):
        build.check(config)


def test_members_begin_with_the_weights_of_files(tiny, tmp_path):
    """Of single networks, or of an ensemble; a stacked one trains what combines them."""
    config = tiny()
    info = build.data(config).info
    files = [tmp_path / f"{number}.keras" for number in range(2)]
    members = []
    for number, file in enumerate(files):
        config.seed = number
        members.append(build.classifier(config, info))
        members[-1].save(file)
    kr.models.ensemble(members).save(tmp_path / "both.keras")
    options = {"members": ("mlp", "mlp"), "options": {"hidden": (16,)}, "combine": "stacking"}
    config.model.name, config.model.trainable = "ensemble", "head"
    config.model.options = ConfigDict(options)
    for weights in (f"{files[0]}, {files[1]}", str(tmp_path / "both.keras")):
        config.model.weights = weights
        stacked = build.classifier(config, info)
        mine = [w for member in members_of(stacked) for w in member.get_weights()]
        theirs = [w for member in members for w in member.get_weights()]
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
        assert len(stacked.trainable_weights) == 2
    config.model.weights = str(files[0])
    with pytest.raises(ValueError, match="has 1 networks; expected 2, as in 'ensemble'"):
        build.classifier(config, info)


def test_an_architecture_by_its_name_in_release_0_1(tiny):
    config = tiny()
    config.model.name, config.model.options = "mobile_net", ConfigDict({"width": 0.05})
    build.check(config)
    assert build.classifier(config, build.data(config).info).get_layer("pair13_point_relu")


def test_the_augmentation_of_a_defense(tiny):
    config = tiny("scl")
    model = build.robust_model(config, build.data(config).info, 1)
    assert model.attack.augment == kr.data.shift_flip(flip=False)
    config.defense.options.augment = "flip"
    with pytest.raises(ValueError, match="no augmentation 'flip'; expected one of pad_crop_flip"):
        build.check(config)


def test_adr_takes_no_settings_of_a_dual_variable(tiny):
    config = tiny("adr_pgd_at")
    with config.unlocked():
        config.defense.options.dual_rate = 0.1
    with pytest.raises(ValueError, match="no option 'dual_rate'"):
        build.check(config)


@pytest.mark.parametrize(
    ("recipe", "former", "options"),
    [
        ("adr_pgd_at", {"global_": 0.5, "smoothness": 2.0}, {"global_weight": 0.5}),
        ("udr_trades", {"dual_start": 0.5, "pull": "l2"}, {"penalty": "l2"}),
    ],
)
def test_options_by_their_names_in_release_0_1(recipe, former, options):
    name = recipe.split("_")[0]
    base = {"base": recipe.removeprefix(f"{name}_")}
    found = defense_options.resolved(name, base | former)
    assert found.items() >= (base | options).items() and not found.keys() & former.keys()
    assert found.get("dual") == (kr.DualVariable(initial_value=0.5) if name == "udr" else None)


def test_an_option_that_is_set_elsewhere_is_refused():
    for option in ("seed", "name", "validation_attack", "classifier"):
        with pytest.raises(ValueError, match=f"'trades' has no option '{option}'; there are beta,"):
            defense_options.resolved("trades", {option: 1})


def test_the_seed_decides_the_weights(tiny):
    info = build.data(tiny()).info

    def kernel(seed):
        return build.classifier(tiny(seed=seed), info).weights[0].numpy()

    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert (kernel(1) != kernel(2)).any()


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_precision_is_the_layers_and_leaves_no_trace(tiny, precision):
    config = tiny(mixed_precision=precision)
    model = build.robust_model(config, build.data(config).info, 1)
    assert model.classifier.get_layer("fc1").compute_dtype == precision.removeprefix("mixed_")
    assert keras.config.dtype_policy().name == "float32"
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == "mixed_float16")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs is 0; expected a"),
        ("steps_per_execution", 0, "steps_per_execution is 0"),
        ("mixed_precision", "mixed_float", "Did you mean 'mixed_float16'"),
        ("model.name", "small_cn", "no architecture 'small_cn'; expected one of mlp, small_cnn"),
        ("defense.name", "trads", "no defense 'trads'.*mart.*Did you mean 'trades'"),
        ("ball.norm", "l3", r"no norm \(ball.norm\) 'l3'; expected one of linf, l2, l1"),
        ("ball.radius", -1.0, "radius is -1.0"),
        ("optimizer.name", "adm", "no optimizer 'adm'; expected one of sgd, adam, adamw, rmsprop"),
        ("optimizer.learning_rate", 0.0, "learning_rate is 0.0; expected a finite number > 0"),
        ("optimizer.momentum", 0.9, "momentum is 0.9; adam has no momentum"),
        ("optimizer.ema", 1.0, "ema is 1.0"),
        ("optimizer.weight_decay", -1.0, "weight_decay is -1.0"),
        ("optimizer.global_clipnorm", -1.0, "global_clipnorm is -1.0; expected a finite number"),
        ("optimizer.schedule.warmup", -1.0, "warmup is -1.0"),
        ("optimizer.schedule.peak", 1.0, "peak is 1.0; expected a number in \\(0, 1\\)"),
        ("optimizer.schedule.kind", "steps", "no schedule.*Did you mean 'step'"),
        ("dataset.extra.proportion", 1.0, "extra.proportion is 1.0"),
        ("dataset.random_erasing", 1.5, "random_erasing is 1.5"),
        ("single_step_check.images", -1, "single_step_check.images is -1"),
        ("latent_divergence.images", -1, "latent_divergence.images is -1"),
        ("latent_divergence.every", 0, "latent_divergence.every is 0"),
        ("dataset.augment.name", "flip", "no augmentation 'flip'"),
        ("evaluation.attacks", ("pgdd",), "no attack 'pgdd'.*Did you mean 'pgd'"),
        ("evaluation.attacks", ("pgd:steps=-1",), "steps is -1"),
        ("evaluation.attacks", ({"name": "fab", "options": {"loss": "dlr"}},), "not take loss"),
        ("detector.false_alarm_rate", 0.0, "expected a number in \\(0, 1\\)"),
        ("detector.score", "entropie", "no score.*Did you mean 'entropy'"),
    ],
)
def test_what_a_recipe_cannot_be(tiny, field, value, message):
    config = tiny()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=message):
        build.check(config)


def test_boundaries_increase(tiny):
    config = tiny()
    config.optimizer.schedule.kind = "step"
    for boundaries in ((2, 1), (1, 1), (0, 1)):
        config.optimizer.schedule.boundaries = boundaries
        with pytest.raises(ValueError, match="expected increasing epochs > 0"):
            build.check(config)


def test_one_cycle_has_no_further_warm_up(tiny):
    config = tiny()
    config.optimizer.schedule.update({"kind": "one_cycle", "warmup": 2.0})
    with pytest.raises(ValueError, match="warmup is 2, but 'one_cycle' begins with a growing rate"):
        build.check(config)


@pytest.mark.parametrize("group", ["model", "defense"])
def test_an_option_that_there_is_not(tiny, group):
    config = tiny()
    with config.unlocked():
        config[group].options["betta"] = 1
    with pytest.raises(ValueError, match=f"The {group} '.*' has no option 'betta'; there are"):
        build.check(config)


def test_a_defense_of_ensembles_wants_one(tiny):
    with pytest.raises(ValueError, match=r"'adp' trains ensembles, and model.name is 'mlp'"):
        build.check(tiny("adp"))


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        (("mlp", "mpl"), {}, "no architecture 'mpl'.*Did you mean 'mlp'"),
        (("mlp", "small_cnn"), {"hidden": (4,)}, "'small_cnn' has no option 'hidden'"),
    ],
)
def test_members_that_an_ensemble_cannot_have(members, options, message):
    config = recipes.load("digits/adp")
    config.model.options = ConfigDict({"members": members, "options": options})
    with pytest.raises(ValueError, match=message):
        build.check(config)


def test_the_helper_of_a_recipe_is_a_file(tiny, tmp_path):
    config = tiny("trades")
    info = build.data(config).info
    classifier = build.classifier(config, info)
    classifier.save(tmp_path / "standard.keras")
    config.defense.options.helper = str(tmp_path / "standard.keras")
    build.check(config)
    model = build.robust_model(config, info, 1)
    assert model.robust_loss.term_names == ("clean", "divergence", "helper")
    config.defense.options.helper = "nowhere.keras"
    with pytest.raises(FileNotFoundError, match="nowhere.keras does not exist"):
        build.robust_model(config, info, 1)


def test_a_schedule_counts_the_replays_of_free_training(tiny):
    config = tiny("n_fgsm", epochs=2)
    config.defense.name = "free"
    config.defense.options.replays = 3
    model = build.robust_model(config, build.data(config).info, steps_per_epoch=10)
    assert model.replays == 3
    assert model.optimizer.get_config()["learning_rate"]["config"]["steps"] == 60
