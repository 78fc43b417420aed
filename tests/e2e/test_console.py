"""The console in a real browser, on a real server that keeps records: about half a minute.

The tests follow one visitor in the order of the file: the server is first away, then there. The
screenshot is left in ``out/console.png``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ibinn import manifest
from ibinn.client import Client
from ibinn.client.payload import to_bytes
from ibinn.console.corruption import Corruption, corrupted
from ibinn.decoding import Limits, open_image
from ibinn.policy import Costs, Policy
from ibinn.policy.file import write
from ibinn.records import FeedbackOutcome, Reaction, Truth
from ibinn.samples import thumbnails
from service.access import grants
from service.call import Role

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOT = ROOT / "out" / "console.png"
PATIENCE_MS = 60_000
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 800}
SEEN_BY = {Role.CLASSIFY, Role.EXPLAIN, Role.FEEDBACK}

_UNNAMED = """() => [...document.querySelectorAll('input, textarea, select, button, img')]
    .filter(each => each.offsetParent !== null)
    .filter(each => !(each.getAttribute('aria-label') || each.getAttribute('alt')
        || each.getAttribute('title') || each.innerText
        || (each.labels && [...each.labels].some(label => label.innerText.trim()))
        || each.getAttribute('aria-labelledby')))
    .map(each => each.outerHTML.slice(0, 200))"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the server is to be, and who may ask it.

    Attributes:
        folder: For everything that is written.
        target: Its address.
        auditor: A token that allows everything.
    """

    folder: Path
    target: str
    auditor: str


@dataclass(slots=True, kw_only=True)
class Visit:
    """A page in the browser, and what it fetched from anywhere else than the console."""

    page: Any
    url: str
    elsewhere: list[str] = field(default_factory=list)

    def words(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())

    def wait_for(self, selector: str, words: str) -> None:
        self.page.locator(selector, has_text=words).first.wait_for(timeout=PATIENCE_MS)

    def slide(self, part: str, value: int) -> None:
        """Type the number beside a slider, as a person with a keyboard does."""
        number = self.page.locator(f"{part} input[type=number]")
        number.fill(str(value))
        number.press("Enter")
        number.press("Tab")

    def choose(self, part: str, option: str) -> None:
        """Choose of a list with the keyboard alone."""
        box = self.page.locator(f"{part} input")
        box.focus()
        box.fill("")
        box.press_sequentially(option)
        listed = self.page.get_by_role("option")
        listed.filter(has_not_text=option).first.wait_for(state="detached", timeout=PATIENCE_MS)
        listed.first.wait_for(timeout=PATIENCE_MS)
        box.press("Enter")
        self._leave(box)

    def _leave(self, box: Any) -> None:
        """Wait until a list is closed, for the next one's options are looked for on the whole page;
        where an answer that came in between has opened it again, take the focus from it."""
        from playwright.sync_api import TimeoutError as Late

        listed = self.page.get_by_role("option")
        for _ in range(PATIENCE_MS // 1_500):
            with contextlib.suppress(Late):
                listed.first.wait_for(state="detached", timeout=1_500)
                return
            box.focus()
            box.blur()
        raise AssertionError("the list stays open")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    for package in ("gradio", "playwright"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("console")
    tokens = {"auditor": grants.new_token(), "console": grants.new_token()}
    roles = {"auditor": set(Role), "console": SEEN_BY}
    (folder / "tokens.toml").write_text(
        "".join(
            f'[[token]]\nname = "{name}"\nsha256 = "{grants.token_digest(token).hex()}"\n'
            f"roles = {json.dumps(sorted(roles[name]))}\n"
            for name, token in tokens.items()
        )
    )
    (folder / "token").write_text(tokens["console"])
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{found.getsockname()[1]}"
    return Place(folder=folder, target=target, auditor=tokens["auditor"])


@pytest.fixture(scope="module")
def served(place: Place, embedded_bundle: Path) -> Iterator[Place]:
    """The server, with a policy and records."""
    found = manifest.read(embedded_bundle)
    policy = Policy(
        name="shown",
        classes=found.classes,
        origin=None,
        alpha=found.alpha,
        class_alphas=(),
        coverage=found.conformal_coverage,
        costs=Costs.zero_one(len(found.classes), defer=0.2, reject=0.1),
        priors=None,
        certificate=None,
    )
    write(policy, place.folder / "policy.json")
    told = {
        "bundle": embedded_bundle,
        "policy": place.folder / "policy.json",
        "state-dir": place.folder / "state",
        "tokens": place.folder / "tokens.toml",
        "port": place.target.rpartition(":")[2],
        "metrics-port": 0,
        "threads": 1,
    }
    flags = [f"--{name}={value}" for name, value in told.items()]
    with ready((sys.executable, "-m", "service", *flags), place.folder / "server.log") as said:
        assert f"grpc={place.target} " in said
        yield place


@pytest.fixture(scope="module")
def console(place: Place) -> Iterator[str]:
    """The address of the console's page; its server may be away."""
    command = (
        *(sys.executable, "-m", "ibinn.console.cli", "--server", place.target, "--port", "0"),
        *("--token-file", str(place.folder / "token")),
    )
    with ready(command, place.folder / "console.log") as said:
        found = re.match(r"ready (http://127\.0\.0\.1:\d+/) ", said)
        assert found is not None, said
        yield found[1]


@contextlib.contextmanager
def ready(command: tuple[str, ...], log: Path) -> Iterator[str]:
    """The first line of a process; it is ended afterwards and must end well."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("IBINN_")}
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("ready "), log.read_text()
            yield line
            process.terminate()
            assert process.wait(30) == 0, log.read_text()
        finally:
            process.kill()


@pytest.fixture
def visit(browser: Any, console: str) -> Iterator[Visit]:
    page = browser.new_page(viewport=WIDE)
    page.set_default_timeout(PATIENCE_MS)
    visit = Visit(page=page, url=console)

    def look(request: Any) -> None:
        if not request.url.startswith((console, "data:", "blob:")):
            visit.elsewhere.append(request.url)

    page.on("request", look)
    page.goto(console)
    page.locator("#model .notice, #trouble .notice").first.wait_for()
    yield visit
    page.close()


@pytest.fixture(scope="module")
def noisy_cat() -> bytes:
    """A cat with noise: its p-value lies between 0.01 and 0.2."""
    cat = next(sample for sample in thumbnails() if sample.shows == "cat")
    pixels = open_image(cat.data, Limits()).pixels
    return to_bytes(corrupted(pixels, Corruption.NOISE, 4))


def test_the_page_says_that_the_server_is_away_and_connects_once_it_is_there(
    visit: Visit, place: Place, request: pytest.FixtureRequest
) -> None:
    assert visit.page.locator("#trouble [role=alert]").count() == 1
    assert f"The server at {place.target} is away" in visit.words("#trouble")
    request.getfixturevalue("served")
    visit.page.get_by_role("button", name="Connect again").click()
    visit.wait_for("#model", "cifar10-small")
    visit.wait_for("#model", "2,500 calibration images")
    assert visit.words("#trouble") == ""


def test_an_image_is_answered_explained_damaged_and_its_truth_is_in_the_store(
    visit: Visit, served: Place, noisy_cat: bytes
) -> None:
    page = visit.page
    page.locator("#image input[type=file]").set_input_files(
        {"name": "noisy.png", "mimeType": "image/png", "buffer": noisy_cat}
    )
    visit.wait_for("#answer", "Verdict")
    with Client(served.target, token=served.auditor) as client:
        expected = client.classify(noisy_cat)
    assert expected.combined is not None
    assert expected.decision is not None
    p = expected.combined.p_value
    assert p is not None
    assert 0.011 < p < 0.19
    for words in (expected.reason, expected.top.name, expected.decision.reason, "Guarantee HELD"):
        assert words in visit.words("#answer")

    # The heatmap, and that of another class.
    heatmap = page.locator("#heatmap")
    heatmap.wait_for()
    assert heatmap.evaluate("each => each.complete && each.naturalWidth") == 320
    assert f"Heatmap for {expected.top.name}" in heatmap.get_attribute("alt")
    assert "Decision space" in page.locator("#decision-space").get_attribute("alt")
    visit.choose("#map-class", "ship")
    page.locator("#heatmap[alt^='Heatmap for ship']").wait_for()

    # What another α would make of the image.
    visit.wait_for("#alarms", "would not be called unknown")
    assert "measured" in visit.words("#trade-off")
    visit.slide("#alpha", 200)
    visit.wait_for("#alarms", "At α = 0.2 it would be called UNKNOWN")
    visit.wait_for("#trade-off", "estimated; surely between")
    visit.slide("#alpha", 50)
    visit.wait_for("#trade-off", "Per 1,000 images at α = 0.05")

    # Damage.
    visit.choose("#corruption", "Blur")
    page.locator("#severities").wait_for()
    visit.slide("#severity", 5)
    visit.wait_for("#damage", "Severity 5:")
    assert page.locator("#severity-table tbody tr").count() == 6

    # The truth.
    page.get_by_label("Who says so").fill("browser test")
    visit.choose("#known-class", "cat")
    visit.choose("#reaction", "Overruled")
    page.get_by_role("button", name="Send the truth").click()
    visit.wait_for("#told", "first statement")
    record_id = re.search(r"about answer ([0-9a-f]{32})", visit.words("#told"))
    assert record_id is not None
    SCREENSHOT.parent.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOT, full_page=True)
    print(f"screenshot: {SCREENSHOT}")
    with Client(served.target, token=served.auditor) as client:
        record = client.get_record(record_id[1])
    (told,) = record.feedback
    kept = record.answer.prediction
    assert told.truth == Truth.of_class("cat")
    assert (told.outcome, told.caller) == (FeedbackOutcome.FIRST, "console")
    assert told.provenance.source == "browser test"
    assert told.provenance.saw_answer is True
    assert told.provenance.reaction is Reaction.OVERRULED
    assert kept.input.sha256_bytes == expected.input.sha256_bytes
    assert record.answer.group_id.startswith("console-")

    # Said again it is no second statement; a class that the model does not know is a correction.
    page.get_by_role("button", name="Send the truth").click()
    visit.wait_for("#told", "It had been said before")
    page.get_by_label("A class that the model does not know").check()
    page.get_by_label("Class that it does not know").fill("lynx")
    page.get_by_role("button", name="Send the truth").click()
    visit.wait_for("#told", "It corrects")
    with Client(served.target, token=served.auditor) as client:
        assert client.get_record(record_id[1]).feedback[-1].truth == Truth.of_class("lynx")
    assert visit.elsewhere == []


def test_what_is_no_image_gets_a_clear_error_and_no_older_answer_beside_it(
    visit: Visit, served: Place
) -> None:
    visit.choose("#sample", "noise-0000")
    visit.wait_for("#answer", "UNKNOWN")
    visit.page.locator("#image input[type=file]").set_input_files(
        {"name": "text.png", "mimeType": "image/png", "buffer": b"this is no image"}
    )
    visit.wait_for("#trouble [role=alert]", "not an image")
    assert "Verdict" not in visit.words("#answer")
    assert visit.page.locator("#heatmap").count() == 0
    visit.page.get_by_role("button", name="Send the truth").click()
    visit.wait_for("#told [role=alert]", "no answer yet")


def test_a_narrow_page_needs_no_sideways_scrolling_and_everything_has_a_name(
    visit: Visit, served: Place
) -> None:
    visit.page.set_viewport_size(NARROW)
    visit.choose("#sample", "cat-0012")
    visit.page.locator("#heatmap").wait_for()
    visit.slide("#severity", 1)
    visit.page.locator("#severities").wait_for()
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    assert visit.page.evaluate(_UNNAMED) == []
    visit.page.screenshot(path=served.folder / "narrow.png", full_page=True)
    print(f"screenshot: {served.folder / 'narrow.png'}")
