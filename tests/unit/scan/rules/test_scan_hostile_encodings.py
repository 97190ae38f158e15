"""Contents that mean harm or are in no encoding that people write code in: each is text or has a reason, and ends.

Skipped on purpose: encodings that only a guess could tell (Latin-1, Shift JIS without marks): they are `NotText`.
"""

import codecs
import gzip
import io
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from unit.scan.conftest import Scanned, Workshop

    ScanDisk = Callable[..., Scanned]

CODE = "gr\u00fc\u00df = '\u6f22\U0001f600'\n"


def packed() -> bytes:
    """A zip."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a.py", "a = 1\n")
    return made.getvalue()


TEXTS = [
    pytest.param(CODE, CODE.encode(), id="utf-8"),
    pytest.param(CODE, codecs.BOM_UTF8 + CODE.encode(), id="utf-8-with-mark"),
    pytest.param("\ufeffa = 1\n", codecs.BOM_UTF8 * 2 + b"a = 1\n", id="utf-8-with-two-marks"),
    pytest.param(CODE, codecs.BOM_UTF16_LE + CODE.encode("utf-16-le"), id="utf-16-le-with-mark"),
    pytest.param(CODE, codecs.BOM_UTF16_BE + CODE.encode("utf-16-be"), id="utf-16-be-with-mark"),
    pytest.param(CODE, codecs.BOM_UTF32_LE + CODE.encode("utf-32-le"), id="utf-32-le-with-mark"),
    pytest.param(CODE, codecs.BOM_UTF32_BE + CODE.encode("utf-32-be"), id="utf-32-be-with-mark"),
    pytest.param("a = 1\r\nb = 2\nc = 3\rd = 4\n", b"a = 1\r\nb = 2\nc = 3\rd = 4\n", id="mixed-line-ends"),
    pytest.param("a = 1\rb = 2\r", b"a = 1\rb = 2\r", id="line-ends-of-old-macs"),
    pytest.param("a\x0b\x0c\x1c\x85\u2028 = 1\n", "a\x0b\x0c\x1c\x85\u2028 = 1\n".encode(), id="line-ends-of-unicode"),
    pytest.param("a\u200b\u200d\u2060 = 1\n", "a\u200b\u200d\u2060 = 1\n".encode(), id="zero-width"),
    pytest.param("# \u202e } \u2066if admin\u2069\n", "# \u202e } \u2066if admin\u2069\n".encode(), id="trojan-source"),
    pytest.param("e" + "\u0301" * 900 + "\n", ("e" + "\u0301" * 900 + "\n").encode(), id="one-letter-of-900-marks"),
    pytest.param("\x1b[2J\x07\x08\n", b"\x1b[2J\x07\x08\n", id="terminal-codes"),
    pytest.param("\ufdd0\ufffe\U0010ffff = 1\n", "\ufdd0\ufffe\U0010ffff = 1\n".encode(), id="no-characters"),
    pytest.param("a = 1", b"a = 1", id="no-line-end"),
    pytest.param("GIF89a/*\n*/ = 1\n", b"GIF89a/*\n*/ = 1\n", id="polyglot-of-gif-and-script"),
    pytest.param("#!/bin/sh\n%PDF-1.4\n", b"#!/bin/sh\n%PDF-1.4\n", id="polyglot-of-pdf-and-script"),
    pytest.param("event=result nonce=x\n", b"event=result nonce=x\n", id="protocol-line"),
    pytest.param('"}\n{"path":"x","split":"train"}\n', b'"}\n{"path":"x","split":"train"}\n', id="lines-of-a-dataset"),
    pytest.param("</s><|endoftext|><fim_prefix>\n", b"</s><|endoftext|><fim_prefix>\n", id="tokens-of-models"),
]


@pytest.mark.parametrize(("text", "content"), TEXTS)
def test_text_is_kept_letter_by_letter(workshop: "Workshop", scan_disk: "ScanDisk", text: str, content: bytes) -> None:
    workshop.volume("disk", {"a.py": content})
    scanned = scan_disk()
    assert scanned.verdicts() == {"a.py": "train"}
    assert scanned.files["disk/a.py"]["text"] == text
    assert (scanned.folder / "files.jsonl").read_bytes().count(b"\n") == 1


REFUSED = [
    pytest.param("Binary", "byte 0 at 1", CODE.encode("utf-16-le"), id="utf-16-le-without-mark"),
    pytest.param("Binary", "byte 0 at 0", CODE.encode("utf-16-be"), id="utf-16-be-without-mark"),
    pytest.param("Binary", "byte 0 at 1", CODE.encode("utf-32-le"), id="utf-32-le-without-mark"),
    pytest.param("Binary", "byte 0 at 6", b"a = 1\n\0b = 2\n", id="nul-in-the-middle"),
    pytest.param("Binary", "byte 0 at 6", b"a = 1\n\0", id="nul-at-the-end"),
    pytest.param("Binary", "byte 0 at 7", b"%PDF-1.\0" * 9, id="pdf"),
    pytest.param("Binary", "byte 0", b"a = 1\n" + packed(), id="polyglot-of-python-and-zip"),
    pytest.param("Binary", "byte 0 at 3", gzip.compress(CODE.encode(), mtime=0), id="gzip"),
    pytest.param("NotText", "not UTF-8: byte 0xc0 at 4", b"a = \xc0\xaf\n", id="overlong-slash"),
    pytest.param("NotText", "not UTF-8: byte 0xc1 at 0", b"\xc1\x81 = 1\n", id="overlong-letter"),
    pytest.param("NotText", "not UTF-8: byte 0xe0 at 0", b"\xe0\x80\x80\n", id="overlong-nul"),
    pytest.param("NotText", "not UTF-8: byte 0xed at 4", b"a = \xed\xa0\x80\n", id="lone-surrogate"),
    pytest.param("NotText", "not UTF-8: byte 0xed at 0", b"\xed\xa0\xbd\xed\xb8\x80\n", id="surrogates-in-a-pair"),
    pytest.param("NotText", "not UTF-8: byte 0xf4 at 0", b"\xf4\x90\x80\x80\n", id="beyond-unicode"),
    pytest.param("NotText", "not UTF-8: byte 0xf8 at 0", b"\xf8\x88\x80\x80\x80\n", id="five-bytes"),
    pytest.param("NotText", "not UTF-8: byte 0x80 at 0", b"\x80 = 1\n", id="goes-on-without-a-begin"),
    pytest.param("NotText", "not UTF-8: byte 0xe6 at 4", b"a = \xe6\xbc", id="cut-off-in-a-letter"),
    pytest.param("NotText", "not UTF-8: byte 0xfc at 2", "gr\u00fc\u00df = 1\n".encode("latin-1"), id="latin-1"),
    pytest.param("NotText", "not UTF-16: byte", b"\xff\xfe\x00\xd8a\0\n\0", id="utf-16-with-a-lone-surrogate"),
    pytest.param("NotText", "not UTF-16: byte 0x0a at 4", b"\xff\xfea\0\n", id="utf-16-cut-off"),
    pytest.param("NotText", "not UTF-32: byte", b"\xff\xfe\0\0\xff\xff\xff\xff", id="utf-32-beyond-unicode"),
    pytest.param("NotText", "not UTF-32: byte", b"\xff\xfe\0\0\0\xd8\0\0", id="utf-32-with-a-surrogate"),
    pytest.param("Empty", "", b"", id="nothing"),
    pytest.param("Empty", "white space", b" \t\r\n\x0b\x0c", id="white-space"),
    pytest.param("Empty", "white space", codecs.BOM_UTF8, id="a-mark-alone"),
    pytest.param("Empty", "white space", codecs.BOM_UTF8 + b"\r\n", id="a-mark-and-a-line-end"),
    pytest.param("Empty", "white space", codecs.BOM_UTF16_BE + "\r\n ".encode("utf-16-be"), id="blank-utf-16"),
    pytest.param("Empty", "white space", codecs.BOM_UTF32_LE + "\n".encode("utf-32-le"), id="blank-utf-32"),
    pytest.param("LongLines", "line 1 has 2400 characters", b"a=1\r" * 600, id="long-line-of-old-macs"),
    pytest.param("LongLines", "line 2 has 1001", b"\n" + b"\xef\xbb\xbf" * 1001 + b"\n", id="long-line-of-no-width"),
]


@pytest.mark.parametrize(("reason", "words", "content"), REFUSED)
def test_what_is_no_text_says_why(
    workshop: "Workshop", scan_disk: "ScanDisk", reason: str, words: str, content: bytes
) -> None:
    workshop.volume("disk", {"a.py": content, "keep.py": "a = 1\n"})
    row = scan_disk().report["disk/a.py"]
    assert (row["decision"], row["reason"]) == ("rejected", reason)
    assert words in row["detail"]


@pytest.mark.parametrize(("reason", "words", "content"), [case for case in REFUSED if case.values[0] != "Empty"])
def test_what_is_insisted_on_becomes_text_that_any_program_reads(
    workshop: "Workshop", scan_disk: "ScanDisk", reason: str, words: str, content: bytes
) -> None:
    workshop.volume("disk", {"a.py": content})
    scanned = scan_disk(files={"include": ["*"]})
    assert scanned.verdicts() == {"a.py": "Included"}
    assert f"against {reason}" in scanned.report["disk/a.py"]["detail"]
    text = scanned.files["disk/a.py"]["text"]
    assert "\0" not in text
    assert text.encode().decode() == text


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("expected", "rules"),
    [pytest.param("TooLarge", {}, id="left-out"), pytest.param("Included", {"include": ["*.py"]}, id="insisted-on")],
)
def test_a_line_of_sixty_megabytes_ends(
    workshop: "Workshop", scan_disk: "ScanDisk", expected: str, rules: dict[str, object]
) -> None:
    workshop.volume("disk", {"keep.md": "# a\n", "line.py": b"x" * (60 * 10**6), "small.py": "a = 1\n"})
    assert scan_disk(files=rules).verdicts()["line.py"] == expected
