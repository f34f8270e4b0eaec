"""The first DeBERTa in bf16: transformers masks its scores with a number that bf16 cannot hold.

Queries are fp32, because a bias that is fp32 is added to them, so the mask is the least number of fp32; the scores are
products in bf16 all the same. With biases in the type of the products, all of them have one type.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_BIASES = ("q_bias", "v_bias")


def make_autocastable(encoder: nn.Module) -> None:
    """Let the attention of a first DeBERTa add its biases in autocast's type; do nothing to other encoders.

    Parameters, their gradients and what is computed without autocast stay as they are.
    """
    config: Any = encoder.config
    if config.model_type != "deberta":
        return
    from transformers.models.deberta.modeling_deberta import DisentangledSelfAttention

    for module in encoder.modules():
        if isinstance(module, DisentangledSelfAttention):
            module.register_forward_pre_hook(_lower)
            module.register_forward_hook(_restore, always_call=True)


def _lower(module: nn.Module, _inputs: object) -> None:
    parameters: dict[str, Any] = {name: module.get_parameter(name) for name in _BIASES}
    device = parameters["q_bias"].device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        # An attribute of the instance is found before the parameter of its name, which stays where it is.
        vars(module).update({name: value.to(dtype) for name, value in parameters.items()})


def _restore(module: nn.Module, _inputs: object, _output: object) -> None:
    for name in _BIASES:
        vars(module).pop(name, None)
