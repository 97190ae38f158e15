"""Languages get GitHub Linguist's names, by file name first and by content where a name is not enough."""

import pytest
from codetune_trainer.scan.rules.languages import is_programming, is_selected, known_languages, language_of


@pytest.mark.parametrize(
    ("language", "name", "content"),
    [
        pytest.param("Python", "a.py", b"", id="python"),
        pytest.param("Python", "a.pyi", b"", id="stub"),
        pytest.param("C++", "a.cpp", b"", id="cpp"),
        pytest.param("C++", "a.cc", b"", id="cc"),
        pytest.param("C", "a.c", b"", id="c"),
        pytest.param("C", "a.h", b"int f(void);\n", id="c-header"),
        pytest.param("C++", "a.h", b"#pragma once\nnamespace a {}\n", id="cpp-header"),
        pytest.param("C++", "a.h", b"#include <vector>\n", id="cpp-header-by-include"),
        pytest.param("Objective-C", "a.h", b"#import <F/F.h>\n@interface A\n", id="objective-c-header"),
        pytest.param("Objective-C", "a.m", b"@implementation A\n", id="objective-c"),
        pytest.param("MATLAB", "a.m", b"function y = f(x)\n", id="matlab"),
        pytest.param("TypeScript", "a.ts", b"let a: number\n", id="typescript"),
        pytest.param("TypeScript", "a.d.ts", b"", id="type-declarations"),
        pytest.param("XML", "a.ts", b'<?xml version="1.0"?>\n<TS>\n', id="qt-translation"),
        pytest.param("TSX", "a.tsx", b"", id="tsx"),
        pytest.param("JavaScript", "a.mjs", b"", id="module"),
        pytest.param("JavaScript", "a.jsx", b"", id="jsx"),
        pytest.param("Shell", "a.sh", b"", id="shell"),
        pytest.param("Shell", "run", b"#!/bin/bash\n", id="bash-script"),
        pytest.param("Python", "run", b"#!/usr/bin/env -S python3.11 -u\n", id="env-with-options"),
        pytest.param("JavaScript", "cli", b"#!/usr/bin/env node\n", id="node-script"),
        pytest.param("Unknown", "run", b"#!/opt/thing\n", id="unknown-interpreter"),
        pytest.param("Unknown", "run", b"just words\n", id="no-interpreter"),
        pytest.param("Dockerfile", "Dockerfile", b"", id="dockerfile"),
        pytest.param("Makefile", "Makefile", b"", id="makefile"),
        pytest.param("CMake", "CMakeLists.txt", b"", id="cmake"),
        pytest.param("Text", "notes.txt", b"", id="text"),
        pytest.param("Starlark", "BUILD.bazel", b"", id="bazel"),
        pytest.param("Ruby", "Gemfile", b"", id="gemfile"),
        pytest.param("Perl", "a.pl", b"use strict;\n", id="perl"),
        pytest.param("Prolog", "a.pl", b"parent(X) :- child(X).\n", id="prolog"),
        pytest.param("Verilog", "a.v", b"module m;\nendmodule\n", id="verilog"),
        pytest.param("Rocq Prover", "a.v", b"Theorem t : True.\nProof.\n", id="rocq"),
        pytest.param("C#", "a.cs", b"", id="csharp"),
        pytest.param("F#", "a.fs", b"let a = 1\n", id="fsharp"),
        pytest.param("GLSL", "a.fs", b"#version 330\n", id="shader"),
        pytest.param("HCL", "main.tf", b"", id="terraform"),
        pytest.param("Emacs Lisp", "a.el", b"", id="emacs-lisp"),
        pytest.param("Vim Script", "a.vim", b"", id="vim"),
        pytest.param("Protocol Buffer", "a.proto", b"", id="protobuf"),
        pytest.param("Jupyter Notebook", "a.ipynb", b"", id="notebook"),
        pytest.param("R", "a.R", b"", id="r"),
        pytest.param("Python", "A.PY", b"", id="upper-case"),
        pytest.param("Unknown", "a", b"", id="bare-name"),
        pytest.param("Unknown", "a.", b"", id="only-a-dot"),
        pytest.param("Unknown", "", b"", id="no-name"),
        pytest.param("Ignore List", ".gitignore", b"", id="dot-file"),
        pytest.param("Shell", "run", b"\xef\xbb\xbf#!/bin/sh\n", id="interpreter-behind-a-mark"),
        pytest.param("Dockerfile", "Dockerfile.prod", b"", id="dockerfile-of-a-stage"),
        pytest.param("Ignore List", "Dockerfile.dockerignore", b"", id="not-a-dockerfile"),
        pytest.param("Apex", "a.cls", b"public class A {\n}\n", id="apex"),
        pytest.param("OpenEdge ABL", "a.cls", b"CLASS a.B:\nEND CLASS.\n", id="abl"),
        pytest.param("VBA", "a.cls", b"VERSION 1.0 CLASS\nBEGIN\n", id="vba"),
        pytest.param("TeX", "a.cls", b"\\NeedsTeXFormat{LaTeX2e}\n", id="tex-class"),
        pytest.param("ObjectScript", "a.cls", b"Class A.B Extends C\n", id="objectscript"),
        pytest.param("Apex", "a.trigger", b"trigger A on B (before insert) {}\n", id="apex-trigger"),
        pytest.param("Shell", "a.trigger", b"#!/bin/sh\n", id="shell-trigger"),
        pytest.param("ShaderLab", "a.shader", b'Shader "A" {\n', id="shaderlab"),
        pytest.param("GLSL", "a.shader", b"#version 450\n", id="glsl-shader"),
        pytest.param("Lex", "a.l", b"%{\n%}\n%%\n.xy\n", id="lex"),
        pytest.param("Common Lisp", "a.l", b"(defun f (x) x)\n", id="lisp"),
        pytest.param("Groff", "a.l", b".TH A 1\n", id="manual"),
        pytest.param("PicoLisp", "a.l", b"(de f (X) X)\n", id="picolisp"),
        pytest.param("CUE", "a.cue", b"package a\n", id="cue"),
        pytest.param("Cue Sheet", "a.cue", b'FILE "a.wav" WAVE\n  TRACK 01 AUDIO\n', id="cue-sheet"),
    ],
)
def test_a_file_is_in(language: str, name: str, content: bytes) -> None:
    assert language_of(name, content) == language


@pytest.mark.parametrize(
    ("language", "endings"),
    [
        pytest.param("ANTLR", "g4", id="antlr"),
        pytest.param("Apex", "apex", id="apex"),
        pytest.param("Cairo", "cairo", id="cairo"),
        pytest.param("Dhall", "dhall", id="dhall"),
        pytest.param("GLSL", "glsl comp", id="glsl"),
        pytest.param("HLSL", "usf ush", id="hlsl"),
        pytest.param("Lex", "lex", id="lex"),
        pytest.param("Move", "move", id="move"),
        pytest.param("P4", "p4", id="p4"),
        pytest.param("PEG.js", "pegjs", id="pegjs"),
        pytest.param("Processing", "pde", id="processing"),
        pytest.param("Yacc", "y", id="yacc"),
        pytest.param("JavaScript+ERB", "js.erb", id="javascript-in-ruby"),
    ],
)
def test_rarer_programming_languages_are_known_by_their_endings(language: str, endings: str) -> None:
    assert is_programming(language)
    assert [language_of(f"a.{ending}", b"") for ending in endings.split()] == [language] * len(endings.split())


@pytest.mark.parametrize(
    ("language", "name"),
    [
        pytest.param("EJS", "a.ejs", id="ejs"),
        pytest.param("HTML+ERB", "a.html.erb", id="erb"),
        pytest.param("HTML+Razor", "a.cshtml", id="cshtml"),
        pytest.param("HTML+Razor", "a.razor", id="razor"),
        pytest.param("FlatBuffers", "a.fbs", id="flatbuffers"),
        pytest.param("Prisma", "a.prisma", id="prisma"),
        pytest.param("Cue Sheet", "a.cue", id="cue-sheet"),
    ],
)
def test_what_linguist_calls_markup_or_data_has_a_name_and_must_be_asked_for(language: str, name: str) -> None:
    assert language_of(name, b'TITLE "a"\n') == language
    assert not is_programming(language)


@pytest.mark.parametrize(
    ("expected", "languages"),
    [
        pytest.param(True, ["Python", "C++", "Shell", "SQL", "Dockerfile", "HCL", "Vue", "Protocol Buffer"], id="yes"),
        pytest.param(
            False, ["JSON", "YAML", "Markdown", "HTML", "CSS", "SVG", "CSV", "XML", "Text", "Unknown"], id="no"
        ),
    ],
)
def test_programming_languages_are_told_from_data_markup_and_prose(expected: bool, languages: list[str]) -> None:
    assert [is_programming(language) for language in languages] == [expected] * len(languages)


@pytest.mark.parametrize(
    ("expected", "types"),
    [
        pytest.param(True, [], id="empty-takes-every-programming-language"),
        pytest.param(True, ["Python"], id="by-name"),
        pytest.param(True, ["python"], id="whatever-case"),
        pytest.param(True, [".py"], id="by-extension"),
        pytest.param(True, ["*.py"], id="by-pattern"),
        pytest.param(False, [".pyx"], id="another-extension"),
        pytest.param(False, ["py"], id="extension-without-dot"),
        pytest.param(False, ["Go", "Rust"], id="others"),
    ],
)
def test_types_select_by_language_or_extension(expected: bool, types: list[str]) -> None:
    assert is_selected("Python", "a.py", types) is expected


@pytest.mark.parametrize("name", ["a.strange", "A.STRANGE", "a.Strange"])
@pytest.mark.parametrize("asked", [".strange", ".STRANGE", "*.Strange"])
def test_an_extension_selects_whatever_case_it_or_the_file_has(name: str, asked: str) -> None:
    assert is_selected("Unknown", name, [asked])


def test_known_languages_have_linguists_names() -> None:
    known = set(known_languages().values())
    assert {"Python", "C++", "C#", "TypeScript", "Objective-C", "Shell", "Visual Basic .NET", "MATLAB"} <= known
    assert not {"Bash", "Docker", "Matlab", "VB.net", "EmacsLisp", "Unknown"} & known


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.h", b"\n" * 600_000, id="empty-lines"),
        pytest.param("a.h", b" " * 600_000, id="blanks"),
        pytest.param("run", b"#!" + b"/" * 600_000, id="interpreter-of-slashes"),
        pytest.param("a.pl", b"a(" * 300_000, id="brackets"),
        pytest.param("." * 200, b"", id="dots"),
        pytest.param("a.cls", b"\nclass " * 100_000, id="classes"),
        pytest.param("a.cls", b"\nend" + b" " * 600_000, id="an-end-without-class"),
        pytest.param("a.l", b"(de" * 200_000, id="lisp"),
        pytest.param("a.trigger", b"\n" * 600_000, id="empty-lines-of-a-trigger"),
        pytest.param("a.cue", b"\n \t" * 200_000, id="blank-lines-of-a-sheet"),
    ],
)
def test_no_content_makes_detection_slow(name: str, content: bytes) -> None:
    assert language_of(name, content) in {"C", "Perl", "Unknown", "Apex", "Lex", "CUE"}
