"""The report in a real browser: it asks for nothing, counts as `decide` does, shows names as text, can be read."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import Policy, Run, SignalPair, apply_policy, write_report
from safetyfilter.batches import OK, REASON_NAMES, STATUS_CODES, Reason
from safetyfilter.decide.presets import PRESETS
from safetyfilter.evaluation.report.card import data_card
from safetyfilter.evaluation.report.croissant import croissant
from safetyfilter.html_table import share_text, visible
from safetyfilter.runs.decided_with import DecidedWith
from tests.browser import INSTALL, Heard, chromium
from tests.evaluation.report.conftest import PageOf
from tests.evaluation.report.made import Made, drawn

sync_api = pytest.importorskip("playwright.sync_api", reason=f"Playwright is not installed: {INSTALL}")
expect = sync_api.expect

NAMES = ("kept", "excluded", *REASON_NAMES)
HOSTILE = "<script>window.hit=1</script>\"'&</style><img src=x onerror=window.hit=1>\u202e{{7*7}}`$"
"""A name that is HTML, script, style, template and Plotly's own markup, and turns the direction of text round."""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium() as started:
        yield started


@contextmanager
def opened(browser, path: Path, **options: object) -> Iterator[tuple[object, Heard]]:
    """A page from disk, once its script has said what it counts, if it does."""
    context = browser.new_context(**options)
    try:
        heard = Heard.of(context)
        page = context.new_page()
        page.goto(path.as_uri())
        yield page, heard
    finally:
        context.close()


def drawn_figures(page) -> None:
    """Wait until every figure is drawn."""
    for figure in page.locator(".figure").all():
        expect(figure.locator(".main-svg").first).to_be_attached()


def plot_width(page) -> float:
    """Pixels between the ends of the joint plane's axis."""
    return page.evaluate("document.getElementById('plane-figure')._fullLayout._size.w")


def shown_counts(page) -> dict[str, int]:
    """The counts under the thresholds that are set, of the table."""
    return {
        row.get_attribute("data-count"): int(row.locator("[data-tried]").inner_text().replace(",", ""))
        for row in page.locator("[data-count]").all()
    }


def shown_policy(page) -> Policy:
    """The policy that the page gives to copy."""
    return Policy.from_toml(page.locator("#toml").inner_text())


def expected(counts: dict[str, int]) -> dict[str, int]:
    return {name: counts[name] for name in NAMES}


def edges() -> Made:
    """Scores at thresholds of the grid, one float32 step below and above, and everywhere between; a further signal."""
    rng = np.random.default_rng(1)
    near = np.float32([0, 0.0001, 0.1, 0.3, 0.5, 0.77, 0.98, 0.9999, 1])
    near = np.concatenate([near, np.nextafter(near, np.float32(-1)), np.nextafter(near, np.float32(2))]).clip(0, 1)
    pairs = np.stack(np.meshgrid(near, near), axis=-1).reshape(-1, 2)
    rows = np.concatenate([pairs, rng.beta(0.4, 0.4, (3000, 2)).astype(np.float32)])
    third = rng.random(len(rows), np.float32)
    status = np.where(rng.random(len(rows)) < 0.03, STATUS_CODES["truncated"], OK).astype(np.uint8)
    rows[status != OK] = third[status != OK] = np.nan
    known = np.where(rng.random(len(rows)) < 0.02, Reason.KNOWN_HASH, 0) | np.where(
        rng.random(len(rows)) < 0.01, Reason.DRIFTED, 0
    )
    policy = Policy(
        thresholds={"explicit": 0.3, "minor": 0.123456, "third": 0.9}, exclude=["third"], exclude_at={"minor": 0.98}
    )
    return Made(
        scores={"explicit": rows[:, 0], "minor": rows[:, 1], "third": third},
        policy=policy,
        status=status,
        bits=known.astype(np.uint16),
        part_sizes=(1000, 1000, len(rows) - 2000),
    )


@pytest.fixture(scope="module")
def made() -> Made:
    return edges()


@pytest.fixture(scope="module")
def trial(browser, made: Made, page_of: PageOf) -> Iterator[object]:
    """One page on which thresholds are tried, test after test."""
    with opened(browser, page_of(made.summary())) as (page, _):
        yield page


def test_a_slider_moved_by_keyboard_gives_what_decide_gives(browser, run: Run) -> None:
    place = write_report(run)
    with opened(browser, Path(place)) as (page, heard):
        drawn_figures(page)
        assert shown_counts(page) == expected(run.counts)
        page.locator("#slider0").press("Home")
        for key in (*["ArrowRight"] * 30, "PageUp"):
            page.locator("#slider0").press(key)
        page.locator("#slider1").press("ArrowLeft")
        counts, policy = shown_counts(page), shown_policy(page)
        said = f"{counts['kept']} kept"
        expect(page.locator("#live")).to_contain_text(said)
        assert heard == Heard(messages=[], requests=[Path(place).as_uri()])
    assert all(policy.thresholds[signal] != run.policy.thresholds[signal] for signal in policy.thresholds)
    assert expected(apply_policy(run, policy).counts) == counts


def press(id: str, *keys: str) -> Callable[[object], None]:
    return lambda page: [page.locator(f"#{id}").press(key) for key in keys]


def typed(id: str, text: str) -> Callable[[object], None]:
    def fill(page) -> None:
        page.locator(f"#{id}").fill(text)
        page.locator(f"#{id}").press("Tab")

    return fill


def chosen(id: str, value: str) -> Callable[[object], None]:
    return lambda page: page.locator(f"#{id}").select_option(value)


MOVES = {
    "nothing": [],
    "to the lowest": [press("slider0", "Home"), press("slider1", "Home")],
    "to the highest": [press("slider0", "End"), press("slider1", "End")],
    "one on": [press("slider0", "ArrowRight")],
    "a number of the grid": [typed("number0", "0.77"), typed("number1", "0.9999")],
    "a number beside it": [typed("number0", "0.7703")],
    "out of range": [typed("number0", "7"), typed("number1", "-1")],
    "arrow keys in the box": [typed("number1", "0.5"), press("number1", "ArrowUp", "ArrowUp", "ArrowDown")],
    "by itself": [chosen("alone0", "threshold"), chosen("alone1", "no")],
    "by itself from a cut on": [chosen("alone0", "cut"), typed("cut0", "0.98"), typed("number0", "0.1")],
    "a cut below the threshold": [chosen("alone0", "cut"), typed("cut0", "0.0001"), typed("number0", "0.5")],
}


@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
def test_moved_thresholds_count_as_decide_does(trial, made: Made, moves: list[Callable[[object], None]]) -> None:
    trial.get_by_role("button", name="as in the run").click()
    for move in moves:
        move(trial)
    policy = shown_policy(trial)
    assert (policy == made.policy) is (not moves)
    counts = expected(made.counts(policy))
    assert shown_counts(trial) == counts
    shares = dict(zip(shown_counts(trial), trial.locator("[data-share]").all_inner_texts(), strict=True))
    assert shares == {name: share_text(count, len(made.batch())) for name, count in counts.items()}


@pytest.mark.parametrize("name", PRESETS)
def test_policies_by_name_do_what_they_do_elsewhere(trial, made: Made, name: str) -> None:
    trial.get_by_role("button", name=name, exact=True).click()
    policy, preset = shown_policy(trial), Policy.preset(name)
    assert {signal: policy.thresholds[signal] for signal in preset.thresholds} == dict(preset.thresholds)
    assert policy.exclude == {*preset.exclude, "third"}  # what the policy says of further signals stays
    assert policy.exclude_at == preset.exclude_at
    assert shown_counts(trial) == expected(made.counts(policy))
    expect(trial.get_by_role("button", name=name, exact=True)).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("text", ["", "e", "1e400"])
def test_what_is_not_a_number_changes_nothing(trial, text: str) -> None:
    trial.get_by_role("button", name="as in the run").click()
    before = shown_policy(trial)
    trial.locator("#number0").focus()
    trial.keyboard.press("Control+a")
    trial.keyboard.press("Delete")
    trial.keyboard.type(text)
    trial.keyboard.press("Tab")
    assert shown_policy(trial) == before
    expect(trial.locator("#number0")).to_have_value("0.3")


def test_the_policy_is_copied(trial) -> None:
    trial.context.grant_permissions(["clipboard-read", "clipboard-write"])
    trial.get_by_role("button", name="strict").click()
    button = trial.locator("[data-copy=toml]")
    button.focus()
    trial.keyboard.press("Enter")
    expect(button).to_have_text("Copied")
    assert Policy.from_toml(trial.evaluate("navigator.clipboard.readText()")) == shown_policy(trial)


def test_names_from_data_are_shown_as_text(browser, page_of: PageOf) -> None:
    pair = SignalPair(explicit=HOSTILE, minor="\0</script><!--", notice=f"The notice {HOSTILE}")
    policy = Policy(thresholds={HOSTILE: 0.3, pair.minor: 0.25, "</SCRIPT ><b>": 0.5}, pair=pair)
    made = drawn(3000, policy=policy, kind=HOSTILE)
    made = dataclasses.replace(made, spec=dataclasses.replace(made.spec, architecture=HOSTILE, tag=""))
    summary = made.summary()
    path = page_of(summary)
    with opened(browser, path) as (page, heard):
        drawn_figures(page)
        assert page.locator("#card").text_content() == visible(data_card(summary))
        assert json.loads(page.locator("#croissant").text_content()) == json.loads(croissant(summary))
        page.locator("#slider0").press("ArrowRight")
        assert page.evaluate("window.hit") is None
        assert page.locator("script").count() == 4
        assert page.locator("img, main b b, main style").count() == 0
        shown = HOSTILE.replace("\u202e", "\\u202e")
        expect(page.locator("legend").nth(1)).to_have_text(shown)
        expect(page.locator("#signal2")).to_have_text("</SCRIPT ><b>")
        expect(page.locator(".notice").first).to_contain_text(f"The notice {shown}")
        expect(page.locator("#plane-figure .xtitle")).to_have_text(f"score of {shown[:39]}…")
        expect(page.locator(".facts").get_by_text(shown, exact=True).first).to_be_visible()
        assert shown_policy(page).pair.names == pair.names
        assert shown_counts(page) == expected(made.counts(shown_policy(page).for_pair(pair)))
        assert heard == Heard(messages=[], requests=[path.as_uri()])


def test_long_words_are_not_wider_than_a_phone(browser, page_of: PageOf) -> None:
    pair = SignalPair(explicit="x" * 200, minor="y" * 200)
    policy = Policy(thresholds={pair.explicit: 0.3, pair.minor: 5e-324}, pair=pair)
    with opened(browser, page_of(drawn(300, policy=policy).summary()), viewport={"width": 360, "height": 800}) as (
        page,
        _,
    ):
        drawn_figures(page)
        for summary in page.locator("summary").all():
            summary.press("Enter")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.set_viewport_size({"width": 1000, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == 1000


SCHEMES = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_fits_a_phone_and_a_desk_in_light_and_dark(browser, page_of: PageOf, scheme: str, width: int) -> None:
    path = page_of(drawn(20_000).summary())
    with opened(browser, path, viewport={"width": width, "height": 800}, color_scheme=scheme) as (page, heard):
        drawn_figures(page)
        for summary in page.locator("summary").all():
            summary.press("Enter")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == SCHEMES[scheme]
        text = page.evaluate("getComputedStyle(document.body).color")
        expect(page.locator("#plane-figure .xtick text").first).to_have_css("fill", text)
        page.emulate_media(color_scheme="dark" if scheme == "light" else "light")  # as the evening comes
        other = page.evaluate("getComputedStyle(document.body).color")
        assert other != text
        expect(page.locator("#plane-figure .xtick text").first).to_have_css("fill", other)
        plot = page.locator("#plane-figure .plotbg, #plane-figure .bglayer").first
        assert plot.evaluate("() => document.getElementById('plane-figure')._fullLayout._size.w") > 0.6 * min(
            width, 664
        )
        assert heard.messages == []


def test_a_page_made_wider_is_drawn_anew(browser, page_of: PageOf) -> None:
    path = page_of(drawn(3000).summary())
    with opened(browser, path, viewport={"width": 360, "height": 800}) as (page, _):
        drawn_figures(page)
        page.set_viewport_size({"width": 1280, "height": 800})
        svg = page.locator("#plane-figure .main-svg").first
        expect(svg).to_have_attribute("width", re.compile("[5-9].."))
        assert plot_width(page) > 400


def test_it_is_printed_in_light_colours_with_its_tables(browser, page_of: PageOf) -> None:
    with opened(browser, page_of(drawn(3000).summary()), color_scheme="dark") as (page, heard):
        drawn_figures(page)
        closed = page.locator("details:not([open])").count()
        assert page.pdf(format="A4").startswith(b"%PDF-")
        assert page.locator("details:not([open])").count() == closed > 2
        page.emulate_media(media="print")
        expect(page.locator("#plane-figure .main-svg").first).to_have_attribute("width", "640")
        expect(page.locator("#plane-figure .xtick text").first).to_have_css("fill", "rgb(17, 17, 17)")
        expect(page.locator("#controls")).to_be_hidden()
        expect(page.locator("table.tried")).to_be_visible()
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        expect(page.locator("table.joint")).to_be_visible()
        assert heard.messages == []


def test_without_javascript_there_are_the_counts_and_tables(browser, page_of: PageOf) -> None:
    made = drawn(3000)
    with opened(browser, page_of(made.summary()), java_script_enabled=False) as (page, _):
        expect(page.locator("dl.counts")).to_contain_text(f"{made.counts(made.policy)['kept']:,}")
        expect(page.locator("table.reasons")).to_be_visible()
        expect(page.locator("#controls")).to_be_hidden()
        expect(page.locator("noscript p")).to_be_visible()
        assert page.locator("button:visible").count() == 0
        expect(page.locator("table.joint")).to_be_attached()


def test_everything_can_be_reached_and_is_named(browser, page_of: PageOf) -> None:
    """By the keyboard alone, and with a name for a screen reader."""
    with opened(browser, page_of(drawn(3000).summary())) as (page, _):
        drawn_figures(page)
        reached = {page.evaluate("document.activeElement.id") for _ in tabs_from(page, "[data-preset=strict]", 14)}
        assert reached >= {"slider0", "number0", "alone0", "slider1", "number1", "alone1", "toml"}
        reached = {page.evaluate("document.activeElement.id") for _ in tabs_from(page, "[data-copy=card]", 4)}
        assert reached >= {"card", "croissant"}
        for signal in ("explicit", "minor"):
            expect(page.get_by_role("slider", name=f"Threshold of {signal}")).to_be_visible()
            expect(page.get_by_role("img", name=re.compile(f"^{signal} 2,9.. samples by score"))).to_be_visible()
        expect(page.get_by_role("img", name=re.compile("2,9.. scored samples by their two scores"))).to_be_visible()
        expect(page.get_by_role("navigation", name="On this page")).to_be_visible()
        expect(page.get_by_role("status")).to_have_attribute("aria-live", "polite")
        page.locator("#slider0").press("Home")
        expect(page.locator("#slider0")).to_have_attribute("aria-valuetext", "0")
        for field in page.locator("input, select").all():
            assert field.evaluate("field => field.labels.length") == 1


def tabs_from(page, selector: str, times: int) -> Iterator[int]:
    """Press Tab so many times from an element on."""
    page.locator(selector).focus()
    for number in range(times):
        page.keyboard.press("Tab")
        yield number


def nothing_scored() -> Made:
    empty = np.full(50, np.nan, np.float32)
    status = np.full(50, STATUS_CODES["missing"], np.uint8)
    return Made(scores={"explicit": empty, "minor": empty}, status=status)


def no_sample() -> Made:
    none = np.empty(0, np.float32)
    return Made(scores={"explicit": none, "minor": none})


def ends() -> Made:
    scores = np.float32([0, 1, np.nextafter(np.float32(1), np.float32(0)), 0.5])
    thresholds = {"explicit": 0.99999976, "minor": 0.0}
    return Made(scores={"explicit": scores, "minor": scores[::-1].copy()}, policy=Policy(thresholds=thresholds))


ODD = {"no sample": no_sample, "nothing scored": nothing_scored, "thresholds at the ends": ends}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_runs_have_a_page(browser, page_of: PageOf, odd: Callable[[], Made]) -> None:
    made = odd()
    path = page_of(made.summary())
    with opened(browser, path) as (page, heard):
        drawn_figures(page)
        assert shown_counts(page) == expected(made.counts(made.policy))
        page.locator("#slider0").press("End")
        page.locator("#slider1").press("End")
        assert shown_policy(page).thresholds == {"explicit": 1.0, "minor": 1.0}
        assert shown_counts(page) == expected(made.counts(shown_policy(page)))
        assert heard == Heard(messages=[], requests=[path.as_uri()])


def test_a_run_that_other_runs_decide_too_says_why_nothing_can_be_tried(browser, page_of: PageOf) -> None:
    path = page_of(drawn(2000, decided_with=DecidedWith(runs=("ef" * 32,))).summary())
    with opened(browser, path) as (page, heard):
        drawn_figures(page)
        expect(page.get_by_text("Other thresholds can't be tried here")).to_be_visible()
        assert page.locator("#controls, #toml, [data-tried]").count() == 0
        assert heard.messages == []
    with opened(browser, path, java_script_enabled=False) as (page, _):
        expect(page.locator("noscript p")).to_have_text(re.compile("Without JavaScript no figures are drawn"))


def test_billions_of_samples_in_many_parts(browser, page_of: PageOf) -> None:
    few = drawn(2000).summary()
    times = 1_234_567
    plane = dataclasses.replace(
        few.plane,
        scored=few.plane.scored * times,
        free=few.plane.free * times,
        seen=few.plane.seen * times,
        reasons={name: count * times for name, count in few.plane.reasons.items()},
    )
    counts = {name: count * times for name, count in few.record.counts.items()}
    source = dataclasses.replace(few.record.source, parts=100_000)
    parts = np.tile(few.parts[:1], (100_000, 1)) * 1000
    parts[77_777, 2] = parts[77_777, 0]
    many = dataclasses.replace(
        few,
        plane=plane,
        spread={signal: found * times for signal, found in few.spread.items()},
        parts=parts,
        record=dataclasses.replace(few.record, counts=counts, source=source),
        failures={name: count * times for name, count in few.failures.items()},
    )
    path = page_of(many)
    assert path.stat().st_size < 6_000_000
    with opened(browser, path, viewport={"width": 360, "height": 800}) as (page, heard):
        drawn_figures(page)
        assert shown_counts(page) == expected(counts)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        rows = page.locator("caption#by-part + thead + tbody tr")
        assert rows.count() <= 400
        assert rows.filter(has_text=re.compile("77,.*100.0 %")).count() == 1
        assert heard.messages == []
