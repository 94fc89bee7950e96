"""Every check of the project; continuous integration runs the same sessions.

``nox -s tests`` is what a newcomer runs: the whole default suite, core and plugins, in one fresh
environment. The other sessions check one thing each.
"""

from __future__ import annotations

import os
import pathlib

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "tests", "docs"]
nox.options.reuse_existing_virtualenvs = True

# One torch for all sessions, so that their results compare; the package takes any from 2.6 on.
TORCH = os.environ.get("SPEECHLOOM_TORCH", "torch==2.13.0")
PLUGINS = sorted(path.name for path in pathlib.Path("plugins").glob("speechloom-*"))
# All but speechloom-fairseq2, whose package needs an environment of its own.
# Installed in this order: each may need those before it.
DEFAULT_PLUGINS = [
    "speechloom-speechsec",
    "speechloom-starter",
    "speechloom-hubert",
    "speechloom-dac",
    "speechloom-encodec",
    "speechloom-speechtokenizer",
    "speechloom-wavenet",
    "speechloom-sv2tts",
    "speechloom-vits",
]
# The peers that the benchmarks run beside; their own needs would replace torch.
PEERS = ["soundstorm-pytorch==0.6.1"]
PEERS_NEED = ["einops>=0.8", "hyper-connections>=0.1.15", "beartype", "tqdm"]
GROUPS = nox.project.load_toml("pyproject.toml")


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(GROUPS, name))


def install(session: nox.Session, *plugins: str) -> None:
    session.install(TORCH)
    session.install(*group("test"), "-e", ".", *(f"./plugins/{name}" for name in plugins))


@nox.session
def lint(session: nox.Session) -> None:
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    install(session, *DEFAULT_PLUGINS)
    session.install(*group("types"))
    session.run("mypy", "src/speechloom")
    for name in DEFAULT_PLUGINS:
        session.run("mypy", f"plugins/{name}/src/{name.replace('-', '_')}")


@nox.session
def tests(session: nox.Session) -> None:
    install(session, *DEFAULT_PLUGINS)
    session.run("pytest", *session.posargs)


@nox.session
def core(session: nox.Session) -> None:
    install(session)
    session.run("pytest", "tests", *session.posargs)


@nox.session
@nox.parametrize("name", PLUGINS, ids=PLUGINS)
def plugin(session: nox.Session, name: str) -> None:
    install(session, *(["speechloom-speechsec"] if name == "speechloom-starter" else []), name)
    session.run("pytest", f"plugins/{name}/tests", *session.posargs)


@nox.session
@nox.parametrize("name", PLUGINS, ids=PLUGINS)
def parity(session: nox.Session, name: str) -> None:
    """Compare a plugin with the package that it stands for, in an environment of its own."""
    folder = pathlib.Path(f"plugins/{name}/tests/parity")
    needs = folder / "requirements.txt"
    if not needs.exists():
        session.skip(f"{name} is the original itself")
    session.install("-r", str(needs))
    # The original decides the versions of what both need; ours take what is there.
    session.install(*group("parity"), "-e", ".", "-e", f"./plugins/{name}", "-c", str(needs))
    session.run("pytest", str(folder), "-m", "parity", "-s", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    install(session, *DEFAULT_PLUGINS)
    session.run("pytest", "-m", "slow and not gpu", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    install(session, *DEFAULT_PLUGINS)
    session.install("--no-deps", *PEERS)
    session.install(*PEERS_NEED)
    session.run("pytest", "tests/bench", "-m", "bench", "--benchmark-enable", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    install(session, *DEFAULT_PLUGINS)
    session.run("pytest", "-m", "gpu and not bench", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    session.install(*group("docs"))
    session.run("mkdocs", "build", "--strict")


@nox.session
def site(session: nox.Session) -> None:
    """Open every page in a browser, follow every page, run every notebook."""
    install(session, *DEFAULT_PLUGINS)
    session.install(*group("docs"), *group("site"), "editables")
    session.run("pytest", "tests/docs", "-m", "slow", *session.posargs)
