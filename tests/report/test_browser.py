"""The page in a real Chromium, opened from disk. The fixture ``browser`` fails a test whose console was not clean."""

from __future__ import annotations

from pathlib import Path

import pytest

from inftythink.protocol import Outcome, Problem, Trajectory
from inftythink.report.build import build
from inftythink.store import read_trajectories
from tests.report.conftest import Browser
from tests.report.fake import HOSTILE, hostile, make, write_run

pytestmark = pytest.mark.browser

TASKS = {"math500": 60, "aime24": 40}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    return [
        make(root / "inftythink-4k", tasks=TASKS, seed=1),
        make(root / "inftythink-2k", tasks=TASKS, seed=2, eta=2048),
        make(root / "vanilla-32k", tasks=TASKS, seed=3, chain=True, skill=0.7),
    ]


@pytest.fixture(scope="module")
def page(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 trajectories in three shards, beside the page."""
    found = build(runs, tmp_path_factory.mktemp("report"), plots=False)
    assert len(list((found.parent / "data").glob("*.js"))) == 3
    return found


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    run = write_run(root / "<img src=x onerror=window.hacked=1>", hostile(), model=HOSTILE[0], eta=100)
    return build([run], root / "report", plots=False)


def lines(browser: Browser) -> str:
    return browser.text(".count")


def test_the_overview_shows_every_figure(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.count(".results tbody tr") == 3
    assert "FAILED" in browser.text(".results thead")
    titles = browser.js("return [...document.querySelectorAll('.chart h3')].map((each) => each.textContent)")
    assert titles == [
        "Accuracy against rounds",
        "Accuracy against tokens",
        "Rounds used",
        "Outcomes",
        "Accuracy against eta",
        "Latency against eta",
        "Accuracy against latency",
        "Peak context",
        "Cost",
        "Context of one trajectory",
    ]
    browser.until("document.querySelectorAll('.canvas title').length === 9")
    unnamed = "return [...document.querySelectorAll('.canvas')].filter((each) => !each.querySelector('desc')).length"
    assert browser.js(unnamed) == 0
    browser.shot("overview-light")
    before = browser.text(".charts")
    browser.click(".segmented button", 1)
    browser.until("document.querySelectorAll('.canvas title').length === 9")
    assert browser.text(".charts") != before


def test_charts_answer_to_mouse_and_keys(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.until("document.querySelectorAll('.canvas title').length === 9")
    browser.js("document.querySelector('.canvas').focus()")
    browser.keys("\ue014")  # arrow right
    assert browser.text("#tip strong") == "1 round"
    browser.keys("\ue014")
    assert browser.text("#tip strong") == "2 rounds"
    assert "%" in browser.text("#tip b")
    browser.keys("\ue00c")  # escape
    assert browser.js("return document.getElementById('tip').hidden")
    for place in range(9):
        browser.js(
            "const each = document.querySelectorAll('.canvas')[arguments[0]]; each.scrollIntoView();"
            "const frame = each.getBoundingClientRect();"
            "for (let x = 2; x < frame.width; x += 9) for (let y = 2; y < frame.height; y += 9)"
            "each.dispatchEvent(new PointerEvent('pointermove', {clientX: frame.left + x, clientY: frame.top + y}))",
            place,
        )
        assert browser.text("#tip strong") != ""


def test_filters_narrow_the_list(browser: Browser, page: Path, runs: list[Path]) -> None:
    everything = [(run.name, each) for run in runs for each in read_trajectories(run)]
    browser.open(page, "#view=browse")
    assert lines(browser) == "600 trajectories"
    assert browser.count(".lines .line") < 40  # only what is in sight
    browser.choose("run", "inftythink-4k")
    mine = [each for name, each in everything if name == "inftythink-4k"]
    assert lines(browser) == f"{len(mine)} of 600 trajectories"
    browser.choose("task", "aime24")
    mine = [each for each in mine if each.problem.id.startswith("aime24/")]
    assert lines(browser) == f"{len(mine)} of 600 trajectories"
    browser.choose("grade", "right")
    mine = [each for each in mine if each.grade and each.grade["correct"] and each.outcome is not Outcome.FAILED]
    assert lines(browser) == f"{len(mine)} of 600 trajectories"
    browser.driver.find_element("css selector", "input[name=least]").send_keys("3")
    mine = [each for each in mine if len(each.rounds) >= 3]
    browser.until(f"document.querySelector('.count').textContent.startsWith('{len(mine)} of')")
    browser.choose("sort", "by tokens")
    browser.click("button[name=desc]")
    first = max(mine, key=lambda each: each.totals["completion_tokens"])
    assert browser.text(".lines .line b") == first.problem.id
    browser.shot("list-filtered")
    browser.driver.refresh()  # the address keeps it all
    browser.until("document.documentElement.dataset.ready === 'yes'")
    assert lines(browser) == f"{len(mine)} of 600 trajectories"
    browser.click("button[name=clear]")
    assert lines(browser) == "600 trajectories"
    browser.choose("outcome", "FAILED")
    failed = [each for _, each in everything if each.outcome is Outcome.FAILED]
    assert lines(browser) == f"{len(failed)} of 600 trajectories"
    assert browser.count(".lines .verdict.right, .lines .verdict.wrong") == 0


def test_text_of_questions_and_ids_is_searched(browser: Browser, page: Path, runs: list[Path]) -> None:
    browser.open(page, "#view=browse")
    browser.keys("/")
    question = next(iter(read_trajectories(runs[0]))).problem.question
    browser.keys(question[-40:].upper())
    browser.until("document.querySelector('.count').textContent === '6 of 600 trajectories'")
    browser.search("aime24/7")
    browser.until("document.querySelector('.count').textContent === '6 of 600 trajectories'")
    browser.until("document.querySelector('.lines .line b').textContent === 'aime24/7'")
    browser.search("no such")
    browser.until("document.querySelector('.inner').classList.contains('empty')")


def test_a_trajectory_is_read_round_by_round(browser: Browser, page: Path, runs: list[Path]) -> None:
    found = next(each for each in read_trajectories(runs[1]) if len(each.rounds) == 5 and each.conclusion)
    browser.open(
        page, f"#view=browse&open={found.problem.id.replace('/', '%2F')}&of=inftythink-2k&sample={found.sample}"
    )
    browser.until("document.querySelectorAll('.round').length === 5")
    assert found.problem.question in browser.text(".reader .question")
    assert (found.problem.answer or "?") in browser.text(".grade")
    assert found.conclusion in browser.text(".conclusion")
    numbers = browser.text(".round:nth-of-type(1) header") or browser.text("#round-1 header")
    assert f"{found.rounds[0].completion_tokens:,} generated" in numbers
    assert browser.text("#round-1 .summary .prose") == found.rounds[0].summary
    # What changed: without what is gone it is this summary, without what is new the one before.
    parts = (
        "return [...document.querySelectorAll('#round-2 .summary .prose > *')].map((e) => [e.tagName, e.textContent])"
    )
    pieces = browser.js(parts)
    assert "".join(text for tag, text in pieces if tag != "DEL") == found.rounds[1].summary
    assert "".join(text for tag, text in pieces if tag != "INS") == found.rounds[0].summary
    assert {"INS", "SPAN"} <= {tag for tag, _ in pieces}
    browser.click(".tools input")
    assert browser.text("#round-2 .summary .prose") == found.rounds[1].summary
    assert browser.count("ins, del") == 0
    assert browser.count("#round-1 .thought .prose") == 0  # folded, and not even made
    browser.click("#round-1 .thought summary")
    browser.until("document.querySelector('#round-1 .thought .prose')")
    assert browser.text("#round-1 .thought .prose") == found.rounds[0].thought
    browser.until("document.querySelectorAll('.reader .canvas title').length === 1")
    browser.shot("trajectory-light")


def test_keys_go_through_trajectories_and_rounds(browser: Browser, page: Path) -> None:
    browser.open(page, "#view=browse&run=inftythink-2k&least=4")
    heading = "document.querySelector('.head h2')?.textContent"
    browser.keys("j")
    browser.until(f"{heading}")
    first = browser.text(".head")
    assert " of " in browser.text(".steps")
    browser.keys("j")
    browser.until("document.querySelector('.steps').textContent.includes('2 of')")
    assert browser.text(".head") != first
    browser.keys("nn")
    browser.until("document.querySelector('#round-2.current')")
    browser.keys("t")
    browser.until("document.querySelector('#round-2 .thought').open")
    browser.keys("p")
    browser.until("document.querySelector('#round-1.current')")
    assert "round=1" in browser.driver.current_url
    browser.keys("k")
    browser.until("document.querySelector('.steps').textContent.includes('1 of')")
    browser.keys("?")
    assert browser.js("return document.getElementById('help').open")
    browser.shot("help")
    browser.keys("\ue00c")
    browser.until("!document.getElementById('help').open")
    browser.keys("\ue00c")
    browser.until("!document.querySelector('.head')")
    browser.driver.back()
    browser.until(f"{heading}")
    browser.keys("o")
    browser.until("!document.getElementById('overview').hidden")


def test_a_deep_link_opens_at_its_round(browser: Browser, page: Path, runs: list[Path]) -> None:
    found = next(each for each in read_trajectories(runs[0]) if len(each.rounds) > 6)
    address = f"of=inftythink-4k&sample={found.sample}&round=6&open={found.problem.id}"
    browser.open(page, f"#view=browse&{address}")
    browser.until("document.querySelector('#round-6.current')")
    browser.until("document.querySelector('.lines .line[aria-selected=true]')")
    top = browser.js("return document.getElementById('round-6').getBoundingClientRect().top")
    assert 0 <= top < 500
    browser.open(page, "#view=browse&open=no/such&of=inftythink-4k")
    browser.until("document.querySelector('.reader .notice')")
    browser.open(page, "#view=browse&sort=__proto__&grade=toString&outcome=constructor&run=%00&open=%F0%28")
    assert lines(browser) == "0 of 600 trajectories"


def test_the_list_scrolls_to_its_end(browser: Browser, page: Path) -> None:
    browser.open(page, "#view=browse")
    browser.js("const box = document.querySelector('.lines'); box.scrollTop = box.scrollHeight")
    browser.until("document.querySelector('.lines .line[aria-posinset=\"600\"]')")
    assert browser.count(".lines .line") < 40
    browser.js("document.querySelector('.lines .line[aria-posinset=\"600\"]').click()")
    browser.until("document.querySelector('.steps')?.textContent.includes('600 of 600')")


def test_the_theme_follows_the_system_until_one_is_chosen(browser: Browser, page: Path) -> None:
    paper = "return getComputedStyle(document.body).backgroundColor"
    browser.open(page)
    browser.js("localStorage.clear()")
    browser.open(page)
    light = browser.js(paper)
    browser.size(1280, 900, dark=True)
    browser.until("document.documentElement.dataset.theme === 'dark'")
    dark = browser.js(paper)
    assert light != dark
    browser.shot("overview-dark")
    browser.click("#theme")
    assert browser.js(paper) == light
    browser.open(page)  # remembered, though the system is dark
    assert browser.js(paper) == light
    browser.click("#theme")
    assert browser.js(paper) == dark
    browser.js("localStorage.clear()")


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_phone_never_scrolls_sideways(browser: Browser, page: Path, hostile_page: Path, width: int) -> None:
    browser.size(width, 844, dark=True)
    wide = "return document.documentElement.scrollWidth - window.innerWidth"
    for place in (page, hostile_page):
        browser.open(place)
        browser.until("document.querySelectorAll('.canvas title').length > 6")
        assert browser.js(wide) <= 0
        browser.open(place, "#view=browse&sort=rounds&desc=1")
        assert browser.js(wide) <= 0
        if width == 390 and place is page:
            browser.shot("phone-list")
        browser.click(".lines .line")
        browser.until("document.querySelector('#round-3')")
        assert browser.js(wide) <= 0
        inner = "const box = document.querySelector('.reader'); return box.scrollWidth - box.clientWidth"
        assert browser.js(inner) <= 0
        if width == 390 and place is page:
            browser.shot("phone-trajectory")
        if width < 900:
            browser.click(".back")
            browser.until("getComputedStyle(document.querySelector('.list')).display !== 'none'")
    browser.js("localStorage.clear()")


def test_hostile_text_does_not_run(browser: Browser, hostile_page: Path) -> None:
    browser.open(hostile_page)
    browser.until("document.querySelectorAll('.canvas title').length > 6")
    assert "<img src=x onerror" in browser.text(".results")
    browser.open(hostile_page, "#view=browse")
    for place, text in enumerate(HOSTILE):
        browser.keys("j")
        browser.until(f"document.querySelector('.steps')?.textContent.includes('{place + 1} of {len(HOSTILE)}')")
        browser.js("for (const each of document.querySelectorAll('.reader details')) each.open = true")
        browser.until("document.querySelectorAll('.round .thought .prose').length === 4")
        shown = browser.js(
            "const copy = document.querySelector('.reader .question .prose').cloneNode(true);"
            "copy.querySelectorAll('.unseen').forEach((each) => each.remove()); return copy.textContent"
        )
        seen = [sign for sign in text if sign.isprintable()]
        assert [sign for sign in shown if sign.isprintable()] == seen
    assert browser.js("return window.hacked === undefined")
    assert browser.count("main img, main script, main iframe, main textarea, main style, main svg[onload]") == 0
    assert browser.count("a[href^='javascript']") == 0


def test_what_cannot_be_seen_is_spelled_out(browser: Browser, hostile_page: Path) -> None:
    browser.open(hostile_page, "#view=browse&q=right%20to%20left")
    browser.keys("j")
    browser.until("document.querySelector('.reader .question')")
    marks = "return [...document.querySelectorAll('.reader .question .unseen')].map((each) => each.textContent)"
    assert browser.js(marks) == ["U+2028", "U+2029", "U+202E", "U+202C", "U+2066"]
    browser.shot("hostile")


def test_injected_markup_is_stopped_by_the_policy_too(browser: Browser, hostile_page: Path) -> None:
    """Were there a hole, nothing could come of it: markup cannot be made from text, and nothing can be sent."""
    browser.open(hostile_page)
    refused = "try { document.body.innerHTML = arguments[0]; return false; } catch { return true; }"
    assert browser.js(refused, HOSTILE[1])
    sent = "const done = arguments[0]; fetch('https://example.org/').then(() => done(true), () => done(false))"
    assert browser.driver.execute_async_script(sent) is False
    assert len(browser.console()) >= 2


def test_a_missing_shard_is_told(browser: Browser, runs: list[Path], tmp_path: Path) -> None:
    page = build(runs, tmp_path, plots=False)
    (tmp_path / "data" / "shard-0000.js").unlink()
    browser.open(page, "#view=browse")
    browser.keys("j")
    browser.until("document.querySelector('.reader .notice')?.textContent.includes('Keep the folder data')")
    assert len(browser.console()) == 1  # the browser itself says that the file is not there


def test_one_file_is_enough_for_a_small_run(browser: Browser, tmp_path: Path) -> None:
    page = build([make(tmp_path / "run", tasks={"aime24": 20}, samples=2)], tmp_path / "report")
    browser.open(page)
    files = browser.js("return [...document.querySelectorAll('.files a')].map((each) => each.getAttribute('href'))")
    assert [name for name in files if not (page.parent / name).is_file()] == []
    assert {name.rpartition(".")[2] for name in files} == {"csv", "svg", "png"}
    alone = page.rename(tmp_path / "alone.html")
    browser.open(alone, "#view=browse&least=3")
    browser.keys("j")
    browser.until("document.querySelectorAll('.round').length >= 3")


def test_a_run_without_grades_or_rounds_is_shown_too(browser: Browser, tmp_path: Path) -> None:
    asked = [Trajectory(Problem(f"p{number}", "What?"), Outcome.FAILED, (), reason="no server") for number in range(2)]
    page = build([write_run(tmp_path / "run", asked)], tmp_path / "report", plots=False)
    browser.open(page)
    browser.until("document.querySelectorAll('.canvas title').length > 2")
    browser.open(page, "#view=browse")
    browser.keys("j")
    browser.until("document.querySelector('.reader .notice')?.textContent === 'no server'")
