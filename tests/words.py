"""Texts in the repository that speak of two things at once, told by word lists."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass

_WORD = re.compile(r"[^\W\d_]+")
_SENTENCE = re.compile(r"(?<=[.!?:;|])\s+|\n\s*\n|\n\s*[-*|] |\n\d+\. ")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_QUOTED = re.compile(r"\"([^\"\n]*)\"|'([^'\n]*)'|`([^`]*)`")

SCRIPTS = (".js", ".c", ".toml", ".yml", ".yaml", ".csv", ".tsv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Two lists of beginnings of words, and names that are the words of neither.

    Attributes
    ----------
    first, second : tuple of str
        Beginnings of words of one thing and of the other, in lower case. One that ends in ``$`` is a whole word.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]

    def in_one_file(self, text: str) -> bool:
        """True for a text in which it is worth looking more closely."""
        low = text.lower()
        return all(any(each.rstrip("$") in low for each in beginnings) for beginnings in (self.first, self.second))

    def together(self, text: str) -> bool:
        """True for a text with words of both lists."""
        words = {word.lower() for word in _WORD.findall(_CAMEL.sub(" ", text))}
        return _any_of(words, self.first) and _any_of(words, self.second)


def _any_of(words: Set[str], beginnings: tuple[str, ...]) -> bool:
    return any(
        word == each[:-1] if each.endswith("$") else word.startswith(each) for each in beginnings for word in words
    )


def texts_in(name: str, content: str) -> Iterator[str]:
    """Yield what is one text in a file, by its name's ending: a literal of code, a sentence, a value of data."""
    if name == ".py":
        yield from _of_python(content)
    elif name == ".ipynb":
        for cell in json.loads(content)["cells"]:
            source = "".join(cell["source"])
            yield from _of_python(_without_magic(source)) if cell["cell_type"] == "code" else sentences(source)
    elif name == ".json":
        yield from _of_value(json.loads(content))
    elif name in SCRIPTS:
        for line in content.splitlines():
            yield from (a or b or c for a, b, c in _QUOTED.findall(line))
            yield line if "//" in line or "#" in line or name in (".csv", ".tsv") else ""
    else:
        yield from sentences(content)


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences, list items and cells of a text, and the lines of code in it, on one line each."""
    for number, piece in enumerate(text.split("```")):
        yield from piece.splitlines() if number % 2 else (" ".join(each.split()) for each in _SENTENCE.split(piece))


def _of_python(content: str) -> Iterator[str]:
    tree = ast.parse(content)
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            pieces = [each.value for each in node.values if isinstance(each, ast.Constant)]
            inner |= {id(each) for each in node.values}
            yield " ".join(map(str, pieces))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            inner.add(id(node.value))
            yield from sentences(node.value.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in inner:
            yield node.value if isinstance(node.value, str) else node.value.decode("latin-1")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Name | ast.arg | ast.keyword | ast.Attribute):
            yield str(getattr(node, "id", None) or getattr(node, "arg", None) or getattr(node, "attr", ""))
    yield from (line.partition("#")[2] for line in content.splitlines() if "#" in line)


def _without_magic(source: str) -> str:
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())


def _of_value(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield str(key)
            yield from _of_value(each)
    elif isinstance(value, list):
        for each in value:
            yield from _of_value(each)
    elif isinstance(value, str):
        yield value
