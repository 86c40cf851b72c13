"""Nested values as XML: an object's fields are elements in their order, and a list is the same element again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias, Union
from xml.etree import ElementTree

Value: TypeAlias = Union[str, bool, int, "Mapping[str, Value]", "Sequence[Value]"]
"""The content of a field: a text, true or false, a number, fields of its own, or several of these."""

_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may hold; file names can."""


def as_xml(name: str, value: Value, **attributes: str) -> bytes:
    """Return an XML document in UTF-8.

    Parameters
    ----------
    name : str
        Of its root.
    value : Value
        A field ``@name`` is an attribute of the element around it, and ``#text`` that element's own text.
    **attributes : str
        Of the root.

    Examples
    --------
    >>> text = as_xml("files", {"hash": [{"@type": "MD5", "#text": "00ff"}, "a<b"], "viewed": False}, status="draft")
    >>> print(text.decode())
    <?xml version='1.0' encoding='utf-8'?>
    <files status="draft">
      <hash type="MD5">00ff</hash>
      <hash>a&lt;b</hash>
      <viewed>false</viewed>
    </files>
    """
    root = ElementTree.Element(name, attributes)
    _fill(root, value)
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def xml_text(text: str) -> str:
    r"""Return a text without characters that XML has no place for: their numbers stand for them.

    >>> print(xml_text("a\x00b\udcff"))
    a\u0000b\udcff
    """
    return _NOT_IN_XML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _fill(element: ElementTree.Element, value: Value) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name.startswith("@"):
                element.set(name[1:], xml_text(str(inner)))
            elif name == "#text":
                element.text = xml_text(str(inner))
            else:
                for item in inner if isinstance(inner, Sequence) and not isinstance(inner, str) else [inner]:
                    _fill(ElementTree.SubElement(element, name), item)
    elif isinstance(value, bool):
        element.text = "true" if value else "false"
    else:
        element.text = xml_text(str(value))
