"""No prompt, fixture, string or sentence in the repository puts words of the two signals together."""

import hashlib
import json
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.words import Words, texts_in

ROOT = Path(__file__).parents[1]
FOLDERS = ("safetyfilter", "tests", "benchmarks", "docs", "notebooks", ".ci")
BINARY = {".png", ".npy", ".parquet", ".safetensors", ".pyc", ".so", ".bin", ".gz", ".zip", ".jpg", ".webp", ".tar"}

ADULT = ("nude", "nudity", "naked", "porn", "sex", "erotic", "nsfw", "genital", "breast", "undress", "lingerie",
         "fetish", "hentai", "topless", "obscen")  # fmt: skip
YOUNG = ("child", "kid$", "kids$", "toddler", "baby", "babies", "infant", "teen", "boy", "girl", "school", "underage",
         "preteen", "pupil", "juvenile", "youth", "adolescen", "kindergarten", "csam")  # fmt: skip
# The signals' own names stand together everywhere; with a word of the other list they'd be a description.
LISTS = (Words(first=(*ADULT, "explicit"), second=YOUNG), Words(first=ADULT, second=(*YOUNG, "minor$", "minors$")))

ALLOWED = {
    "README.md": {"5cfea02ed15d0a50d594029c123449951f4bcefc3eb3dfb5bc53025d869de292"},  # what is kept out
    "safetyfilter/sealed/report_fields.py": {
        "f854717d4fb5a4ae3fa22841c4c091ae863b73cab51d412ed8cdd6830400a0ad"
    },  # a hotline's form
}
"""SHA-256 of sentences that name the crime that is to be prevented, or a field of a form; by file."""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


@cache
def files() -> dict[str, str]:
    """The texts of the repository's files, by path."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    paths += [
        path for path in ROOT.iterdir() if path.suffix in (".md", ".toml") or path.name in ("LICENSE", ".gitignore")
    ]
    kept = [path for path in paths if path.is_file() and path.suffix not in BINARY and "__pycache__" not in path.parts]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8", "replace") for path in sorted(kept)}


def test_all_that_is_tracked_is_read() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a clone: nothing tells what is tracked")
    tracked = {
        name for name in listed.stdout.splitlines() if Path(name).suffix not in BINARY and (ROOT / name).exists()
    }
    assert tracked <= files().keys()


def test_no_text_has_words_of_both_signals() -> None:
    found = [
        (name, text)
        for name, content in files().items()
        if any(words.in_one_file(content) for words in LISTS)
        for text in texts_in(Path(name).suffix.lower(), content)
        if any(words.together(text) for words in LISTS) and digest(text) not in ALLOWED.get(name, set())
    ]
    assert not found


def test_each_sentence_that_is_allowed_is_still_there() -> None:
    for name, allowed in ALLOWED.items():
        assert allowed <= {digest(text) for text in texts_in(Path(name).suffix, files()[name])}


FRUIT = Words(first=("apple", "pear$"), second=("violin", "cello"))


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (".py", 'PROMPT = "an apple and a violin"'),
        (".py", 'PROMPTS = ["a cup", f"an apple by {who} with a cello"]'),
        (".py", 'PROMPT = ("an apple "\n"beside a violin")'),
        (".py", 'def f():\n    """Return apples.\n\n    More on violins and apples.\n    """'),
        (".py", "x = 1  # of apples and violins"),
        (".py", "def apple_of_the_violin(): pass"),
        (".py", "appleViolin = 1"),
        (".py", 'b = b"an apple, a violin"'),
        (".md", "A page.\n\n- Apples and\n  violins.\n"),
        (".md", "```\nscan apple violin\n```"),
        (".json", json.dumps({"captions": ["a cup", "VIOLINS and pears; pear"]})),
        (".ipynb", json.dumps({"cells": [{"cell_type": "code", "source": ["%time\n", 'a = "apple violin"']}]})),
        (".ipynb", json.dumps({"cells": [{"cell_type": "markdown", "source": ["An apple\n", "and a violin."]}]})),
        (".toml", 'caption = "apples, violins"'),
        (".js", "const text = 'apples, violins'; // nothing"),
        (".csv", "1,apple on a violin"),
        ("", "An apple and a violin"),
    ],
)
def test_the_detector_finds_words_together(ending: str, content: str) -> None:
    assert FRUIT.in_one_file(content)
    assert any(FRUIT.together(text) for text in texts_in(ending, content))


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (".py", 'PROMPTS = {"apples": ["an apple"], "violins": ["a violin"]}'),
        (".py", '"""Of apples. Of violins."""'),
        (".md", "Apples come first.\n\nViolins come second.\n\n| apple | violin |\n|---|---|\n| apple | cup |\n"),
        (".json", json.dumps(["an apple", "a violin"])),
        (".py", 'a = "a pearl on a violin"'),
        (".py", 'a = "a grapple with a violin"'),
    ],
)
def test_the_detector_lets_them_stand_apart(ending: str, content: str) -> None:
    assert not any(FRUIT.together(text) for text in texts_in(ending, content))
