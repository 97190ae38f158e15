"""The peers, as their documentation shows them: transformers.Trainer with PEFT, and TRL's SFTTrainer with packing.

One pass over the training files of a Codetune dataset folder. For the Trainer each file is cut into windows of the
sequence length, and a batch is padded to its longest; TRL packs. Saves the adapter; says after each step on how
many real tokens (not padding) it was trained so far.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments


class Teller(TrainerCallback):
    """Says after each step how many tokens were trained on."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The data loader may have made one batch more than was trained on."""
        print(f"trained on {sum(self.batches[: state.global_step])} tokens", flush=True)


class Counter:
    """A collator that notes the real tokens of the batches it makes."""

    def __init__(self, collate: Any, batches: list[int]) -> None:
        self._collate = collate
        self._batches = batches

    def __call__(self, rows: Any) -> Any:
        """The batch of the collator."""
        self._batches.append(sum(len(row["input_ids"]) for row in rows))
        return self._collate(rows)


def documents(dataset: Path, split: str, tokenizer: Any) -> list[list[int]]:
    """Tokens of the files of one split."""
    rows = [json.loads(line) for line in (dataset / "files.jsonl").read_text().splitlines()]
    return [[*tokenizer(row["text"])["input_ids"], tokenizer.eos_token_id] for row in rows if row["split"] == split]


def windows(dataset: Path, split: str, tokenizer: Any, length: int) -> list[dict[str, list[int]]]:
    """Token windows of the files of one split; the last window of a file is short."""
    found = documents(dataset, split, tokenizer)
    return [{"input_ids": tokens[at : at + length]} for tokens in found for at in range(0, len(tokens), length)]


def collate(rows: list[dict[str, list[int]]], padding: int) -> dict[str, torch.Tensor]:
    """Pads a batch to its longest row; padding carries no loss."""
    longest = max(len(row["input_ids"]) for row in rows)
    tokens = torch.full((len(rows), longest), padding)
    labels = torch.full((len(rows), longest), -100)
    for index, row in enumerate(rows):
        tokens[index, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        labels[index, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
    return {"input_ids": tokens, "labels": labels, "attention_mask": (labels != -100).long()}


def build_trainer(options: argparse.Namespace, tokenizer: Any, teller: Teller) -> Trainer:
    """transformers.Trainer with PEFT."""
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    padding = tokenizer.pad_token_id or tokenizer.eos_token_id
    return Trainer(
        model=get_peft_model(model, _adapter()),
        args=TrainingArguments(**_arguments(options), bf16=options.bf16, remove_unused_columns=False),
        train_dataset=windows(options.dataset, "train", tokenizer, options.length),  # type: ignore[arg-type]
        data_collator=Counter(lambda rows: collate(rows, padding), teller.batches),
        callbacks=[teller],
    )


def build_trl(options: argparse.Namespace, tokenizer: Any, teller: Teller) -> Trainer:
    """TRL's SFTTrainer with packing that cuts no token off; its other defaults as they are.

    Those are: weights in float32, products in bf16, activations computed twice.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [{"input_ids": tokens} for tokens in documents(options.dataset, "train", tokenizer)]
    settings = {
        "packing": True,
        "packing_strategy": "bfd_split",
        "max_length": options.length,
    }
    trainer = SFTTrainer(
        model=options.model,
        args=SFTConfig(**_arguments(options), **settings),  # type: ignore[arg-type]
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=_adapter(),
        callbacks=[teller],
    )
    trainer.data_collator = Counter(trainer.data_collator, teller.batches)
    return trainer


def _adapter() -> LoraConfig:
    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "output_dir": options.output,
        "num_train_epochs": 1,
        "per_device_train_batch_size": options.batch,
        "learning_rate": 3e-4,
        "save_strategy": "no",
        "report_to": [],
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
    }


def main() -> None:
    """Train and save the adapter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--output", required=True, help="folder for the adapter")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--trl", action="store_true")
    options = parser.parse_args()
    tokenizer, build = AutoTokenizer.from_pretrained(options.model), build_trl if options.trl else build_trainer
    trainer = build(options, tokenizer, Teller())
    trainer.train()
    trainer.save_model(options.output)


if __name__ == "__main__":
    main()
