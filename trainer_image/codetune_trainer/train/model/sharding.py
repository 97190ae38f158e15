"""Spreads the frozen weights of a base model over the processes of a run: FSDP, one decoder layer at a time.

Each process keeps its part of every layer and gathers the rest when the layer is computed. The adapter, the embeddings
and the output head stay whole in every process.
"""

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from codetune_trainer.errors import UnsupportedModel
from codetune_trainer.train.group import Group
from codetune_trainer.train.model.modelling import Model


def shard(model: Model, device: torch.device, group: Group) -> None:
    """Spread a PEFT model that lies on the CPU, and bring it to the device. Raises: UnsupportedModel."""
    base = model.get_base_model()
    whole = set(base._no_split_modules or ())  # what transformers never spreads over devices: decoder layers
    layers = [module for module in base.modules() if type(module).__name__ in whole]
    if not layers:
        text = (
            f"The weights of a {base.config.model_type} model can't be spread over processes: its layers are unknown."
        )
        raise UnsupportedModel(text, "Set training.sharding to Off, or take GPUs with more memory.")
    mesh = init_device_mesh(device.type, (group.size,))
    for layer in layers:
        trained = {weight for weight in layer.parameters() if weight.requires_grad}
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
    for tensor in (*model.parameters(), *model.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(device)
