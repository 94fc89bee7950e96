"""Every block of the site and of every README is run, offline, or says why it is not.

A page is read from top to bottom, as a reader does it: Python blocks share their names, shell
blocks their folder, a block with a title is the file that it names. HTML comments say the rest:

* ``<!-- not run: reason -->`` before a block;
* ``<!-- session: slow -->``: only in the session `slow`;
* ``<!-- environment: own -->``: installs packages, so it is run only in an environment of its own;
* ``<!-- needs: distribution ... -->``: skipped where these, with what they need, are missing.

The default session runs pages in this process, to be fast. The session `slow` runs all of them in
new processes, in a new environment and an empty folder, with a real shell.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import speechloom.cli

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("docs/tasks/*.md"),
        ROOT / "README.md",
        *ROOT.glob("plugins/*/README.md"),
        *ROOT.glob("src/**/README.md"),
    ]
)
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n+)?"
    r'^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
NOTE = re.compile(r"^<!-- (session|environment|needs): (.+?) -->$", re.MULTILINE)
COMMAND = re.compile(
    r"^\s*(\$ )?(pip|python3?|speechloom|nox|pytest|apt|apt-get|twine) ", re.MULTILINE
)
DATA = {"yaml", "toml", "json"}
RUN = {"python", "bash"}
SHOWN = {"text"}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: what stands after the fence.
        text: its lines.
        title: the file that it is; None for one that is run.
        reason: why it is not run; None for one that is.
        line: number of its first line in the page.
    """

    language: str
    text: str
    title: str | None
    reason: str | None
    line: int

    @property
    def is_run(self) -> bool:
        return self.language in RUN and self.title is None and self.reason is None


@dataclass(frozen=True)
class Page:
    """A page of the site, or a README."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def notes(self) -> dict[str, str]:
        notes = {match[1]: match[2] for match in NOTE.finditer(self.text)}
        if self.path.parent.parent.name == "plugins":
            notes.setdefault("needs", self.path.parent.name)
        elif any(block.is_run for block in self.blocks()):
            notes.setdefault("needs", "speechloom-starter")
        return notes

    def blocks(self) -> list[Block]:
        text = self.text
        return [
            Block(
                match["language"],
                match["text"],
                match["title"],
                match["reason"],
                text.count("\n", 0, match.start("text")) + 1,
            )
            for match in BLOCK.finditer(text)
        ]


ALL = [Page(path) for path in PAGES]
EXECUTED = [page for page in ALL if any(block.is_run for block in page.blocks())]
FAST = [page for page in EXECUTED if not {"session", "environment"} & set(page.notes)]


def name_of(page: Page) -> str:
    return page.name


def usable(distribution: str) -> bool:
    """Whether a plugin is installed with everything that it needs."""
    if distribution == "speechloom-speechsec":  # announces learners, no component
        return True
    records = [r for r in speechloom.default_registry().records() if r.distribution == distribution]
    return bool(records) and all(record.status.usable for record in records)


def skip_where_parts_are_missing(page: Page) -> None:
    for distribution in page.notes["needs"].split():
        if not usable(distribution):
            pytest.skip(f"{distribution} or what it needs is not installed")


# What is read, not run


@pytest.mark.parametrize("page", ALL, ids=name_of)
def test_every_block_is_run_or_says_why_not(page: Page) -> None:
    for block in page.blocks():
        where = f"{page.name}:{block.line}"
        assert block.language in RUN | DATA | SHOWN, f"{where}: no such language {block.language!r}"
        if block.language in SHOWN:
            assert not COMMAND.search(block.text), f"{where}: a command must be a bash block"
    fences = len(re.findall(r"^```", page.text, re.MULTILINE))
    assert fences == 2 * len(page.blocks()), f"{page.name}: a fence is not closed or is indented"


@pytest.mark.parametrize("page", ALL, ids=name_of)
def test_data_and_files_can_be_read(page: Page) -> None:
    for block in page.blocks():
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "yaml":
            pytest.importorskip("yaml").safe_load(block.text)
        elif block.language == "python":
            ast.parse(block.text)


def test_what_is_not_run_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    left_out = [
        f"{page.name}:{block.line}: {block.reason}"
        for page in ALL
        for block in page.blocks()
        if block.reason is not None
    ]
    with capsys.disabled():
        print("\nnot run:", *left_out, sep="\n  ")
    run = sum(block.is_run for page in ALL for block in page.blocks())
    assert run > 2 * len(left_out)


# In this process


def commands(text: str) -> Iterator[list[str]]:
    """The `speechloom` commands of a shell block; installing is what the session itself does."""
    for line in text.splitlines():
        for part in line.split(" && "):
            words = shlex.split(part, comments=True)
            if words[:1] == ["speechloom"]:
                yield words


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        speechloom.cli.main()
    assert not stop.value.code, f"{shlex.join(words)} failed with {stop.value.code}"


@pytest.mark.parametrize("page", FAST, ids=name_of)
def test_every_block_runs(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[str]
) -> None:
    skip_where_parts_are_missing(page)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__example__"}
    for block in page.blocks():
        if block.title is not None:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.is_run and block.language == "python":
            exec(compile("\n" * block.line + block.text, str(page.path), "exec"), names)
        elif block.is_run:
            for words in commands(block.text):
                run_command(words, monkeypatch)


def test_the_readme_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "&& speechloom synthesize" in text
    assert "pip install nox && nox -s tests" in text


# In an environment and a folder of their own

OFFLINE = """
import socket

def refuse(self, address, *rest):
    raise OSError(f"the examples run offline, but {address!r} was asked for")

if hasattr(socket, "AF_INET"):
    connect = socket.socket.connect
    socket.socket.connect = lambda self, address: (
        connect(self, address) if self.family == socket.AF_UNIX else refuse(self, address)
    )
"""
SESSION = """
import sys, traceback
names = {"__name__": "__main__"}
for path in sys.stdin:
    try:
        exec(compile(open(path.strip()).read(), path.strip(), "exec"), names)
        print("\\0ok", flush=True)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        print("\\0failed", flush=True)
"""
COMMANDS = (
    ("speechloom", "speechloom.cli"),
    ("pytest", "pytest"),
    ("pip", "pip._internal.cli.main"),
)
# What the session was installed with: it is there already, and needs the network.
INSTALLING = re.compile(r"pip install (?:torch\S* \.|nox)[^&\n]*(&& nox[^&\n]*)?(&& )?")


class Reader:
    """Does what a page says, in a new environment, starting in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "work"
        self.home.mkdir()
        self.folder = self.home
        self.scratch = folder
        self.bin = fresh_environment(folder / "venv")
        self.session: subprocess.Popen[str] | None = None
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "SPEECHLOOM"))},
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this switch the other way round
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONWARNINGS": "default",
        }

    def follow(self, page: Page) -> None:
        for block in page.blocks():
            where = f"{page.name}:{block.line}"
            if block.title is not None:
                path = self.home / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
            elif block.is_run and block.language == "python":
                self._python(block.text, where)
            elif block.is_run:
                self._shell(block.text, where)

    def _shell(self, text: str, where: str) -> None:
        after = self.scratch / "folder"
        script = INSTALLING.sub("", text)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{script}\npwd > {shlex.quote(str(after))}"],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{where}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        self.folder = Path(after.read_text().strip())
        if "pip install" in script:
            self.close()  # a running interpreter does not see what is installed meanwhile

    def _python(self, text: str, where: str) -> None:
        if self.session is None:
            self.session = subprocess.Popen(
                [str(self.bin / "python"), "-c", SESSION],
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        assert self.session.stdin is not None
        assert self.session.stdout is not None
        path = self.scratch / "block.py"
        path.write_text(text, encoding="utf-8")
        self.session.stdin.write(f"{path}\n")
        self.session.stdin.flush()
        output = []
        for line in self.session.stdout:
            if line.startswith("\0"):
                assert line.strip() == "\0ok", f"{where}\n{''.join(output)}"
                return
            output.append(line)
        pytest.fail(f"{where}: the interpreter died\n{''.join(output)}")

    def close(self) -> None:
        if self.session is not None:
            self.session.communicate()
            self.session = None


def fresh_environment(folder: Path) -> Path:
    """An environment that sees this one's packages and refuses the network; its commands."""
    venv.create(folder, with_pip=False, symlinks=True)
    binaries = folder / "bin"
    python = binaries / "python"
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    here = sysconfig.get_path("purelib")
    (site / "here.pth").write_text(
        f"import site; site.addsitedir({here!r})\nimport offline_examples\n"
    )
    (site / "offline_examples.py").write_text(OFFLINE)
    for command, module in COMMANDS:
        script = binaries / command
        script.write_text(f"#!{python}\nimport sys\nfrom {module} import main\nsys.exit(main())\n")
        script.chmod(0o755)
    return binaries


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the pages are written for a POSIX shell")
@pytest.mark.parametrize("page", EXECUTED, ids=name_of)
def test_a_reader_can_follow_the_page(page: Page, tmp_path: Path) -> None:
    skip_where_parts_are_missing(page)
    with contextlib.closing(Reader(tmp_path)) as reader:
        reader.follow(page)
