"""The Croissant fragment: JSON-LD in the vocabulary's own names, that any record can take."""

import json
from dataclasses import replace

import pytest

from safetyfilter.evaluation.report.croissant import croissant
from safetyfilter.html_table import one_line
from safetyfilter.runs.record import RunRecord
from safetyfilter.signals import SignalPair
from tests.evaluation.report.recorded import CALIBRATED, HOSTILE, hostile, summary_of

ONE = {"dataCollectionMissingData", "dataManipulationProtocol", "dataReleaseMaintenancePlan"}
"""Fields of which a record has one; the last, in Croissant's own reader, though the specification allows several."""
MANY = {"dataPreprocessingProtocol", "dataLimitations", "dataBiases", "personalSensitiveInformation"}
"""Fields of RAI 1.0 of which a record may have several."""


def text_of(record: RunRecord) -> str:
    return croissant(summary_of(record))


def test_its_fields_are_those_of_the_vocabulary() -> None:
    data = json.loads(text_of(CALIBRATED))
    fields = {name.removeprefix("rai:"): value for name, value in data.items() if name.startswith("rai:")}
    assert set(fields) == ONE | MANY
    for name, value in fields.items():
        texts = value if isinstance(value, list) else [value]
        assert all(isinstance(text, str) and text for text in texts)
        assert name in MANY or isinstance(value, str)
    assert data["conformsTo"] == ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
    assert data["prov:wasGeneratedBy"]["prov:wasAssociatedWith"]["prov:label"] == "safetyfilter 0.4.0"


def test_it_can_be_merged_into_a_record() -> None:
    """Every prefix is declared, and nothing that a record's context has otherwise, such as its vocabulary, is set."""
    text = text_of(CALIBRATED)
    context = json.loads(text)["@context"]
    assert set(context) == {"dct", "conformsTo", "rai", "prov"}
    used = {name.partition(":")[0] for name in json.loads(text) if ":" in name}
    assert used <= set(context)


def test_it_says_how_the_set_was_filtered() -> None:
    data = json.loads(text_of(CALIBRATED))
    done = data["rai:dataManipulationProtocol"]
    for text in (
        "explicit from 0.3 on and minor from 0.4 on",
        "Of 3,000 samples seen, 2,790 (93.0 %) were kept",
        "co_occurrence (both signals are present), 12;",
        "the rule misses at most 0.94 %",
    ):
        assert text in done
    assert CALIBRATED.setup.encoder.weights_sha256 in " ".join(data["rai:dataPreprocessingProtocol"])
    assert CALIBRATED.decisions_digest in data["rai:dataReleaseMaintenancePlan"]
    assert "the file ends too early, 100" in data["rai:dataCollectionMissingData"]


def test_the_notice_of_stand_ins_comes_first() -> None:
    pair = SignalPair(explicit="circle", minor="square", notice="These are shapes.")
    data = json.loads(text_of(replace(CALIBRATED, setup=replace(CALIBRATED.setup, pair=pair))))
    assert data["rai:dataPreprocessingProtocol"][0] == "These are shapes."
    assert data["rai:dataManipulationProtocol"].startswith("These are shapes. ")
    assert "These are shapes." in data["rai:dataLimitations"][0]


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_is_shown_as_it_is(name: str) -> None:
    text = text_of(hostile(name))
    text.encode()
    data = json.loads(text)
    assert f"“{one_line(name)}” and “{one_line(name)}2”" in data["rai:dataPreprocessingProtocol"][1]
    assert set(data) == set(json.loads(text_of(CALIBRATED)))


def test_it_is_always_the_same() -> None:
    assert text_of(RunRecord.from_json(CALIBRATED.to_json(), "run.json")) == text_of(CALIBRATED)
