"""The model card that goes with a downloaded model: where it comes from and how good it is. Pure.

It tells commits, counts and scores; never a line, a name or a path of the code that the model was trained on.
"""

import json
from collections.abc import Iterable

from codetune_api.finetune import CheckpointStatus, Evaluation, EvaluationScores, FineTune, Parameters

CARD = "README.md"
"""Under this name the hub and its tools look for a card."""
_MAKER = ", made with Codetune."
_HUB = "hf://"
_SCORES = {
    "Loss (nats per token)": "loss",
    "Next line, exact match": "exact_match",
    "Next line, edit similarity": "edit_similarity",
    "Fill-in-the-middle, exact match": "infill_exact_match",
    "Fill-in-the-middle, edit similarity": "infill_edit_similarity",
}
_TOLD_PARAMETERS = (
    "preset", "rank", "alpha", "dropout", "rs_lora", "quantization", "target_modules", "max_steps", "epochs",
    "sequence_length",
    "batch_tokens", "learning_rate", "scheduler", "warmup_steps", "weight_decay", "fim_rate", "fim_format", "precision",
    "seed",
)  # fmt: skip


def render_card(finetune: FineTune, checkpoint: CheckpointStatus, *, merged: bool) -> str:
    """The card as Markdown with a YAML front matter.

    Args:
        finetune: With its status, from which everything is taken.
        checkpoint: The one that is downloaded.
        merged: Whether the weights are merged into the base model; else it is an adapter.
    """
    return "\n".join(
        [
            *_front_matter(finetune, merged=merged),
            *_head(finetune, checkpoint, merged=merged),
            *_data(finetune),
            *_parameters(finetune.status.parameters),
            *_evaluation(finetune, checkpoint),
            "",
        ]
    )


def _front_matter(finetune: FineTune, *, merged: bool) -> list[str]:
    """What the hub reads; JSON strings are YAML too."""
    uri = finetune.spec.base_model
    base = []
    if uri.startswith(_HUB):
        relation = "finetune" if merged else "adapter"
        base = [f"base_model: {json.dumps(hub_name(uri))}", f"base_model_relation: {relation}"]
    tags = ["code", "codetune", *([] if merged else ["lora"])]
    library = "transformers" if merged else "peft"
    return [
        "---",
        *base,
        f"library_name: {library}",
        "pipeline_tag: text-generation",
        f"tags: {json.dumps(tags)}",
        "---",
    ]


def is_card(text: str) -> bool:
    """Whether a text is a card as `render_card` makes them."""
    return text.startswith("---\n") and _MAKER in text


def hub_name(uri: str) -> str:
    """`org/name` of `hf://org/name@revision`."""
    return uri.removeprefix(_HUB).partition("@")[0]


def _head(finetune: FineTune, checkpoint: CheckpointStatus, *, merged: bool) -> list[str]:
    pinned, resumed = finetune.status.base_model, finetune.status.resumed_from
    what = "A code-completion model: a LoRA adapter merged into its base model" if merged else "A LoRA adapter for code"
    rows = {
        "Base model": pinned.uri if pinned else finetune.spec.base_model,
        "FineTune": finetune.metadata.name,
        "Checkpoint": checkpoint.name,
        "Adapter digest": checkpoint.digest,
        "Started from": f"{resumed.checkpoint} of {resumed.fine_tune}" if resumed else "",
    }
    return ["", f"# {finetune.metadata.name}", "", f"{what}{_MAKER}", "", *_table("", "", rows.items())]


def _data(finetune: FineTune) -> list[str]:
    dataset = finetune.status.dataset
    if dataset is None:
        return []
    rows = {
        "Project": finetune.spec.project_ref.name,
        "Revision": dataset.revision,
        "Files": f"{dataset.files:,}",
        "Tokens": f"{dataset.tokens:,}",
    }
    sources = [(f"Source {source.name}", source.commit or source.digest or "no commit") for source in dataset.sources]
    return ["", "## Data", "", *_table("", "", [*rows.items(), *sources])]


def _parameters(parameters: Parameters | None) -> list[str]:
    if parameters is None:
        return []
    wire, fields = parameters.to_wire(), Parameters.model_fields
    named = ((fields[name].alias or name, wire[fields[name].alias or name]) for name in _TOLD_PARAMETERS)
    rows = [(name, ", ".join(value) if isinstance(value, list) else str(value)) for name, value in named]
    return ["", "## Parameters", "", *_table("parameter", "value", rows)]


def _evaluation(finetune: FineTune, checkpoint: CheckpointStatus) -> list[str]:
    evaluation = finetune.status.evaluation
    if evaluation is None:
        return ["", "## Evaluation", "", "Not evaluated: no file was held out, or the run was not over."]
    lines = ["", "## Evaluation", ""]
    if checkpoint.name != finetune.status.best_checkpoint:
        lines += [f"Of the checkpoint {finetune.status.best_checkpoint}, which is another one than this.", ""]
    interval = evaluation.improvement_interval
    sure = f", between {interval.low:.1%} and {interval.high:.1%} with 95 % confidence" if interval else ""
    verdict = f" Verdict: {evaluation.verdict}." if evaluation.verdict else ""
    return [
        *lines,
        f"On {evaluation.files} files that it was not trained on, the loss is {evaluation.improvement:.1%} lower than "
        f"the base model's{sure}.{verdict}",
        "",
        "| score | base | tuned |",
        "|---|---|---|",
        *_scores(evaluation),
    ]


def _scores(evaluation: Evaluation) -> list[str]:
    def read(scores: EvaluationScores, field: str) -> float | None:
        value: float | None = getattr(scores, field)
        return value

    rows = ((title, read(evaluation.base, field), read(evaluation.tuned, field)) for title, field in _SCORES.items())
    return [
        f"| {title} | {base:.4f} | {tuned:.4f} |"
        for title, base, tuned in rows
        if base is not None and tuned is not None
    ]


def _table(left: str, right: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    return [f"| {left} | {right} |", "|---|---|", *(f"| {key} | {_cell(value)} |" for key, value in rows if value)]


def _cell(value: str) -> str:
    """As code, with nothing in it that ends the cell."""
    return "`" + "".join(char for char in value if char.isprintable() and char not in "`|") + "`"
