"""The built site in a browser: every page, link, player and formula, at two widths.

Needs the packages of the group `docs`, playwright, and Chromium (`apt install chromium` or
`playwright install chromium`; SPEECHLOOM_CHROMIUM names another one). Screenshots are kept in the
folder that SPEECHLOOM_SCREENSHOTS names.
"""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest

import speechloom

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WIDTHS = {"phone": (390, 844), "desktop": (1280, 900)}
PATIENCE = 180_000
"""Milliseconds that a page may take to load on a busy machine."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning is an error."""
    for needed in ("mkdocs", "material", "mkdocstrings", "jupytext", "latex2mathml"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    api = pytest.importorskip("playwright.sync_api")
    path = os.environ.get("SPEECHLOOM_CHROMIUM") or shutil.which("chromium")
    with api.sync_playwright() as playwright:
        try:
            running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"there is no browser: {str(error).splitlines()[0]}")
        yield running
        running.close()


def pages(site: Path) -> list[str]:
    """Paths of all pages, as they stand in an address."""
    found = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    return [name.removesuffix("index.html") for name in found if name != "404.html"]


LOOK = """async () => {
  const players = [...document.querySelectorAll('audio')];
  await Promise.all(players.map(p => p.readyState > 0 || new Promise(done => {
    p.onloadedmetadata = done; p.onerror = done; p.preload = 'metadata'; p.load();
  })));
  return {
    links: [...document.querySelectorAll('a[href]')].map(a => a.href),
    anchors: [...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name),
    players: players.map(p => p.duration),
    pictures: [...document.images].map(i => [i.src, i.complete && i.naturalWidth]),
    formulas: document.querySelectorAll('math').length,
    raw: [...document.querySelectorAll('.arithmatex')].length,
    overflow: document.documentElement.scrollWidth - window.innerWidth,
  };
}"""


def visit(page: Any, address: str, name: str) -> tuple[dict[str, Any], list[str]]:
    """What a page holds, and what went wrong on it."""
    wrong: list[str] = []
    page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda r: None if r.url.startswith((address, "data:", "blob:")) else wrong.append(r.url),
    )
    page.on("response", lambda r: wrong.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.goto(address + name, wait_until="load", timeout=PATIENCE)
    return page.evaluate(LOOK), wrong


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_in_a_browser(site: Path, address: str, browser: Any, width: str) -> None:
    shots = os.environ.get("SPEECHLOOM_SCREENSHOTS")
    seen: dict[str, dict[str, Any]] = {}
    for name in pages(site):
        x, y = WIDTHS[width]
        page = browser.new_page(viewport={"width": x, "height": y})
        seen[name], wrong = visit(page, address, name)
        assert not wrong, f"{name}: {wrong}"
        if shots:
            label = name.strip("/").replace("/", "_") or "home"
            page.screenshot(path=f"{shots}/{label}-{width}.png")
        page.close()
    for name, found in seen.items():
        assert all(seconds and seconds > 0.5 for seconds in found["players"]), name
        assert all(wide for _, wide in found["pictures"]), (name, found["pictures"])
        assert found["raw"] == 0, f"{name}: a formula was not turned into MathML"
        assert found["overflow"] <= 0, f"{name} is {found['overflow']} pixels wider than a {width}"
    assert len(seen["quickstart/"]["players"]) == 4
    assert seen["how-it-works/"]["formulas"] > 3
    check_links(site, address, seen)


def check_links(site: Path, address: str, seen: dict[str, dict[str, Any]]) -> None:
    """Every link within the site leads to a file, and its anchor to a place in it."""
    broken = set()
    for name, found in seen.items():
        for link in found["links"]:
            whole, anchor = urldefrag(urljoin(address + name, link))
            if not whole.startswith(address):
                continue
            path = unquote(urlparse(whole).path).lstrip("/")
            target = site / path
            if not (target.is_file() or (target / "index.html").is_file()):
                broken.add(f"{name}: {path} does not exist")
            elif anchor and unquote(anchor) not in seen.get(path, {}).get("anchors", ()):
                broken.add(f"{name}: {path} has no #{anchor}")
    assert not broken, "\n".join(sorted(broken))


def test_the_search_index_has_every_public_name(site: Path) -> None:
    """Those of the core and of the plugins, each with the place where it is explained."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    index = json.loads((site / "search" / "search_index.json").read_text())
    found = {entry["location"].partition("#")[2] for entry in index["docs"]}
    wanted = {
        f"{module}.{name}"
        for source in (ROOT / "src", *ROOT.glob("plugins/*/src"))
        for module, names in hooks.public_names(source).items()
        for name in names
    }
    assert len(wanted) > 800
    assert sorted(wanted - found) == []


def test_search_finds_public_names(address: str, browser: Any) -> None:
    """What ``import speechloom`` offers, by typing its name."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address, wait_until="load", timeout=PATIENCE)
    query = page.locator("[data-md-component=search-query]")
    for name in speechloom.__all__:
        query.fill(name)
        query.press("End")  # the search listens to keys
        found = page.locator(f'.md-search-result__item a[href$=".{name}"]')
        found.first.wait_for(state="attached", timeout=PATIENCE)
    page.close()
