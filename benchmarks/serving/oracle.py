"""What each version says, by transformers and PEFT alone: an oracle that knows nothing of vLLM."""

from pathlib import Path
from typing import Any


def listen(model: Path, adapter: Path | None, prompt: str, tokens: int) -> tuple[list[int], list[float]]:
    """Greedy token ids and their log-probabilities, in float32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter:
        network = PeftModel.from_pretrained(network, str(adapter))
    network.eval()
    ids = AutoTokenizer.from_pretrained(model)(prompt, return_tensors="pt").input_ids
    start, scores = ids.shape[1], []
    with torch.no_grad():
        for _ in range(tokens):
            row = torch.log_softmax(network(input_ids=ids).logits[0, -1], dim=-1)
            best = row.argmax()
            scores.append(row[best].item())
            ids = torch.cat([ids, best.view(1, 1)], dim=1)
    return ids[0, start:].tolist(), scores
