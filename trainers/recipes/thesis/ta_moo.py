"""TA-MOO: the settings of Bui, thesis, Monash 2023, chapter 4, second paper (TMLR 2023).

`thesis/ta_moo/SETTING/DEFENSE`. The settings `<data>_<network>` train the victims of the attacks
(Appendix C, Table 8). The members of a non-diverse ensemble are trainings of one network with
several seeds: `--config.seed=1`.

The settings `cifar10_mobilenet_x3` and `cifar10_rme` train ensembles: three MobileNets, or a
ResNet18, a MobileNet and an EfficientNet (Appendix D.2, Tables 4 and 11), by `pgd_at` on the whole
ensemble, `min_max`, `moo` or `ta_moo`.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from keras_robust.experiments.recipes.schema import with_defense
from trainers.recipes.thesis.training import Crafting, attacked, network, sgd, start

# Table 8 has no MobileNet and no WideResNet on CIFAR-100.
_VICTIMS = {
    "cifar10": (
        *("resnet18", "vgg16", "googlenet", "efficientnet_b0"),
        *("mobilenet_v1", "wrn_34_10"),
    ),
    "cifar100": ("resnet18", "vgg16", "googlenet", "efficientnet_b0"),
}
_ENSEMBLES = {
    "cifar10_mobilenet_x3": ("mobilenet_v1",) * 3,
    "cifar10_rme": ("resnet18", "mobilenet_v1", "efficientnet_b0"),
}
# Their defaults are those of Appendix C: K = 10, eta_w = 0.005, lambda = 100; gamma = 3 of MinMax.
_SOLVERS = {"min_max": "min_max", "moo": "min_norm", "ta_moo": "task_oriented"}
SETTINGS = {
    f"{dataset}_{name}": ("standard", "pgd_at")
    for dataset, networks in _VICTIMS.items()
    for name in networks
} | dict.fromkeys(_ENSEMBLES, ("pgd_at", *_SOLVERS))


def get_config(setting: str, defense: str) -> ConfigDict:
    """The recipe of a setting and one of its defenses, of `SETTINGS`."""
    is_ensemble = setting in _ENSEMBLES
    # Appendix C, "General settings": "the same setting for both" data sets, k = 20, 200 epochs;
    # Appendix D.2 for ensembles: k = 10, 100 epochs.
    crafting = Crafting(8 / 255, 10 if is_ensemble else 20, 2 / 255)
    dataset, _, name = setting.partition("_")
    # Crops, flips and batches of 128 are those of the implementation that Appendix C links to.
    epochs = 100 if is_ensemble else 200
    config = start(dataset, crafting.radius, epochs, augment="pad_crop_flip")
    sgd(config, 0.1, 5e-4)
    config.optimizer.schedule.kind = "cosine"
    attacked(config, crafting.step_size, pgd=20)  # Appendix D.2
    if is_ensemble:
        network(config, "ensemble", members=_ENSEMBLES[setting], options={})
    else:
        network(config, name)
    options = crafting.options()
    if defense in _SOLVERS:
        config.defense.name = "ta_moo"
        options |= {"solver": _SOLVERS[defense], "clean_weight": 1.0}
        config.defense.options = ConfigDict(options)
        return config
    # The paper does not print the loss of PGD-AT. Table 8 (ResNet18: 86.5 clean, 42.1 attacked) is
    # near chapter 5 with clean cross-entropy (86.4, 46.0), far from training without it.
    return with_defense(
        config,
        defense,
        {"standard": {"steps": crafting.steps}, "pgd_at": {**options, "clean_weight": 1.0}},
    )
