"""NCMEC's pages: fingerprints of images, members' votes, deletions over several pages, and XML that means harm."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyfilter.errors import HashListError
from safetyfilter.hashes.collecting import Collected
from safetyfilter.hashes.entries import Entries
from safetyfilter.hashes.forms.ncmec import read_ncmec
from safetyfilter.hashes.kinds import HashKind
from tests.hashes.list_files import deleted, digest, hash_of, image, kept, page, read

MD5, SHA1, SHA256 = (digest(kind, b"some bytes") for kind in ("md5", "sha1", "sha256"))
PRINTS = {"md5": MD5, "sha1": SHA1, "pdq": SHA256, "pdna": "AAAA" * 60}
ALL = {HashKind.MD5, HashKind.SHA1, HashKind.PDQ}


def test_images_give_md5_sha1_and_pdq_and_the_rest_is_counted() -> None:
    entries, into = Entries(), Collected()
    text = page(image("one", PRINTS), videos=[image("two", {"md5": MD5, "tmk-pdqf": ""}, tag="video")])
    read_ncmec(io.BytesIO(text.encode()), entries, into)
    entries.settle()
    found = into.sorted()
    assert set(found) == ALL
    assert bytes(found[HashKind.SHA1][0]) == bytes.fromhex(SHA1)[:16]
    assert into.left_out == {"of the kind pdna": 1, "of the kind video": 1}


@pytest.mark.parametrize(
    ("up", "down", "kinds"),
    [
        ({}, {}, ALL),
        ({"Md5": [1]}, {}, ALL),
        ({}, {"Md5": [1]}, ALL - {HashKind.MD5}),
        ({}, {"Sha1": [42]}, ALL - {HashKind.SHA1}),
        ({"Md5": [1]}, {"Md5": [2]}, ALL),
        ({"Md5": [1]}, {"Md5": [2, 3]}, ALL - {HashKind.MD5}),
        ({"Md5": [1, 2, 3]}, {"Md5": [1, 2]}, ALL - {HashKind.MD5}),
        ({}, {"Pdna": [1, 2]}, ALL),
        ({}, {"": [1]}, set()),
        ({"Pdq": [1]}, {"Md5": [1], "Sha1": [1], "Pdq": [1]}, set()),
    ],
)  # fmt: skip
def test_a_fingerprint_that_more_members_reject_than_affirm_is_out(up, down, kinds: set[HashKind]) -> None:
    assert set(read(page(image("one", PRINTS, up=up, down=down)))) == kinds


@pytest.mark.parametrize(
    ("entries", "listed"),
    [
        ([image("one", PRINTS), deleted("one")], False),
        ([deleted("one"), image("one", PRINTS)], True),
        ([image("one", PRINTS), deleted("two")], True),
        ([image("one", PRINTS), deleted("one", member=43)], True),
        ([image("one", PRINTS), deleted("one", tag="deletedVideo")], True),
        ([image("one", PRINTS), image("one", {"sha1": SHA1})], False),
        ([image("one", PRINTS), image("one", PRINTS, member=43), deleted("one")], True),
        ([image("", PRINTS), deleted("")], True),
    ],
)
def test_deletions_and_replacements_hold_for_what_came_before(entries: list[str], listed: bool) -> None:
    assert (HashKind.MD5 in read(page(*entries))) == listed


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([1, 2]), st.integers(0, 5) | st.none()), max_size=12))
def test_the_last_word_on_each_entry_holds(events: list[tuple[str, int, int | None]]) -> None:
    state: dict[tuple[str, int], int] = {}
    words = []
    for identity, member, number in events:
        if number is None:
            state.pop((identity, member), None)
            words.append(deleted(identity, member=member))
        else:
            state[identity, member] = number
            words.append(image(identity, {"md5": hash_of(HashKind.MD5, number).hex()}, member=member))
    assert read(page(*words)) == kept((HashKind.MD5, hash_of(HashKind.MD5, number)) for number in state.values())


def test_a_fingerprint_that_is_broken_is_counted_and_ends_nothing() -> None:
    entries, into = Entries(), Collected()
    wrong = {"md5": "a1a1...", "sha1": "", "sha256": "0" * 70_000, "pdq": SHA256}
    read_ncmec(io.BytesIO(page(image("one", wrong)).encode()), entries, into)
    entries.settle()
    assert set(into.sorted()) == {HashKind.PDQ}
    assert into.left_out == {"broken, and not a hash of their kind": 3}


LAUGHS = "<!DOCTYPE q [<!ENTITY a 'ha'>" + "".join(f"<!ENTITY a{n} '{'&a;' * 99}'>" for n in range(9)) + "]>"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (LAUGHS + "<queryResult>&a8;</queryResult>", "line 1 of FILE has a document type or an entity"),
        ('<!DOCTYPE q SYSTEM "file:///etc/passwd"><queryResult/>', "has a document type or an entity"),
        ("<queryResult>&unknown;</queryResult>", "line 1 of FILE is not XML"),
        ("<html/>", "line 1 of FILE is XML, and not a page of hashes"),
        ("<status><member id='1'/></status>", "is XML, and not a page of hashes"),
        (page(image("one", PRINTS))[:-5], "of FILE is not XML"),
        (page(image("one", PRINTS)) + page(), "of FILE is not XML"),
        ("<queryResult>\n" + "<a>" * 50, "line 2 of FILE is nested too deeply"),
        (f"<queryResult><images a='{'x' * (2 << 20)}'/></queryResult>", "a tag of more than a million characters"),
        (f"<queryResult><images><image>{'<a/>' * 100_001}", "an entry of too many elements"),
        ("<?xml version='1.0' encoding='no-such'?><queryResult/>", "FILE is not XML"),
        ("<queryResult>\x00</queryResult>", "of FILE is not XML"),
    ],
)
def test_xml_that_is_no_page_or_means_harm_is_told(text: str, finding: str) -> None:
    with pytest.raises(HashListError, match=finding):
        read(text)
