"""The built site, in site/: no link is dead, nothing comes from another server, and pages look right in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from helpers.browsers import chromium
from helpers.servers import FolderServer, serving

pytestmark = pytest.mark.site

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
LESSONS = sorted((ROOT / "docs" / "lessons").glob("[0-9][0-9]_*.py"))
#: What a browser fetches by itself, where links wait for a click.
FETCHED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "srcset")}
LOUD = ("warning", "error")
PAGES = ["index", "learn/index", *(f"learn/{path.stem}" for path in LESSONS)]
PAGES += ["api/index", "api/models", "api/losses", "api/names/torchdl.Trainer", "api/names/torchdl.recipes.tabular"]
PAGES += ["contribute", "genindex", "search"]


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[tuple[str, str, str]] = []
        self.anchors = {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the links and the anchors of a tag."""
        for name, value in attrs:
            if name in ("id", "name"):
                self.anchors.add(value or "")
            elif name in ("href", "src", "srcset") and value:
                each = [one.split()[0] for one in value.split(",")] if name == "srcset" else [value]
                self.links += [(tag, name, link) for link in each]


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    """Every page by its path; the playground is tested elsewhere."""
    paths = [path for path in SITE.rglob("*.html") if path.relative_to(SITE).parts[0] not in ("playground", "_static")]
    return {path.relative_to(SITE).as_posix(): Page(path) for path in paths}


def test_no_link_is_dead_and_nothing_comes_from_another_server(pages):
    assert len(pages) > 200
    dead, foreign = set(), set()
    for path, page in pages.items():
        for tag, name, link in page.links:
            target = urlsplit(urljoin(f"http://site/{path}", link))
            file, anchor = unquote(target.path).lstrip("/"), unquote(target.fragment)
            if target.netloc == "site":
                found = (SITE / file).is_file() and (file not in pages or anchor in pages[file].anchors)
                dead |= set() if found else {(path, link)}
            elif target.scheme != "data" and (tag, name) in FETCHED:
                foreign.add(link)
    assert sorted(dead) == []
    assert sorted(foreign) == []


@pytest.mark.parametrize("lesson", [pytest.param(path, id=path.stem) for path in LESSONS])
def test_a_lessons_notebook_can_be_downloaded(pages, lesson):
    path = f"learn/{lesson.stem}.html"
    (link,) = {link for _, _, link in pages[path].links if link.endswith(f"{lesson.stem}.ipynb")}
    notebook = json.loads((SITE / "learn" / link).read_text(encoding="utf-8"))
    assert notebook["cells"][1]["source"].startswith("%%writefile check.py")
    text = "".join(cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    assert "<details><summary>Solution</summary>" in text
    assert [
        mark for mark in (":class:", ":func:", ":doc:", ":math:", ".. math", ".. dropdown", "::: ") if mark in text
    ] == []


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server() -> Iterator[FolderServer]:
    with serving(FolderServer(SITE)) as server:
        yield server


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_pages_fit_and_report_nothing(browser, server, size):
    page = browser.new_context(viewport=dict(zip(("width", "height"), size, strict=True))).new_page()
    faults: list[str] = []
    page.on("console", lambda said: faults.append(f"{page.url}: {said.text}") if said.type in LOUD else None)
    page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
    page.on("response", lambda answer: faults.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.on("request", lambda request: None if own(request.url, server.url) else faults.append(request.url))
    others = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").glob("[gr]*[es]/*.md")]  # guide and results
    assert len(others) > 20
    for name in [*PAGES, *(path.with_suffix("").as_posix() for path in others)]:
        page.goto(f"{server.url}/{name}.html")
        page.evaluate("window.MathJax?.startup.promise.then(() => 0)")
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > size[0]:
            faults.append(f"{name} is {width} pixels wide")
        formulas, drawn = (page.locator(css).count() for css in (".math", "mjx-container"))
        if formulas and not drawn:
            faults.append(f"{name} shows no formula")
    assert faults == []


def own(url: str, server: str) -> bool:
    """Return whether a request stays on the site."""
    return url.startswith((server, "data:", "blob:"))


def test_the_search_finds_a_class(browser, server):
    page = browser.new_page()
    page.goto(f"{server.url}/search.html?q=BatchLoader")
    page.wait_for_selector("#search-results li a")
    assert any("BatchLoader" in text for text in page.locator("#search-results li a").all_inner_texts())
