"""Asks both models about far more held-out lines than a run on a CPU has time for, by the run's own measure."""

import argparse
from pathlib import Path

import torch
from codetune_api.contracts import DatasetManifest
from codetune_api.finetune import Evaluation
from codetune_trainer.train import machine
from codetune_trainer.train.data.documents import load_dataset
from codetune_trainer.train.data.encoding import build_encoder
from codetune_trainer.train.data.infilling import find_fim_tokens
from codetune_trainer.train.model.modelling import load_tokenizer
from codetune_trainer.train.scoring import evaluating
from codetune_trainer.train.scoring.answering import answer_lines, answer_middles
from codetune_trainer.train.scoring.judging import Scored, compare
from peft import PeftModel
from transformers import AutoModelForCausalLM


def ask(model: Path, adapter: Path, dataset: Path, questions: int) -> Evaluation:
    """Both models' marks on at most so many questions of a kind, at most four about each file that judges."""
    revision = DatasetManifest.model_validate_json((dataset / "manifest.json").read_text()).revision
    encoder = build_encoder(load_tokenizer(model, str(model)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fim = find_fim_tokens(encoder.tokenizer)
    files = load_dataset(dataset, revision).holdout
    samples = evaluating.prepare(files, encoder, 512, device, shared=True, fim=fim, questions=questions)
    if samples is None:
        raise SystemExit("The dataset has no held-out file.")
    held_out = samples.judging
    fast = machine.has_fast_bf16(torch.device(device))
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16 if fast else torch.float32)
    tuned = PeftModel.from_pretrained(base.to(device), adapter).eval()  # type: ignore[arg-type]

    def score() -> Scored:
        """Answers alone: the losses stand in the run's own evaluation."""
        lines = answer_lines(tuned, encoder, held_out.lines, lambda: None)
        middles = answer_middles(tuned, encoder, fim, held_out.middles, lambda: None) if fim else []
        return Scored(0.0, [], lines, middles)

    with torch.no_grad(), tuned.disable_adapter():
        before = score()
    with torch.no_grad():
        return compare(before, score())


def main() -> None:
    """Ask, and print the evaluation as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--adapter", type=Path, required=True, help="folder of a checkpoint")
    parser.add_argument("--dataset", type=Path, required=True, help="folder of the dataset that it was trained on")
    parser.add_argument("--questions", type=int, default=120)
    options = parser.parse_args()
    found = ask(options.model, options.adapter, options.dataset, options.questions)
    told = {"base", "tuned", "exact_match_interval", "infill_exact_match_interval", "lines", "infills"}
    print(found.model_dump_json(by_alias=True, include=told, exclude_none=True, indent=1))


if __name__ == "__main__":
    main()
