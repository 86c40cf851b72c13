"""Small tables for a notebook, as HTML in which all text is escaped; colours are the page's own, dark or light."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of characters that show as nothing, or change how others show: controls, directions, surrogates."""

_TABLE = """\
<table style="font-variant-numeric: tabular-nums">
<caption style="text-align: left; font-weight: bold">{{ caption }}</caption>
{%- if columns %}
<thead><tr>
{%- for column in columns %}<th scope="col" style="text-align: {{ side(loop.index0) }}">{{ column }}</th>{% endfor -%}
</tr></thead>
{%- endif %}
<tbody>
{%- for row in rows %}
<tr>
{%- for cell in row %}
{%- if loop.first %}<th scope="row" style="text-align: left">{{ cell }}</th>
{%- else %}<td style="text-align: {{ side(loop.index0) }}">{{ cell }}</td>{% endif %}
{%- endfor -%}
</tr>
{%- endfor %}
</tbody></table>
"""
_NOTES = """{% for note in notes %}<p role="note" style="font-weight: bold">{{ note }}</p>{% endfor %}"""


def html_table(caption: str, rows: Iterable[Sequence[object]], *, columns: Sequence[str] = ()) -> str:
    """Return a table as HTML.

    Parameters
    ----------
    caption : str
        A few words on what it holds.
    rows : iterable of sequence
        Cells, the first of which names the row; shown as `str` has them.
    columns : sequence of str
        The heads of the columns, where these hold numbers, which are set to the right; none for a table of facts.

    Examples
    --------
    >>> "<td style=\\"text-align: left\\">&lt;b&gt;</td>" in html_table("A run", [("where", "<b>")])
    True
    """
    side = "right" if columns else "left"
    return _template(_TABLE).render(
        caption=visible(caption),
        columns=[visible(column) for column in columns],
        rows=[[visible(str(cell)) for cell in row] for row in rows],
        side=lambda place: side if place else "left",
    )


def html_notes(notes: Iterable[str | None]) -> str:
    """Return a paragraph for each sentence that there is.

    >>> html_notes([None, "1 < 2", ""])
    '<p role="note" style="font-weight: bold">1 &lt; 2</p>'
    """
    return _template(_NOTES).render(notes=[visible(str(note)) for note in notes if note])


def visible(text: str) -> str:
    r"""Return a text whose hidden characters are written as escapes, which TOML and JSON read back; lines stay lines.

    Directions could make a name read as another one, a lone surrogate can't be written to a file at all.

    >>> visible("a\u202eb\0\n") == "a\\u202eb\\u0000\n"
    True
    """
    return "".join(_escape(mark) if unicodedata.category(mark) in _HIDDEN else mark for mark in text)


def one_line(text: str) -> str:
    r"""Return a text on one line, with its hidden characters and the ends of its lines written as escapes.

    >>> print(one_line("a\nb\x00"))
    a\nb\u0000
    """
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def share_text(count: int, total: int) -> str:
    """Return a share in percent, with one digit after the point; never 0 or 100 for what only comes near.

    >>> share_text(1, 3), share_text(1, 10**9), share_text(10**9 - 1, 10**9), share_text(0, 3), share_text(0, 0)
    ('33.3 %', '< 0.1 %', '> 99.9 %', '0 %', '-')
    """
    if not total:
        return "-"
    if count in (0, total):
        return "0 %" if count == 0 else "100 %"
    tenths = (2000 * count + total) // (2 * total)  # in whole numbers, so that the page's script rounds alike
    if tenths < 1:
        return "< 0.1 %"
    return "> 99.9 %" if tenths > 999 else f"{tenths // 10}.{tenths % 10} %"


def figure_text(value: object, form: str = ".4g") -> str:
    """Return a number in few digits, "-" where there is none, and anything else as it is.

    >>> figure_text(0.98765), figure_text(1200, ","), figure_text(None), figure_text("none"), figure_text(float("nan"))
    ('0.9877', '1,200', '-', 'none', 'nan')
    """
    if value is None:
        return "-"
    if not isinstance(value, int | float):
        return str(value)
    try:
        return format(value, form)
    except OverflowError:  # a whole number beyond all floats
        return f"{value:,}"


def _escape(mark: str) -> str:
    if mark in "\n\t":
        return mark
    code = ord(mark)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@cache
def _template(text: str) -> Template:
    from jinja2 import Environment

    return Environment(autoescape=True).from_string(text)
