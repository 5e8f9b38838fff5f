"""The network that the settings of a training ask for, attached to the transformer."""

from __future__ import annotations

from hv15.config import Settings
from hv15.config.train import TrainSettings
from hv15.lora import LoRANetwork, convert, read_lora
from hv15.lora.changes import read_changes
from hv15.lora.sizes import NetworkSizes, settings_network
from hv15.lora.weighted import naming
from hv15.models import DiT
from hv15.train.random import seed_for


def make_network(settings: Settings, dit: DiT) -> LoRANetwork:
    """Attach a LoRA to the model, above those of `base_weights`, and freeze the model.

    The LoRA starts from `network_weights` if that is set. The model's weights stay as they are, so the LoRAs beneath
    are exact also if these are quantised.

    Raises:
        UserError: a setting is out of range, or a file does not fit the network or the model.
    """
    options = settings.train
    network = attach_network(options, dit, settings_network(dit.config, settings))
    if options.network_weights is not None:
        path = settings.resolve(options.network_weights)
        weights, _ = read_lora(path)
        with naming(path):
            network.load_state_dict(convert(weights, to="kohya")[0])
    for each in options.base_weights:
        path = settings.resolve(each.path)
        with naming(path):
            network.add_beneath(dit, read_changes(read_lora(path)[0]), each.multiplier)
    return network


def attach_network(options: TrainSettings, dit: DiT, sizes: NetworkSizes) -> LoRANetwork:
    """Attach a new LoRA of these sizes to the model and freeze the model.

    Raises:
        UserError: a setting is out of range.
    """
    return LoRANetwork(
        dit,
        rank=sizes.ranks,
        alpha=sizes.alphas,
        kind=sizes.kind,
        dropout=options.network_dropout,
        rank_dropout=options.rank_dropout,
        module_dropout=options.module_dropout,
        seed=seed_for(options.seed, "lora", 0),
    )
