"""``speechloom plugins new``: what it makes works as it stands."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from speechloom.errors import OutputError, UsageError
from speechloom.registry import GROUPS
from speechloom.scaffold import create, render
from speechloom.spec import API_VERSION, KINDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CLEAN_ENVIRON = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("SPEECHLOOM_", "PYTEST_", "PYTHON"))
}


def run(*command, cwd=None, **environ):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**CLEAN_ENVIRON, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def announce(folder):
    """Write the metadata that installing the package would write."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / "src" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in names.items())
        for group, names in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("".join(points))
    return folder / "src"


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_is_complete(kind):
    files = render(kind, "my-thing")
    assert set(files) == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        ".gitignore",
        ".github/workflows/tests.yml",
        "src/speechloom_my_thing/__init__.py",
        "src/speechloom_my_thing/_spec.py",
        f"src/speechloom_my_thing/{kind}.py",
        "src/speechloom_my_thing/py.typed",
        "tests/test_conformance.py",
        f"tests/test_{kind}.py",
    }
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["name"] == "speechloom-my-thing"
    assert project["license"] == "MIT"
    assert project["entry-points"] == {GROUPS[kind]: {"my-thing": "speechloom_my_thing._spec:SPEC"}}
    assert any(re.fullmatch(r"speechloom>=\d+\.\d+,<\d+", one) for one in project["dependencies"])
    assert f'api_version="{API_VERSION}"' in files["src/speechloom_my_thing/_spec.py"]
    for path, text in files.items():
        assert "<<" not in text, f"{path} has a placeholder that was not filled in"
        if path.endswith(".py"):
            ast.parse(text)


@pytest.mark.parametrize(
    ("name", "distribution", "cls"),
    [
        ("my-codec", "speechloom-my-codec", "MyCodec"),
        ("speechloom-My_Codec", "speechloom-my-codec", "MyCodec"),
        ("audio", "speechloom-audio", "AudioCodec"),
        ("codec", "speechloom-codec", "CodecCodec"),
        ("3bit", "speechloom-3bit", "The3bitCodec"),
    ],
)
def test_names(name, distribution, cls, tmp_path):
    folder = create("codec", name, tmp_path)
    assert folder == tmp_path / distribution
    source = (folder / "src" / distribution.replace("-", "_") / "codec.py").read_text()
    assert f"class {cls}:" in source


@pytest.mark.parametrize("name", ["", "a b", "../up", "speechloom-", "é", "-"])
def test_names_that_cannot_be_ids(name, tmp_path):
    with pytest.raises(UsageError, match="cannot be the id"):
        create("codec", name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_kind():
    with pytest.raises(UsageError, match="kinds are tokenizer"):
        render("codecs", "mine")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "speechloom-mine").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        create("codec", "mine", tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        create("codec", "mine", tmp_path / "file")


def test_the_tests_of_every_kind_pass_as_generated(tmp_path):
    folders = [create(kind, f"my-{kind.replace('_', '-')}", tmp_path) for kind in KINDS]
    path = os.pathsep.join([*(str(announce(folder)) for folder in folders), *sys.path])
    tests = [folder / "tests" for folder in folders]
    output = run(
        *(sys.executable, "-m", "pytest", "-q", "-W", "error", "--import-mode=importlib"),
        *("-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tmp_path, *tests),
        PYTHONPATH=path,
    )
    passed = int(re.search(r"(\d+) passed", output)[1])
    assert passed > 150
    assert "failed" not in output


@pytest.mark.slow
def test_a_package_builds_installs_and_passes_in_a_fresh_environment(tmp_path):
    folder = create("codec", "fresh-codec", tmp_path)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path / "dist", folder)
    (wheel,) = (tmp_path / "dist").glob("speechloom_fresh_codec-0.1.0-*.whl")

    python = fresh_environment(tmp_path / "venv")
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)

    # The package lies in src, so only the installed one can be imported from here.
    assert "passed" in run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    speechloom = (python, "-c", "from speechloom.cli import main; main()")
    listed = run(*speechloom, "plugins", "list", cwd=tmp_path)
    assert re.search(
        r"^fresh-codec +codec +0\.1\.0 +speechloom-fresh-codec +available", listed, re.M
    )
    assert "0 failed" in run(*speechloom, "plugins", "check", "fresh-codec", cwd=tmp_path)


def fresh_environment(folder: Path) -> Path:
    """An environment that sees this one's packages, so that torch need not be installed again."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    here = sysconfig.get_path("purelib")
    (Path(site) / "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    return python
