"""Import of weights of the reference implementations (K-Operators e104fa9, nanoGPT 3adf61e) into our models."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models import KOperators, Transformer, build
from models.base import SequenceModel, require

# our name -> reference name, tried in order; \1 stands for a layer's index
K_OPERATORS_NAMES = (
    (r"embedding\.weight", r"emb.weight"),
    (r"eta_logit", r"eta_logit"),
    (r"final_norm\.scale", r"norm.scale"),
    (r"head\.norm\.scale", r"head.0.scale"),
    (r"head\.up\.(.*)", r"head.1.\1"),
    (r"head\.out\.weight", r"head.3.weight"),
    (r"stack\.layers\.(\d+)\.base", r"k_stack.layers.\1.k_base"),
    (r"stack\.layers\.(\d+)\.base_gate_logit", r"k_stack.layers.\1.k_base_gate_logit"),
    (r"stack\.layers\.(.*)", r"k_stack.layers.\1"),
)
NANOGPT_NAMES = (
    (r"embedding\.weight", r"transformer.wte.weight"),
    (r"positions\.weight", r"transformer.wpe.weight"),
    (r"blocks\.(\d+)\.norm1\.(.*)", r"transformer.h.\1.ln_1.\2"),
    (r"blocks\.(\d+)\.norm2\.(.*)", r"transformer.h.\1.ln_2.\2"),
    (r"blocks\.(\d+)\.attention\.qkv\.(.*)", r"transformer.h.\1.attn.c_attn.\2"),
    (r"blocks\.(\d+)\.attention\.proj\.(.*)", r"transformer.h.\1.attn.c_proj.\2"),
    (r"blocks\.(\d+)\.mlp\.up\.(.*)", r"transformer.h.\1.mlp.c_fc.\2"),
    (r"blocks\.(\d+)\.mlp\.proj\.(.*)", r"transformer.h.\1.mlp.c_proj.\2"),
    (r"final_norm\.(.*)", r"transformer.ln_f.\1"),
)
NAMES = {KOperators: K_OPERATORS_NAMES, Transformer: NANOGPT_NAMES}
EMBEDDING_COPIES = {
    KOperators: "head.weight",
    Transformer: "lm_head.weight",
}  # name of a tied head's copy of the embedding
COMPILED_PREFIX = "_orig_mod."
REBUILT_BUFFERS = (".causal_mask", ".decay_diff")  # in v1's checkpoints; no parameters


def from_released(config: Any, arrays: Mapping[str, Any]) -> SequenceModel:
    """Our model with a reference implementation's weights.

    `config` is ours (KOperatorsConfig or TransformerConfig); `arrays` maps reference names to arrays or tensors, linear
    weights (out, in). ValueError names what is missing, extra, of another shape, or a tied head's copy of the embedding
    that differs from it.
    """
    model = build(config)
    names = reference_names(model)
    given = {
        name.removeprefix(COMPILED_PREFIX): array.detach() if isinstance(array, Tensor) else torch.as_tensor(array)
        for name, array in arrays.items()
        if not name.endswith(REBUILT_BUFFERS)
    }
    copy_name = EMBEDDING_COPIES[type(model)]
    embedding = given.get(names["embedding.weight"])
    if copy_name not in names.values() and copy_name in given and embedding is not None:
        copy = given.pop(copy_name)
        require(torch.equal(copy, embedding), f"{copy_name} is tied to {names['embedding.weight']}, but they differ")
    missing, extra = set(names.values()) - set(given), set(given) - set(names.values())
    require(not missing, f"missing: {', '.join(sorted(missing))}")
    require(not extra, f"not of this model: {', '.join(sorted(extra))}")
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for ours, theirs in names.items():
            expected, found = tuple(parameters[ours].shape), tuple(given[theirs].shape)
            require(expected == found, f"{theirs} has shape {found}, this config needs {expected}")
            parameters[ours].copy_(given[theirs])
    return model


def reference_names(model: SequenceModel) -> dict[str, str]:
    """Our parameter names to the reference implementation's."""
    return {name: _reference_name(name, NAMES[type(model)]) for name, _ in model.named_parameters()}


def _reference_name(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in rules:
        if match := re.fullmatch(ours, name):
            return match.expand(theirs)
    raise ValueError(f"the reference implementation has no counterpart of {name}")
