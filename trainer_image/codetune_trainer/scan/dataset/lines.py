"""How one file is told: as a row of the report, and as a line of the dataset when it is accepted. Pure."""

import orjson

from codetune_trainer.scan.records import HELD_OUT, INCLUDED, Judged
from codetune_trainer.scan.rules.judge import REDACTED

HELD_OUT_SPLIT, TRAIN_SPLIT = b'","split":"holdout"', b'","split":"train"'
"""How a line says its side. Quotes in a path are escaped, so the first such place in a line is this one."""
CHOSEN = "chosen by its content"
"""Why a file is held out by its chance."""


def join_details(why: str, detail: str) -> str:
    """Why a file is held out, and what else is to be said of it."""
    return f"{why}; {detail}" if detail else why


def strip_chosen(detail: str) -> str:
    """What else is said of a file that is held out by its chance."""
    return detail.removeprefix(CHOSEN).removeprefix("; ")


def find_redacted(detail: str) -> str:
    """What is said of secrets that were redacted; it stands last in what is said of a file by itself."""
    return detail[at:] if (at := detail.rfind(REDACTED)) >= 0 else ""


def build_row(file: Judged, held_out: bool | None) -> bytes:
    """A row of `report.jsonl`."""
    reason, detail = file.reason or (INCLUDED if file.overrode else ""), file.detail
    if held_out and not reason:
        reason, detail = HELD_OUT, join_details(file.held_out or CHOSEN, detail)
    row = {
        "path": file.path,
        "source": file.source,
        "type": file.language,
        "bytes": file.size,
        "lines": file.lines,
        "decision": "rejected" if held_out is None else "holdout" if held_out else "train",
        "reason": reason,
        "detail": detail,
    }
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def build_line(file: Judged, text: str, held_out: bool) -> tuple[bytes, bytes, bytes]:
    """A line of `files.jsonl` in parts: JSON with sorted keys and no white space, the same bytes for the same file."""
    split = HELD_OUT_SPLIT if held_out else TRAIN_SPLIT
    path, language = orjson.dumps(file.path), orjson.dumps(file.language)
    return (
        b'{"path":%b,"sha256":"%b%b,"text":' % (path, file.digests.exact.hex().encode(), split),
        orjson.dumps(text),
        b',"type":%b}\n' % language,
    )
