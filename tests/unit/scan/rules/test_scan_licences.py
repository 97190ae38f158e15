"""Licences: what headers and licence files say, which expressions an allow list lets through, which file counts."""

from typing import TYPE_CHECKING

import pytest
from codetune_trainer.scan.rules.licensing import (
    LARGEST_BYTES,
    base_name,
    collect,
    header_licence,
    is_allowed,
    is_licence_name,
)

if TYPE_CHECKING:
    from unit.scan.conftest import Workshop

MIT = """MIT License

Copyright (c) 2026 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
HOUSE = "All code here belongs to Example Ltd. Nobody outside may use it.\n"
GPL_HEADER = """\
# This program is free software: you can redistribute it and/or modify
# it under the terms of the GNU General Public License as published by
# the Free Software Foundation, either version 3 of the License, or
# (at your option) any later version.
"""
APACHE_HEADER = """\
/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 */
"""


@pytest.mark.parametrize(
    ("expected", "name"),
    [
        (True, "LICENSE"),
        (True, "LICENCE.txt"),
        (True, "license.md"),
        (True, "COPYING"),
        (True, "COPYING.LESSER"),
        (True, "LICENSE-MIT"),
        (True, "UNLICENSE"),
        (False, "licensing.py"),
        (False, "license_check.go"),
        (False, "my-LICENSE"),
        (False, "license.py"),
        (False, "license-checker.js"),
        (False, "license.json"),
    ],
)
def test_names_of_licence_files(expected: bool, name: str) -> None:
    assert is_licence_name(name) == expected


@pytest.mark.parametrize(
    ("expected", "header"),
    [
        pytest.param("", "a = 1\n", id="none"),
        pytest.param("MIT", "# SPDX-License-Identifier: MIT\n", id="tag"),
        pytest.param("MIT", "/* SPDX-License-Identifier: MIT */\n", id="tag-in-a-comment-that-ends"),
        pytest.param("MIT OR Apache-2.0", "// SPDX-License-Identifier: MIT OR Apache-2.0\n", id="expression"),
        pytest.param("Unknown", "// SPDX-License-Identifier: *\n", id="tag-without-a-name"),
        pytest.param("GPL-3.0", GPL_HEADER, id="gpl"),
        pytest.param("LGPL-2.1", GPL_HEADER.replace("General", "Lesser General").replace("3", "2.1"), id="lgpl"),
        pytest.param("AGPL-3.0", GPL_HEADER.replace("General", "Affero General"), id="agpl"),
        pytest.param("Apache-2.0", APACHE_HEADER, id="apache-over-two-lines"),
        pytest.param("MIT", "# " + MIT.replace("\n", "\n# "), id="whole-text"),
        pytest.param("", "x = 1\n" * 1000 + GPL_HEADER, id="far-below"),
        pytest.param("", 'print("see the license")\n', id="only-the-word"),
    ],
)
def test_what_a_header_states(expected: str, header: str) -> None:
    assert header_licence(header.encode()) == expected


@pytest.mark.parametrize(
    ("expected", "expression"),
    [
        (True, "MIT"),
        (True, "mit"),
        (False, "GPL-2.0-only"),
        (True, "MIT OR GPL-2.0-only"),
        (False, "MIT AND GPL-2.0-only"),
        (True, "Apache-2.0 AND (GPL-2.0-only OR MIT)"),
        (False, "Apache-2.0 AND (GPL-2.0-only OR BSD-3-Clause)"),
        (True, "Apache-2.0 WITH LLVM-exception"),
        (True, "LGPL-2.1-or-later"),
        (True, "LGPL-2.1+"),
        (False, ""),
        (False, "MIT MIT"),
        (False, "(MIT"),
        (False, "MIT OR"),
        (False, "(" * 90),
    ],
)
def test_which_expressions_are_allowed(expected: bool, expression: str) -> None:
    allowed = frozenset(map(base_name, ["MIT", "Apache-2.0", "LGPL-2.1-only"]))
    assert is_allowed(expression, allowed) == expected


@pytest.mark.parametrize(
    ("expected", "content"),
    [
        pytest.param("MIT", MIT.encode(), id="known"),
        pytest.param("MIT", MIT.replace("\n", "\r\n").encode(), id="windows-line-ends"),
        pytest.param("MIT", MIT.replace("\n", "\n\n\t").encode(), id="set-otherwise"),
        pytest.param("MIT", MIT.replace("Copyright", "  COPYRIGHT").encode(), id="copyright-line-set-otherwise"),
        pytest.param("Unknown", HOUSE.encode(), id="of-the-house"),
        pytest.param("Unknown", b"\n" * LARGEST_BYTES, id="empty-lines-alone"),
        pytest.param("Unknown", b"\xff\xfe\x00", id="no-text"),
        pytest.param("Unknown", b"", id="empty"),
    ],
)
def test_which_licence_a_text_is(expected: str, content: bytes) -> None:
    assert collect([("LICENSE", content)]).above("a.py") == (expected, "LICENSE")


@pytest.mark.parametrize(
    ("expected", "allow"),
    [
        pytest.param({"a.py", "lib/b.py", "own/c.py", "own/deep/d.py"}, ["MIT", "Unknown", "GPL-3.0-only"], id="all"),
        pytest.param({"a.py"}, ["MIT"], id="the-nearest-file-counts"),
        pytest.param({"own/c.py", "own/deep/d.py"}, ["Unknown"], id="a-text-of-your-own"),
        pytest.param({"lib/b.py"}, ["GPL-3.0-or-later"], id="the-header-wins"),
    ],
)
def test_the_licence_of_a_file_is_its_headers_or_that_of_the_nearest_file_above(
    expected: set[str], allow: list[str], workshop: "Workshop"
) -> None:
    code = {name: workshop.code(name[-4]) for name in ("a.py", "own/c.py", "own/deep/d.py")}
    workshop.repository().commit(
        {"LICENSE": MIT, "own/LICENSE": HOUSE, "lib/b.py": GPL_HEADER + workshop.code("b"), **code}
    )
    scanned = workshop.scan(files={"licenses": {"allow": allow}})
    assert set(scanned.files) == {f"repo/{name}" for name in expected}


def test_the_report_says_which_licence_and_where(workshop: "Workshop") -> None:
    tagged = "# SPDX-License-Identifier: GPL-2.0-only\n" + workshop.code("b")
    workshop.repository().commit(
        {"own/LICENSE": HOUSE, "own/a.py": workshop.code("a"), "b.py": tagged, "c.py": workshop.code("c")}
    )
    report = workshop.scan(files={"licenses": {"allow": ["MIT"]}}).report
    assert report["repo/own/a.py"]["detail"] == "Unknown by own/LICENSE, which files.licenses.allow lacks"
    assert report["repo/b.py"]["detail"] == "GPL-2.0-only by its header, which files.licenses.allow lacks"
    assert report["repo/c.py"]["decision"] == "train"


def test_include_brings_back_what_a_licence_kept_out(workshop: "Workshop") -> None:
    workshop.repository().commit({"LICENSE": HOUSE, "a.py": workshop.code("a"), "b.py": workshop.code("b")})
    scanned = workshop.scan(files={"licenses": {"allow": ["MIT"]}, "include": ["a.py"]})
    assert set(scanned.files) == {"repo/a.py"}
    assert scanned.report["repo/a.py"]["reason"] == "Included"


def test_a_repository_may_have_more_licence_files_than_a_pipe_holds_names_of(workshop: "Workshop") -> None:
    texts = {f"texts/LICENSE-{number}": MIT for number in range(3000)}
    workshop.repository().commit({**texts, "texts/a.py": workshop.code("a"), "b.py": workshop.code("b")})
    report = workshop.scan(files={"licenses": {"allow": ["Apache-2.0"]}}).report
    assert report["repo/texts/a.py"]["detail"].startswith("MIT by texts/LICENSE-0")
    assert report["repo/b.py"]["decision"] == "train"


def test_a_program_that_is_called_license_is_no_licence(workshop: "Workshop") -> None:
    workshop.repository().commit({"LICENSE": MIT, "own/license.py": workshop.code("a"), "own/b.py": workshop.code("b")})
    scanned = workshop.scan(files={"licenses": {"allow": ["MIT"]}})
    assert set(scanned.files) == {"repo/own/license.py", "repo/own/b.py"}
