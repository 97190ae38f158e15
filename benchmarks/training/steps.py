"""What each step from the stock training pass to Codetune's gives: one after the other, in one process, in turn.

Every variant trains on the same documents. Prints real tokens per second by the wall clock and per second of one core,
which a busy machine disturbs less, and the kilobytes that a token keeps for the backward pass.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch: threads that wait must not count as working.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from codetune_trainer.train.data.packing import IGNORED, Packed, pack
from codetune_trainer.train.kernels import attention
from codetune_trainer.train.kernels.gating import replace_gates
from codetune_trainer.train.kernels.lora import fuse_lora
from codetune_trainer.train.kernels.norms import replace_norms
from codetune_trainer.train.kernels.rotary import replace_rotary
from codetune_trainer.train.model import footprint, losses
from peft import LoraConfig, get_peft_model
from stock import windows
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass
class Variant:
    """A model and how a pass over its batch is made."""

    name: str
    model: Any
    batch: Packed
    loss: Callable[[Any, Packed], torch.Tensor]
    rotate: Callable[..., Any]


def full_loss(model: Any, batch: Packed) -> torch.Tensor:
    """The model's own forward pass, all logits at once."""
    mask = batch.mask() if batch.is_shared else (batch.segments >= 0).long()
    logits = model(input_ids=batch.tokens, position_ids=batch.positions, attention_mask=mask).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED)


def use_attention(base: Any) -> None:
    """Attention inside documents."""
    attention.register()
    base.set_attn_implementation(attention.NAME)


def build_variants(options: argparse.Namespace) -> list[Variant]:
    """From stock on, each with one step more."""
    import transformers.models.llama.modeling_llama as family

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    pieces = [row["input_ids"] for row in windows(options.dataset, "train", tokenizer, options.length)]
    # Tails of files among them, as many as there are in the whole.
    some = pieces[:: max(1, len(pieces) // options.pieces)]
    padded, packed = (pack(some, options.length, tokenizer.eos_token_id, shared=shared) for shared in (False, True))
    stock_rotation = family.apply_rotary_pos_emb
    found = []
    before: list[Callable[[Any], object]] = []
    steps: list[tuple[str, Packed, Any, Callable[[Any], object] | None]] = [
        ("padded, all logits", padded, full_loss, None),
        ("packed", packed, full_loss, None),
        ("logits in chunks", packed, losses.sum_loss, None),
        ("attention inside documents", packed, losses.sum_loss, use_attention),
        ("norms", packed, losses.sum_loss, replace_norms),
        ("gated product", packed, losses.sum_loss, replace_gates),
        ("rotation", packed, losses.sum_loss, replace_rotary),
        ("LoRA as one operation", packed, losses.sum_loss, fuse_lora),
    ]
    for name, batch, loss, change in steps:
        family.apply_rotary_pos_emb = stock_rotation
        if change:
            before.append(change)
        model = build_model(options.model, before)
        found.append(Variant(name, model, batch, loss, family.apply_rotary_pos_emb))
    return found


def build_model(folder: str, changes: list[Callable[[Any], object]]) -> Any:
    """A model with an adapter and these changes."""
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    base.requires_grad_(False)
    for change in changes:
        if change is not fuse_lora:
            change(base)
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    if fuse_lora in changes:
        fuse_lora(model)
    return model.train()


def time_pass(variant: Variant, rows: int) -> tuple[float, float]:
    """Tokens per second by the wall clock, and per second of one core."""
    import transformers.models.llama.modeling_llama as family

    family.apply_rotary_pos_emb = variant.rotate
    began, worked = time.perf_counter(), time.process_time()
    for start in range(0, len(variant.batch), rows):
        variant.loss(variant.model, variant.batch.choose(slice(start, start + rows))).backward()
    took, work = time.perf_counter() - began, time.process_time() - worked
    variant.model.zero_grad()
    tokens = int((variant.batch.segments >= 0).sum())
    return tokens / took, tokens / work


def main() -> None:
    """Time all variants in turn and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--pieces", type=int, default=6)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    variants = build_variants(options)
    found: dict[str, list[tuple[float, float]]] = {variant.name: [] for variant in variants}
    for _ in range(options.runs):
        for variant in variants:
            found[variant.name].append(time_pass(variant, options.rows))
    print("| step | tokens/s | a second of one core | kB a token |\n|---|---|---|---|")
    for variant in variants:
        wall, core = (statistics.median(run[index] for run in found[variant.name]) for index in (0, 1))
        print(f"| {variant.name} | {wall:.0f} | {core:.1f} | {kept(variant, options.length):.0f} |")


def kept(variant: Variant, length: int) -> float:
    """Kilobytes that a token of a sequence of so many keeps until the backward pass."""
    stock, losses.sum_loss = losses.sum_loss, variant.loss
    try:
        return footprint.measure(variant.model, "Float32", length, shared=True).whole.row / length / 1000
    finally:
        losses.sum_loss = stock


if __name__ == "__main__":
    main()
