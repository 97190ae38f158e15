"""The peer: transformers.Trainer with PEFT, as their documentation shows it, on a Codetune dataset folder.

Each file is cut into windows of the sequence length and padded; real tokens are those that are not padding. Prints one
JSON line: {"seconds", "tokens", "tokens_per_second", "peak_bytes", "holdout_loss"}.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments


class Clock(TrainerCallback):
    """Times the steps after the first two: loading and warm-up are not training."""

    def __init__(self) -> None:
        self.started = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock after step 2."""
        if state.global_step == 2:
            self.started = _now()


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


def windows(dataset: Path, split: str, tokenizer: Any, length: int) -> list[dict[str, list[int]]]:
    """Token windows of the files of one split; the last window of a file is short."""
    found = []
    for line in (dataset / "files.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["split"] == split:
            tokens = [*tokenizer(row["text"])["input_ids"], tokenizer.eos_token_id]
            found += [{"input_ids": tokens[start : start + length]} for start in range(0, len(tokens), length)]
    return found


def collate(rows: list[dict[str, list[int]]], padding: int) -> dict[str, torch.Tensor]:
    """Pads a batch to its longest row; padding carries no loss."""
    longest = max(len(row["input_ids"]) for row in rows)
    tokens = torch.full((len(rows), longest), padding)
    labels = torch.full((len(rows), longest), -100)
    for index, row in enumerate(rows):
        tokens[index, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        labels[index, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
    return {"input_ids": tokens, "labels": labels, "attention_mask": (labels != -100).long()}


@torch.no_grad()
def holdout_loss(model: Any, rows: list[dict[str, list[int]]]) -> float:
    """Mean next-token loss over the held-out windows, in nats."""
    total, count = 0.0, 0
    model.eval()
    for row in rows:
        tokens = torch.tensor([row["input_ids"]], device=model.device)
        if tokens.shape[1] > 1:
            total += model(input_ids=tokens, labels=tokens).loss.item() * (tokens.shape[1] - 1)
            count += tokens.shape[1] - 1
    return total / count


def main() -> None:
    """Train and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    train = windows(options.dataset, "train", tokenizer, options.length)
    wanted = options.steps * options.batch * options.accumulate
    train = (train * (wanted // len(train) + 1))[:wanted]
    clock = Clock()
    arguments = TrainingArguments(
        output_dir="/tmp/codetune-benchmark-stock",
        max_steps=options.steps,
        per_device_train_batch_size=options.batch,
        gradient_accumulation_steps=options.accumulate,
        learning_rate=3e-4,
        bf16=options.bf16,
        save_strategy="no",
        report_to=[],
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    padding = tokenizer.pad_token_id or tokenizer.eos_token_id
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train,  # type: ignore[arg-type]
        data_collator=lambda rows: collate(rows, padding),
        callbacks=[clock],
    )
    trainer.train()
    seconds = _now() - clock.started
    tokens = sum(len(row["input_ids"]) for row in train[2 * options.batch * options.accumulate :])
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _peak_rss()
    loss = holdout_loss(trainer.model, windows(options.dataset, "holdout", tokenizer, options.length)[:64])
    figures = {"seconds": seconds, "tokens": tokens, "tokens_per_second": tokens / seconds, "peak_bytes": peak}
    print(json.dumps({**figures, "holdout_loss": loss}))


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
