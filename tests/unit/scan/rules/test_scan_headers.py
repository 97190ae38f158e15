"""Licence headers are left out of what is compared, so that nothing is a near duplicate for its header alone."""

import time
from typing import TYPE_CHECKING

import pytest
from codetune_trainer.scan.rules.headers import cut_header

if TYPE_CHECKING:
    from unit.scan.conftest import Workshop

APACHE = (
    "Licensed to the Apache Software Foundation (ASF) under one or more contributor license agreements.",
    "See the NOTICE file distributed with this work for additional information regarding copyright ownership.",
    "The ASF licenses this file to You under the Apache License, Version 2.0 (the License);",
    "you may not use this file except in compliance with the License. You may obtain a copy of the License at",
    "http www apache org licenses LICENSE-2.0 Unless required by applicable law or agreed to in writing,",
    "software distributed under the License is distributed on an AS IS BASIS,",
    "WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.",
    "See the License for the specific language governing permissions and limitations under the License.",
)


def commented(mark: str) -> str:
    return "".join(f"{mark} {line}\n" for line in APACHE)


def block(begin: str, end: str) -> str:
    return begin + "\n".join(APACHE) + end + "\n"


CODE = "use(1)\n"
FORMS = {
    "hash": commented("#"),
    "hash-without-space": "#Copyright 2020 Somebody\n#License: MIT\n",
    "slashes": commented("//"),
    "three-slashes": commented("///"),
    "dashes": commented("--"),
    "semicolons": commented(";;"),
    "percent": commented("%"),
    "stars": block("/*\n * ", "\n */"),
    "box": "".join(f"/* {line} */\n" for line in APACHE),
    "indented": "    /* Copyright */\n",
    "xml": block("<!--\n", "\n-->"),
    "docstring": block('"""', '"""'),
    "raw-docstring": block("r'''", "'''"),
    "ocaml": block("(* ", " *)"),
    "haskell": block("{- ", " -}"),
    "lua": block("--[[ ", " ]]"),
    "carriage-returns": commented("#").replace("\n", "\r"),
    "dos": commented("#").replace("\n", "\r\n"),
    "tag": "// SPDX-License-Identifier: MIT\n",
    "sign": "# \N{COPYRIGHT SIGN} Somebody\n",
    "by-its-text": "// Permission is hereby granted, free of charge, to any\n// person obtaining a copy\n",
    "gnu": "; This is free software under the GNU\n;  General Public License\n",
}


@pytest.mark.parametrize("header", [pytest.param(header, id=name) for name, header in FORMS.items()])
def test_a_comment_that_tells_a_licence_is_cut(header: str) -> None:
    assert cut_header((header + CODE).encode()).strip() == CODE.strip().encode()
    assert cut_header(header.encode()).strip() == b""


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        pytest.param("#!/bin/sh\n\n|x", "#!/bin/sh\n\n# Copyright 2020\n|x", id="behind-a-shebang"),
        pytest.param("x", "#!/bin/sh\n# Copyright 2020\nx", id="right-behind-a-shebang"),
        pytest.param("#!/usr/bin/node\nx", "#!/usr/bin/node\n/* Copyright 2020 */\nx", id="of-another-form"),
        pytest.param("<?php\nx", "<?php\n/** Copyright 2020 */\nx", id="php"),
        pytest.param(
            '<?xml version="1.0"?>\n<a/>', '<?xml version="1.0"?>\n<!-- Copyright 2020 --><a/>', id="xml-declaration"
        ),
        pytest.param("/* what */\n\nx", "/* what */\n\n// (c) 2020 A\nx", id="behind-another-comment"),
        pytest.param("/**\n * why */\nx", "/* Copyright 2020 */\n/**\n * why */\nx", id="before-another-comment"),
        pytest.param("x", "// Copyright 2020 A\n\n// Licensed under the MIT licence.\nx", id="in-two"),
        pytest.param("# what it does\nx", "# what it does\nx", id="says-nothing-of-a-licence"),
        pytest.param("x\n# Copyright 2020\n", "x\n# Copyright 2020\n", id="not-at-the-beginning"),
        pytest.param("/* Copyright 2020", "/* Copyright 2020", id="without-an-end"),
        pytest.param("#include <copyright.h>\nx", "#include <copyright.h>\nx", id="the-preprocessor"),
        pytest.param('#![doc = "Copyright"]\nx', '#![doc = "Copyright"]\nx', id="an-attribute"),
        pytest.param("", "", id="empty"),
    ],
)
def test_only_comments_that_tell_a_licence_are_cut(expected: str, text: str) -> None:
    assert cut_header(text.encode()).split() == expected.encode().split()


def test_a_comment_that_is_no_header_for_its_length_stays() -> None:
    text = (commented("#") * 20 + CODE).encode()
    assert cut_header(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        " ",
        "\n",
        "/*",
        "/* */ ",
        "/**/\n",
        "/**/\n/*",
        "#\n",
        "# \r",
        "(*",
        '"""',
        "<?xml ",
        "<!doctype ",
        "<!--",
        "\t#",
    ],
)
def test_no_text_takes_long(piece: str) -> None:
    text = piece.encode() * 10_000
    began = time.process_time()
    for _ in range(10):
        cut_header(text)
    assert time.process_time() - began < 1.0


def test_different_files_under_one_header_are_no_near_duplicates(workshop: "Workshop") -> None:
    header = commented("#")
    files = {
        "a/__init__.py": f"{header}from .x import Alpha\n",
        "b/__init__.py": f"{header}from .y import beta_function\n",
        "c/enum.py": f"{header}RED = 1\nGREEN = 2\n",
        "d/port.py": f"{header}PORT = 8080\n",
        "e/main.py": f"{header}import sys\nprint(sys.argv[1:])\n",
        "f/only.py": header,
        "g/only.py": f"{header}#\n",
    }
    workshop.volume("disk", files)
    scanned = workshop.scan(workshop.from_volume("disk"), workers=1)
    assert scanned.verdicts() == dict.fromkeys(files, "train")


def test_a_near_copy_is_found_under_whatever_header(workshop: "Workshop") -> None:
    body = "\n".join(f"def name{number}(a, b):\n    return a * {number} + b\n" for number in range(20))
    workshop.volume("disk", {"a.py": commented("#") + body, "b.py": f"# Copyright 2020 Somebody else\n{body}"})
    report = workshop.scan(workshop.from_volume("disk"), workers=1).report
    assert report["disk/b.py"]["reason"] == "NearDuplicate"
    assert report["disk/b.py"]["detail"] == "100% like disk/a.py"
