"""The promises of SECURITY.md name tests that are there, and no file of the repository holds a secret."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.test_words import files

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text()
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
NAMED = sorted(set(_TEST.findall(PAGE)))
PROMISES = [line for line in PAGE.splitlines() if re.match(r"\| (\d+ )?\| (?!promise)\w", line)]


@pytest.mark.parametrize(("path", "name"), NAMED, ids="::".join)
def test_each_named_test_is_there(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert name.startswith("test_")


@pytest.mark.parametrize("line", PROMISES, ids=lambda line: line.split("|")[2].strip()[:40])
def test_each_promise_names_a_test(line: str) -> None:
    assert _TEST.search(line)


def test_all_promises_are_numbered() -> None:
    numbers = [int(found[1]) for line in PROMISES if (found := re.match(r"\| (\d+) ", line))]
    assert numbers == list(range(1, 11))
    assert {
        int(number) for found in re.findall(r"promises? ([\d, and]+)", PAGE) for number in re.findall(r"\d+", found)
    } <= set(numbers)


SECRETS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]"),
    "an access key of AWS": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a token of GitHub": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{30,}\b|\bgithub_pat_\w{40,}"),
    "a token of Hugging Face": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "a token of an index of packages": re.compile(r"\bpypi-[A-Za-z0-9_-]{50,}"),
    "a key of Google": re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"),
    "a token of Slack": re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{10,}"),
    "a web token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "a password in a URL": re.compile(r"\b\w+://[^\s/@:\"'`{}]+:(?=[^\s@]*\d)[^\s/@\"'`{}]{6,}@"),
    "a value called secret": re.compile(
        r"(?i)\b(?:secret|passw(?:or)?d|api_?key|access_?token)\b[\"']?\s*[:=]\s*[\"']([A-Za-z0-9+/_=-]{24,})[\"']"
    ),
}
_LEAST_BITS = 3.0
"""Entropy a character of what may be a random value; a word or a repeated pattern has less."""


def entropy(text: str) -> float:
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def secrets_in(text: str) -> list[str]:
    return [
        name
        for name, pattern in SECRETS.items()
        for found in pattern.finditer(text)
        if not found.groups() or entropy(found[1]) >= _LEAST_BITS
    ]


def test_no_secret_is_in_a_file() -> None:
    assert not {path: found for path, content in files().items() if (found := secrets_in(content))}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("-----BEGIN " + "PRIVATE KEY-----\nMIIEvQ", "a private key"),
        ("AKIA" + "Q7ZLM2NB4XKD8RTV", "an access key of AWS"),
        ("gh" + "p_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5", "a token of GitHub"),
        ("h" + "f_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5", "a token of Hugging Face"),
        ("s3://user" + ":hunter2hunter2@bucket", "a password in a URL"),
        ("api_key" + ' = "q8Zr5Tn2Lx7Wc4Vb9Md1Kp6Js3"', "a value called secret"),
    ],
)
def test_a_secret_would_be_found(text: str, name: str) -> None:
    assert name in secrets_in(f"x = 1\n{text}\n")
