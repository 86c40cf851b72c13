"""Drafts of reports: the public fields of the form in their order, nothing claimed that is not known, nothing sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from safetyfilter.errors import OutputError, SealedError
from safetyfilter.sealed.evidence import Evidence
from safetyfilter.sealed.hotline import MOST_RECORDS, draft_reports
from safetyfilter.sealed.opened import OpenedRecord, read_records
from safetyfilter.sealed.report_fields import TO_FILL_IN, UNKNOWN
from safetyfilter.sealed.report_xml import as_xml

FORM = {
    "report": ["incidentSummary", "internetDetails", "lawEnforcement", "reporter", "personOrUserReported",
               "intendedRecipient", "victim", "additionalInfo"],
    "incidentSummary": ["incidentType", "platform", "escalateToHighPriority", "reportAnnotations", "incidentDateTime",
                        "incidentDateTimeDescription"],
    "internetDetails": ["webPageIncident"],
    "webPageIncident": ["url", "additionalInfo", "thirdPartyHostedContent"],
    "reporter": ["reportingPerson", "contactPerson", "companyTemplate", "termsOfService", "legalURL"],
    "reportingPerson": ["firstName", "lastName", "phone", "email", "address"],
    "fileDetails": ["reportId", "fileId", "fileName", "originalFileName", "uploadedToEspTimestamp", "locationOfFile",
                    "fileViewedByEsp", "exifViewedByEsp", "publiclyAvailable", "fileRelevance", "fileAnnotations",
                    "industryClassification", "originalFileHash", "ipCaptureEvent", "deviceId", "details",
                    "additionalInfo"],
}  # fmt: skip
"""The elements of the CyberTipline's reporting API in the order that its documentation gives them."""


def told(records: Sequence[Evidence]) -> Iterator[OpenedRecord]:
    return (OpenedRecord(run="a run's number", evidence=record) for record in records)


@pytest.fixture
def drafts(tmp_path: Path, records: tuple[Evidence, ...]) -> Path:
    draft_reports(told(records), tmp_path / "drafts")
    return tmp_path / "drafts"


def xml_of(place: Path) -> ElementTree.Element:
    return ElementTree.parse(place).getroot()


def text_of(element: ElementTree.Element, path: str) -> str:
    found = element.findtext(path)
    assert found is not None, path
    return found


def test_records_are_grouped_by_why_they_were_made(drafts: Path, tmp_path: Path, records: tuple[Evidence, ...]) -> None:
    names = {"known_hash-0001", "co_occurrence-0001", "known_hash+co_occurrence-0001"}
    assert {path.name for path in drafts.iterdir()} == {f"{name}.{end}" for name in names for end in ("json", "xml")}
    found = draft_reports(told(records), tmp_path / "again")
    assert found.records == {"known_hash+co_occurrence": 1, "known_hash": 1, "co_occurrence": 7}
    assert (found.drafts, found.without_url) == (3, 8)


def test_drafts_are_for_their_owner_alone(drafts: Path) -> None:
    assert drafts.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in drafts.iterdir()} == {0o600}


def test_elements_are_those_of_the_form_in_its_order(drafts: Path) -> None:
    seen = set()
    for place in drafts.glob("*.xml"):
        for element in xml_of(place).iter():
            if element.tag in FORM:
                places = [FORM[element.tag].index(child.tag) for child in element]
                assert places == sorted(places)
                seen.add(element.tag)
    assert seen == set(FORM)


def test_nothing_is_claimed_that_is_not_known(drafts: Path) -> None:
    for place in drafts.glob("*.xml"):
        draft = xml_of(place)
        assert draft.get("status") == "not sent"
        assert "nothing was sent" in text_of(draft, "notice")
        assert {element.get("field") for element in draft.iter("toFillIn")} >= set(UNKNOWN)
        report = draft.find("report")
        assert report is not None
        assert text_of(report, "incidentSummary/incidentType").startswith("Child ")
        for name in ("firstName", "lastName", "email"):
            assert text_of(report, f"reporter/reportingPerson/{name}") == TO_FILL_IN
        assert "Nobody has viewed the files." in text_of(report, "additionalInfo")
        files = draft.findall("fileDetails")
        assert files
        for file in files:
            assert text_of(file, "fileViewedByEsp") == text_of(file, "exifViewedByEsp") == "false"
            assert {text_of(file, name) for name in ("reportId", "fileId", "publiclyAvailable")} == {TO_FILL_IN}
        unknown = ("generativeAi", "fileAnnotations", "industryClassification", "personOrUserReported")
        assert not any(list(draft.iter(name)) for name in unknown)


def test_what_a_record_says_is_in_its_place(drafts: Path, records: tuple[Evidence, ...]) -> None:
    full = records[0]
    draft = xml_of(drafts / "known_hash+co_occurrence-0001.xml")
    assert text_of(draft, "report/internetDetails/webPageIncident/url") == full.url
    assert text_of(draft, "report/incidentSummary/incidentDateTime") == full.time
    files = draft.findall("fileDetails")
    assert len(files) == len(full.pictures) == 2
    for file, picture in zip(files, full.pictures, strict=True):
        hashes = {element.get("hashType"): element.text for element in file.findall("originalFileHash")}
        expected = {"MD5": picture.md5, "SHA1": picture.sha1, "SHA256": picture.sha256, "PDQ": picture.pdq}
        assert hashes == {kind: digest for kind, digest in expected.items() if digest}
        assert text_of(file, "locationOfFile") == full.url
        about = text_of(file, "additionalInfo")
        crawl = [f'crawl: {name}: "{value}"' for name, value in full.crawl.items()]
        own = [f'source: "{full.source}"', f'key in the source: "{full.key}"', full.caption_sha256, *full.lists, *crawl]
        assert all(text in about for text in own)


def test_json_says_the_same(drafts: Path) -> None:
    for place in drafts.glob("*.json"):
        content = json.loads(place.read_text())
        assert content.pop("draft") == "not sent"
        content["toFillIn"] = [{"@field": field, "#text": hint} for field, hint in content["toFillIn"].items()]
        assert as_xml("draft", content, status="not sent") == place.with_suffix(".xml").read_bytes()


def test_a_key_passes_for_no_other_field(drafts: Path, records: tuple[Evidence, ...]) -> None:
    odd = records[1]
    draft = xml_of(drafts / "known_hash-0001.xml")
    (about,) = (text_of(file, "additionalInfo") for file in draft.findall("fileDetails"))
    assert [line for line in about.splitlines() if line.startswith('"source"')] == []
    (key,) = (line.partition(": ")[2] for line in about.splitlines() if line.startswith("key in the source"))
    (source,) = (line.partition(": ")[2] for line in about.splitlines() if line.startswith("source"))
    assert (json.loads(key), json.loads(source)) == (odd.key, odd.source)
    assert "report.internetDetails" in {element.get("field") for element in draft.iter("toFillIn")}


def test_a_url_with_what_xml_has_no_place_for(tmp_path: Path) -> None:
    record = Evidence(source="s", key="k", reasons=("known_hash",), url="https://host.invalid/\x00\udcff]]>&<!--")
    draft_reports(told([record]), tmp_path / "drafts")
    (url,) = xml_of(tmp_path / "drafts" / "known_hash-0001.xml").iter("url")
    assert url.text == r"https://host.invalid/\u0000\udcff]]>&<!--"


def test_a_draft_is_no_longer_than_can_be_checked(tmp_path: Path) -> None:
    records = [Evidence(source="s", key=f"{n}", reasons=("known_hash",)) for n in range(MOST_RECORDS + 1)]
    assert draft_reports(told(records), tmp_path / "drafts").drafts == 2
    counts = [len(xml_of(path).findall("fileDetails")) for path in sorted((tmp_path / "drafts").glob("*.xml"))]
    assert counts == [MOST_RECORDS, 1]


def test_nothing_is_replaced_or_left_half(tmp_path: Path, records: tuple[Evidence, ...]) -> None:
    (tmp_path / "drafts").mkdir()
    with pytest.raises(OutputError, match="is there already and is not replaced; give another name"):
        draft_reports(told(records), tmp_path / "drafts")
    with pytest.raises(SealedError, match="there are no records to report; nothing was written"):
        draft_reports([], tmp_path / "none")

    def failing() -> Iterator[OpenedRecord]:
        yield from told([records[1]] * MOST_RECORDS)
        raise SealedError("line 101 is damaged")

    with pytest.raises(SealedError, match="line 101"):
        draft_reports(failing(), tmp_path / "half")
    assert [path.name for path in tmp_path.iterdir()] == ["drafts"]


def test_opened_records_are_read_back(tmp_path: Path, records: tuple[Evidence, ...]) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"".join(record.to_line() for record in told(records)))
    assert [record.evidence for record in read_records(tmp_path / "a.jsonl")] == list(records)


@pytest.mark.parametrize(
    "line",
    [b"\n", b"no JSON\n", b"[]\n", b'{"run": 7}\n', b'{"run": "r"}\n', b"\xff\n", b"[" * 1000 + b"\n"],
    ids=lambda line: repr(line)[:14],
)
def test_a_line_that_is_no_record_is_named_by_its_number(
    tmp_path: Path, records: tuple[Evidence, ...], line: bytes
) -> None:
    (tmp_path / "a.jsonl").write_bytes(next(told(records)).to_line() + line)
    with pytest.raises(SealedError, match=r"^line 2 of .*a\.jsonl is not an opened record \(\w+\); give the file") as e:
        list(read_records(tmp_path / "a.jsonl"))
    assert e.value.__cause__ is None


def test_a_file_of_opened_records_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SealedError, match=r"there is no file .*; `safetyfilter officer open` writes it"):
        list(read_records(tmp_path / "a.jsonl"))
    with pytest.raises(SealedError, match="can't be read; give the file"):
        list(read_records(tmp_path))
