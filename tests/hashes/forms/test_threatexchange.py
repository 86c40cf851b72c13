"""ThreatExchange's JSON: each of its shapes, deletions, votes and kinds."""

from __future__ import annotations

import io
import json

import pytest

from safetyfilter.errors import HashListError
from safetyfilter.hashes.collecting import Collected
from safetyfilter.hashes.entries import Entries
from safetyfilter.hashes.forms import threatexchange
from safetyfilter.hashes.forms.threatexchange import read_threatexchange
from safetyfilter.hashes.kinds import HashKind
from tests.hashes.list_files import digest, page_of_updates, read, update

MD5, SHA1, SHA256 = (digest(kind, b"some bytes") for kind in ("md5", "sha1", "sha256"))
ONE_MD5 = {HashKind.MD5: {bytes.fromhex(MD5)}}
DESCRIPTOR = {"id": "9", "raw_indicator": MD5.upper(), "type": "HASH_MD5", "status": "MALICIOUS", "owner": {"id": "1"}}


@pytest.mark.parametrize(
    "text",
    [
        page_of_updates(update(1, "HASH_MD5", MD5, "MALICIOUS")),
        json.dumps([update(1, "HASH_MD5", MD5)], indent=2),
        json.dumps(update(1, "HASH_MD5", MD5)),
        json.dumps({"data": [DESCRIPTOR]}),
        json.dumps({"9": DESCRIPTOR, "10": None}),
        "\ufeff" + json.dumps(DESCRIPTOR) + "\n\n" + json.dumps(DESCRIPTOR) + "\n",
        page_of_updates(update(1, "HASH_MD5", MD5)) + "\n" + page_of_updates() + "\n",
        json.dumps({"indicator": MD5, "type": "HASH_MD5"}),
        json.dumps([{"signal_type": "md5", "signal_value": MD5}]),
        json.dumps({"signal_type": "md5", "signal_hash": MD5, "signal_id": 1}),
    ],
)
def test_each_shape_is_read(text: str) -> None:
    assert read(text) == ONE_MD5


def test_the_kinds_that_are_read_and_those_that_are_counted() -> None:
    entries, into = Entries(), Collected()
    kinds = {"HASH_MD5": MD5, "HASH_SHA1": SHA1, "HASH_SHA256": SHA256, "HASH_PDQ": SHA256, "HASH_TMK": "x",
             "HASH_URL_MD5": MD5, "HASH_VIDEO_MD5": MD5, "no name!": MD5}  # fmt: skip
    text = page_of_updates(*(update(number, kind, value) for number, (kind, value) in enumerate(kinds.items())))
    read_threatexchange(io.BytesIO(text.encode()), entries, into)
    entries.settle()
    assert set(into.sorted()) == {HashKind.MD5, HashKind.SHA1, HashKind.SHA256, HashKind.PDQ}
    assert into.left_out == {
        "of the kind HASH_TMK": 1,
        "of the kind HASH_URL_MD5": 1,
        "of the kind HASH_VIDEO_MD5": 1,
        "of another kind": 1,
    }


HELPFUL, DISAGREE = ({"key": key, "value": "7,8"} for key in ("HELPFUL", "DISAGREE_WITH_TAGS"))


@pytest.mark.parametrize(
    ("entry", "listed"),
    [
        (update(1, "HASH_MD5", MD5, "MALICIOUS"), True),
        (update(1, "HASH_MD5", MD5, "UNKNOWN"), True),
        (update(1, "HASH_MD5", MD5, "SUSPICIOUS"), True),
        (update(1, "HASH_MD5", MD5, "NON_MALICIOUS"), False),
        (update(1, "HASH_MD5", MD5, "NON_MALICIOUS", "MALICIOUS"), True),
        (update(1, "HASH_MD5", MD5, "NON_MALICIOUS", "NON_MALICIOUS", "MALICIOUS"), False),
        (update(1, "HASH_MD5", MD5, "MALICIOUS", should_delete=True), False),
        ({"id": "1", "type": "HASH_MD5", "indicator": MD5, "should_delete": False}, False),
        ({**DESCRIPTOR, "status": "NON_MALICIOUS"}, False),
        ({**DESCRIPTOR, "reactions": [DISAGREE]}, False),
        ({**DESCRIPTOR, "reactions": [DISAGREE, HELPFUL]}, True),
        ({**DESCRIPTOR, "reactions": [{"key": "DISAGREE_WITH_TAGS", "value": "1"}]}, True),
    ],
)  # fmt: skip
def test_deleted_entries_and_those_that_are_voted_down_are_out(entry: dict[str, object], listed: bool) -> None:
    assert read(page_of_updates(entry)) == (ONE_MD5 if listed else {})


def test_a_later_entry_replaces_an_earlier_one_of_its_number() -> None:
    assert read(page_of_updates(update(1, "HASH_SHA1", SHA1), update(2, "HASH_SHA1", SHA1[::-1]))).keys() == {
        HashKind.SHA1
    }
    gone = update(1, "HASH_MD5", MD5, should_delete=True)
    assert read(page_of_updates(update(1, "HASH_MD5", MD5), gone)) == {}
    assert read(page_of_updates(gone, update(1, "HASH_MD5", MD5))) == ONE_MD5
    assert read(page_of_updates(update(1, "HASH_MD5", MD5), update(2, "HASH_MD5", MD5), gone)) == ONE_MD5


@pytest.mark.parametrize("same", [True, False], ids=["pages of one list", "two lists"])
def test_entries_of_one_number_replace_each_other_in_one_list_alone_and_are_counted(same: bool) -> None:
    entries, earlier = Entries(), Collected()
    later = earlier if same else Collected()
    pages = (
        [update(1, "HASH_MD5", MD5), update(2, "HASH_SHA1", SHA1)],
        [update(1, "HASH_MD5", MD5), update(2, "HASH_SHA1", SHA1[::-1])],
    )
    for page, into in zip(pages, (earlier, later), strict=True):
        read_threatexchange(io.BytesIO(page_of_updates(*page).encode()), entries, into)
    assert earlier.left_out == ({"replaced by a later one of the same number": 1} if same else {})
    assert not (later.left_out and not same)
    entries.settle()
    assert [len(each.sorted()[HashKind.SHA1]) for each in {earlier: 0, later: 0}] == ([1] if same else [1, 1])


def test_what_is_no_hash_of_its_kind_is_counted_and_ends_nothing() -> None:
    entries, into = Entries(), Collected()
    wrong = [update(1, "HASH_MD5", SHA1), update(2, "HASH_MD5", "-"), {"id": "3", "type": "HASH_MD5"}]
    read_threatexchange(io.BytesIO(page_of_updates(*wrong, update(4, "HASH_MD5", MD5)).encode()), entries, into)
    entries.settle()
    assert len(into.sorted()[HashKind.MD5]) == 1
    assert into.left_out == {"broken, and not a hash of their kind": 3}


def test_many_kinds_are_counted_together() -> None:
    entries, into = Entries(), Collected()
    text = page_of_updates(*(update(number, f"KIND_{number}", MD5) for number in range(1000)))
    read_threatexchange(io.BytesIO(text.encode()), entries, into)
    assert len(into.left_out) < 30
    assert sum(into.left_out.values()) == 1000


def test_a_text_that_is_too_large_to_be_read_as_a_whole_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threatexchange, "MAX_TEXT", 1000)
    with pytest.raises(HashListError, match="FILE is JSON of more than 0 MiB; give it in several files, in order"):
        read("[" + " " * 1000 + "]")


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("{", "FILE is not JSON"),
        ("[" * 100_000, "FILE is not JSON"),
        ('{"type": "x"}\n{"a": ', "line 2 of FILE is not JSON"),
        ('{"type": "HASH_MD5"}\n{oops}', "line 2 of FILE is not JSON"),
        ("{}", "something else than ThreatExchange's entries"),
        ("[1]", "something else than ThreatExchange's entries"),
        ('{"data": {"x": 1}}', "something else than ThreatExchange's entries"),
        ('[{"type": 1}]', "something else than ThreatExchange's entries"),
        ('[{"indicator": "x"}]', "something else than ThreatExchange's entries"),
        ('{"\xff', "FILE is not"),
    ],
)
def test_other_json_is_told(text: str, finding: str) -> None:
    with pytest.raises(HashListError, match=finding):
        read(text.encode("latin-1"))
