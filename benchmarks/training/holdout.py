"""Held-out loss of an adapter, with transformers and PEFT alone: the same measure for all. Prints nats per token."""

import argparse
from pathlib import Path

import torch
from peft import PeftModel
from stock import windows
from transformers import AutoModelForCausalLM, AutoTokenizer


@torch.no_grad()
def main() -> None:
    """Load, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter", help="its folder; the base alone when not given")
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--windows", type=int, default=16)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).to(device)
    if options.adapter:
        model = PeftModel.from_pretrained(model, options.adapter)
    model.eval()
    total, count = 0.0, 0
    for row in windows(options.dataset, "holdout", tokenizer, options.length)[: options.windows]:
        tokens = torch.tensor([row["input_ids"]], device=device)
        if (targets := tokens.shape[1] - 1) > 0:
            total += model(input_ids=tokens, labels=tokens).loss.item() * targets
            count += targets
    print(total / count)


if __name__ == "__main__":
    main()
