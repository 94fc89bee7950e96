"""What MkDocs cannot do by itself: pages made from other files, mathematics, notebooks.

* A page for every folder in `plugins`, from its README; the changelog; the reference of each public
  module and each plugin; the plugin directory from `directory.yaml`; the template repository.
* Formulas become MathML while the site is built: a reader's browser loads no script for them.
* Every tutorial can be downloaded as a notebook, made from the same Markdown.
"""

from __future__ import annotations

import ast
import html
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import yaml
from latex2mathml.converter import convert
from mkdocs.exceptions import ConfigurationError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TEMPLATE = DOCS / "template"
FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">(?:\\\(|\\\[)(?P<tex>.*?)(?:\\\)|\\\])</(?P=tag)>',
    re.DOTALL,
)
# MkDocs moves pages into folders of their own, and mends the links of Markdown only.
PLAYER = re.compile(r'(?P<player><audio [^>]*src=")(?P<path>[^":]+)')
TUTORIALS = (
    "quickstart.md",
    "tasks/synthesize.md",
    "tasks/edit.md",
    "tasks/continue.md",
    "tasks/convert.md",
    "own-tokens.md",
)
HIGHLIGHT = {".py": "python", ".toml": "toml", ".yml": "yaml", ".md": "markdown"}


def plugin_pages() -> dict[str, str]:
    """Path in the site and text of the page of each plugin, which is its README."""
    return {
        f"plugins/{path.parent.name}.md": f"{path.read_text(encoding='utf-8')}\n"
        f"[Reference of its public names](../reference/{path.parent.name}.md)\n"
        for path in sorted(ROOT.glob("plugins/*/README.md"))
    }


def public_names(source: Path) -> dict[str, list[str]]:
    """What each module of a folder lists in `__all__`, by the name of the module."""
    found = {}
    for path in sorted(source.glob("*/**/*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        private = any(part.startswith("_") and part != "__init__" for part in parts)
        if private or {"cli", "templates", "cpu_kernels", "fake_specs"} & set(parts):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                name = ".".join(part for part in parts if part != "__init__")
                found[name] = list(ast.literal_eval(node.value))
    return found


def reference_pages() -> dict[str, str]:
    """A page for each public module of the core, and one for each plugin."""
    core = {
        f"reference/{name}.md": f"---\ntitle: {name}\n---\n\n# `{name}`\n\n{_reference(name)}"
        for name in public_names(ROOT / "src")
    }
    plugins = {
        f"reference/{source.parent.name}.md": _plugin_reference(source)
        for source in sorted(ROOT.glob("plugins/*/src"))
    }
    return {**core, **plugins}


def _plugin_reference(source: Path) -> str:
    name = source.parent.name
    sections = [f"## `{one}`\n\n{_reference(one, level=3)}" for one in public_names(source)]
    # Who searches for a name of the core finds that first.
    head = f"---\ntitle: {name}\nsearch:\n  boost: 0.5\n---\n\n# {name}\n"
    return "\n".join([head, *sections])


def _reference(module: str, level: int = 2) -> str:
    return (
        f"::: {module}\n    options:\n      show_root_heading: false\n"
        f"      show_root_toc_entry: false\n      heading_level: {level}\n"
    )


def directory_page() -> str:
    """The plugin directory as a table."""
    rows = yaml.safe_load((DOCS / "directory.yaml").read_text(encoding="utf-8"))["plugins"]
    lines = [
        "# Plugin directory\n",
        "Plugins that their authors have asked to be listed, and ours. A listing says that the",
        "package installs and that its tests pass, not that we have read it: installing a plugin",
        "runs its code. [How to be listed](write-a-plugin.md#publish).\n",
        "| distribution | adds | what it is | code | weights |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"[`{row['distribution']}`]({row['homepage']})"
        kinds = ", ".join(kind.replace("_", " ") for kind in row["kinds"])
        weights = row.get("weights_license") or "none shipped"
        lines.append(f"| {name} | {kinds} | {row['summary']} | {row['license']} | {weights} |")
    return "\n".join(lines) + "\n"


def template_page() -> str:
    """The files of the template repository, one after the other."""
    lines = [
        "# Template repository\n",
        "What `speechloom plugins new codec my-codec` writes, file by file. A test compares this",
        "page with what the command makes. Its own continuous integration is the last file but",
        "the licence; [Write a plugin in an hour](write-a-plugin.md) goes through it.\n",
    ]
    for path in sorted(TEMPLATE.rglob("*"), key=lambda path: (path.suffix != ".py", str(path))):
        if not path.is_file() or path.name in ("LICENSE", "py.typed"):
            continue
        text = path.read_text(encoding="utf-8").rstrip("\n")
        language = HIGHLIGHT.get(path.suffix, "text")
        lines += [f"## {path.relative_to(TEMPLATE)}\n", f"````{language}\n{text}\n````\n"]
    return "\n".join(lines)


def notebook(markdown: str) -> str:
    """A tutorial as a notebook: Python and shell blocks are cells, the rest is text."""
    text = re.sub(r"^<!--.*?-->\n", "", markdown, flags=re.MULTILINE)
    text = re.sub(r"^---\n.*?^---\n", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^!\[.*\n(\{.*\}\n)?|^<audio .*\n", "", text, flags=re.MULTILINE)
    book = jupytext.reads(text, fmt="md")
    book.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    for number, cell in enumerate(book.cells):
        cell["id"] = f"cell-{number}"
    return str(jupytext.writes(book, fmt="ipynb"))


def as_mathml(page: str) -> str:
    """The page with its formulas as MathML."""

    def formula(match: re.Match[str]) -> str:
        display = "block" if match["tag"] == "div" else "inline"
        return convert(html.unescape(match["tex"]).strip(), display=display)

    return FORMULA.sub(formula, page)


def on_config(config: Any) -> Any:
    """Put the made pages into the navigation."""
    for section in config.nav:
        if "Plugins" in section:
            section["Plugins"] += [
                {"A page a plugin": [{Path(page).stem: page} for page in plugin_pages()]}
            ]
        if "Reference" in section:
            section["Reference"] += [{Path(page).stem: page} for page in reference_pages()]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the made pages and the notebooks."""
    for path, content in _made():
        files.append(File.generated(config, path, content=content))
    return files


def _made() -> Iterator[tuple[str, str]]:
    yield from plugin_pages().items()
    yield from reference_pages().items()
    yield "plugins/directory.md", directory_page().replace("(write-a", "(../write-a")
    yield "plugins/template.md", template_page().replace("(write-a", "(../write-a")
    yield "changelog.md", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for tutorial in TUTORIALS:
        name = Path(tutorial).stem
        yield f"notebooks/{name}.ipynb", notebook((DOCS / tutorial).read_text(encoding="utf-8"))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Offer the notebook of a tutorial at its end."""
    path = page.file.src_uri
    if path not in TUTORIALS:
        return markdown
    up = "../" * path.count("/")
    return f"{markdown}\n\n[This page as a notebook]({up}notebooks/{Path(path).stem}.ipynb)\n"


def on_page_content(content: str, page: Any, files: Files, **_: Any) -> str:
    """Turn formulas into MathML, and let players find their files."""

    def from_page(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match["path"]))
        found = files.get_file_from_path(path)
        if found is None:
            raise ConfigurationError(f"{source}: the player's file {path} does not exist")
        return match["player"] + found.url_relative_to(page.file)

    source = page.file.src_uri
    return PLAYER.sub(from_page, as_mathml(content))
