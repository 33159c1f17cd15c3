"""CCE: the settings of Bui, thesis, Monash 2023, chapter 4, first paper (AAAI 2021).

`thesis/cce/SETTING/DEFENSE`; settings are `<data>_<network>`.

| setting | tables |
|---|---|
| `cifar10_resnet20` | 3, 9 |
| `cifar10_cnn` | 4, 10a, and, by their values, 6, 7 and 11 to 13, which name no network |
| `cifar100_cnn` | 5, 10b |

`pgd_at` is ADV_1, a single network; the others train two members. Three:
`--config.model.options.members=resnet20,resnet20,resnet20` (or `small_cnn`, three times). Rows of
Table 11: `--config.defense.options.promote=`, `demote=`. The chapter also has a network for MNIST,
trained for 100 epochs, but neither a radius nor a result; `mnist/cce_robustness` uses it.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_robust.experiments.recipes.schema import with_defense
from trainers.recipes.thesis.training import CIFAR, adam, attacked, network, start

_DEFENSES = (
    *("standard", "pgd_at", "ensemble_at", "adp"),
    *("cce_robustness", "cce_detection", "cce_base"),
)
SETTINGS = dict.fromkeys(("cifar10_resnet20", "cifar10_cnn", "cifar100_cnn"), _DEFENSES)


def get_config(setting: str, defense: str) -> ConfigDict:
    """The recipe of a setting and one of its defenses, of `SETTINGS`."""
    dataset, _, name = setting.partition("_")
    crafting = CIFAR[dataset]  # "Crafting Adversarial Examples for Defenders"
    # Supplementary material, "Model architecture and training setting"; "General Setting".
    config = start(dataset, crafting.radius, epochs=180, augment="shift_flip")
    config.dataset.batch_size = 64  # of the comparison of training times (Table 9)
    is_residual = name == "resnet20"
    network(config, "resnet20" if is_residual else "small_cnn")  # Table 8, by the classes
    adam(config, (80, 120, 160) if is_residual else ())
    # Tables 3 to 5.
    steps = {"pgd": 250} if is_residual else {"pgd": 100, "multi_targeted": 20}
    radii = tuple(crafting.radius * eps / 8 for eps in (1, 2, 4, 8, 12, 16, 20, 24))
    attacked(config, crafting.step_size, radii, **steps)
    options = crafting.options()
    if is_residual:
        # "eps ~ U(0.01, 0.05), eta = eps / 10": steps keep their ratio to the radius. Validation
        # uses the same ratio at 8/255, which is a weaker attack than those of the evaluation.
        options["step_size"] = crafting.radius / 10
        options["radius_schedule"] = "random:low=0.01:high=0.05"
    with_defense(
        config,
        defense,
        {
            "standard": {"steps": crafting.steps},
            "pgd_at": {**options, "clean_weight": 1.0},
            "ensembles": options,
        },
    )
    if defense == "adp":
        config.defense.options.update({"alpha": 2.0, "beta": 0.5})  # "Baseline Methods"
    return config
