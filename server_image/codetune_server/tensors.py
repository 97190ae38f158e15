"""The header of a safetensors file of LoRA weights, checked without loading anything.

Format: https://github.com/huggingface/safetensors#format (eight bytes of length, little endian; that much JSON; data).
"""

import json
import math
from pathlib import Path
from typing import Any, TypeGuard

MAX_HEADER_BYTES = 16 << 20
"""Some hundred thousand tensors. The format allows more, but what parses it holds up every answer of the process."""
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_DOWN = (".lora_A.", ".lora_embedding_A")
"""Parts of the names of the matrices of shape [rank, in]."""


def highest_rank(path: Path) -> int:
    """Check that the tensors fill the file and belong to a LoRA; returns the highest rank among them.

    Raises: ValueError saying what is wrong with the file, OSError.
    """
    size = path.stat().st_size
    tensors, data_start = _read_header(path, size)
    position = data_start
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = (data_start + offset for offset in tensor["data_offsets"])
        if begin != position or end - begin != math.prod(tensor["shape"]) * _SIZES[tensor["dtype"]]:
            raise ValueError(f"the data of {name} don't fit its shape {tensor['shape']}")
        position = end
    if position != size:
        raise ValueError(f"it has {size} bytes where its header speaks of {position}: it was cut or written over")
    ranks = [tensor["shape"][0] for name, tensor in tensors.items() if any(part in name for part in _DOWN)]
    if not ranks:
        raise ValueError("it holds no lora_A tensor")
    return int(max(ranks))


def _read_header(path: Path, size: int) -> tuple[dict[str, dict[str, Any]], int]:
    """Tensor name → `dtype`, `shape`, `data_offsets`; and where the data begin. Raises: ValueError, OSError."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"it is no safetensors file: with {size} bytes it can't have a header of {length}")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return {name: _checked(name, tensor) for name, tensor in header.items() if name != "__metadata__"}, 8 + length


def _checked(name: str, tensor: Any) -> dict[str, Any]:
    """A tensor's entry. Raises: ValueError when it is not one."""
    if not isinstance(tensor, dict) or tensor.get("dtype") not in _SIZES:
        raise ValueError(f"{name} is not a tensor of a known dtype ({', '.join(_SIZES)})")
    for field, count in (("shape", range(1, 9)), ("data_offsets", (2,))):
        numbers = tensor.get(field)
        if not _are_whole(numbers) or len(numbers) not in count:
            raise ValueError(f"{name} has the {field} {numbers!r}")
    return tensor


def _are_whole(numbers: Any) -> TypeGuard[list[int]]:
    return isinstance(numbers, list) and all(type(number) is int and number >= 0 for number in numbers)
