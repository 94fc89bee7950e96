"""From runs to a voice package: pip-installable, with weights, specs and a model card."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from speechloom.checkpoints import sha256_of
from speechloom.errors import OutputError, PluginError, UsageError, WeightsError
from speechloom.loading import build
from speechloom.parts import core_version
from speechloom.records import GROUPS, record_of
from speechloom.spec import ComponentSpec
from speechloom.training.checkpoints import read_run
from speechloom.training.learner import ExportTarget
from speechloom.training.learners import find_learner, find_learners, learner_class
from speechloom.training.recipe import check_settings, from_record
from speechloom.training.train import build_learner

__all__ = ["export"]

PLACEHOLDER = re.compile(r"<<(\w+)>>")
NOT_STATED = "not stated"


@dataclass(frozen=True)
class _Package:
    """The names of a new package."""

    distribution: str
    module: str
    id: str
    version: str
    weights_license: str
    folder: Path

    @property
    def source(self) -> Path:
        return self.folder / "src" / self.module


@dataclass(frozen=True)
class _Exported:
    """One run as it went into the package."""

    name: str
    state: Mapping[str, Any]
    specs: Sequence[ComponentSpec]


def export(
    runs: Sequence[Path],
    folder: Path,
    *,
    name: str,
    license: str = NOT_STATED,
    version: str = "0.1.0",
) -> tuple[ComponentSpec, ...]:
    """Make a package of the newest checkpoints of runs, and check that its components load.

    Args:
        runs: folders of runs of `speechloom train`, each under a name of its own.
        folder: of the package; must not exist.
        name: of the distribution (``speechloom-mine``); ids of components begin with its last
            part.
        license: of the weights, an SPDX id or a sentence.
        version: of the distribution.

    Returns:
        The specs of its components.

    Raises:
        UsageError: a name is wrong, the folder exists, or there is no run.
        WeightsError: a checkpoint is damaged, or a component does not load its weights.
        PluginError: a learner is gone, or exports nothing that could be used.
        OutputError: the folder cannot be written; nothing is left behind.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists already; give the name of a new folder")
    distribution = _distribution(name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as temporary:
            package = _Package(
                distribution=distribution,
                module=distribution.replace("-", "_"),
                id=distribution.removeprefix("speechloom-"),
                version=_version(version),
                weights_license=license,
                folder=Path(temporary) / "package",
            )
            specs = _fill(package, runs)
            shutil.move(package.folder, folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}") from error
    return specs


def _fill(package: _Package, runs: Sequence[Path]) -> tuple[ComponentSpec, ...]:
    names = [run.absolute().name for run in runs]
    if not runs or len(set(names)) < len(names):
        raise UsageError(f"give runs of different names, not {', '.join(names) or 'none'}")
    exported = [_export_run(package, run, name) for run, name in zip(runs, names, strict=True)]
    specs = tuple(spec for one in exported for spec in one.specs)
    _check_ids(specs, package)
    _write_specs(package, specs)
    _write(package.source / "provenance.json", _provenance(package, exported))
    _write(package.folder / "pyproject.toml", _pyproject(package, specs, exported))
    _write(package.folder / "README.md", _card(package, specs, exported))
    _check_loads(package, specs)
    return specs


def _export_run(package: _Package, run: Path, name: str) -> _Exported:
    """Build the learner of a run, give it the weights, and let it write them."""
    state = read_run(run)
    folder = Path(state["about"]["folder"])
    recipe = from_record(state["recipe"], folder)
    record = find_learner(recipe.learner, find_learners())
    settings = check_settings(learner_class(record).settings_type, recipe, folder / "recipe")
    learner = build_learner(record, settings, recipe.seed)
    try:
        learner.network.load_state_dict(state["average"] or state["network"])
    except RuntimeError as error:
        raise WeightsError(f"the checkpoint of {run} does not fit its learner: {error}") from error
    learner.load_extra(state["extra"])
    learner.network.eval()
    weights = package.source / "weights" / _module_name(name)
    weights.mkdir(parents=True)
    specs = learner.export(
        ExportTarget(
            folder=weights,
            checkpoint=f"package:{package.module}/weights/{weights.name}",
            id=package.id,
            weights_license=package.weights_license,
            install=f"pip install {package.distribution}",
        )
    )
    if not specs:
        raise PluginError(f"{record.id} exported no component", plugin=f"learner/{record.id}")
    return _Exported(name, state, specs)


def _check_ids(specs: Sequence[ComponentSpec], package: _Package) -> None:
    seen: set[tuple[str, str]] = set()
    for spec in specs:
        if not spec.id.startswith(package.id):
            raise PluginError(
                f"the component {spec.id!r} must begin with {package.id!r}", plugin=spec.id
            )
        if (spec.kind, spec.id) in seen:
            raise UsageError(
                f"two runs make the {spec.kind} {spec.id!r}; export them as two packages"
            )
        seen.add((spec.kind, spec.id))


# What the package says ------------------------------------------------------------------------


def _constant(spec: ComponentSpec) -> str:
    return re.sub(r"\W", "_", f"{spec.kind}_{spec.id}").upper()


def _write_specs(package: _Package, specs: Sequence[ComponentSpec]) -> None:
    lines = [
        '"""What this package is made of. Light: importing this imports no torch."""\n',
        "from pathlib import Path\n",
        "from speechloom.spec import ComponentSpec\n",
        '_FOLDER = Path(__file__).parent / "specs"\n',
    ]
    for spec in specs:
        file = f"{_constant(spec).lower()}.json"
        _write(package.source / "specs" / file, spec.model_dump_json(indent=2) + "\n")
        lines.append(
            f"{_constant(spec)} = ComponentSpec.model_validate_json(\n"
            f'    (_FOLDER / "{file}").read_text(encoding="utf-8")\n)'
        )
    _write(package.source / "_spec.py", "\n".join(lines) + "\n")
    _write(package.source / "__init__.py", '"""Components trained with speechloom."""\n')


def _pyproject(
    package: _Package, specs: Sequence[ComponentSpec], exported: Sequence[_Exported]
) -> str:
    groups: dict[str, list[str]] = {}
    for spec in specs:
        line = f'{spec.id} = "{package.module}._spec:{_constant(spec)}"'
        groups.setdefault(GROUPS[spec.kind], []).append(line)
    points = [
        "\n".join([f'[project.entry-points."{group}"]', *lines, ""])
        for group, lines in groups.items()
    ]
    learners = {one.state["about"]["learner"].split()[0] for one in exported}
    needs = {"speechloom", *learners, *(need for spec in specs for need in spec.requires)}
    return _filled(
        "pyproject.toml",
        {
            "distribution": package.distribution,
            "version": package.version,
            "package": package.module,
            "summary": specs[0].summary.replace('"', "'"),
            "dependencies": ", ".join(f'"{need}"' for need in _requirements(needs)),
            "entry_points": "\n".join(points),
        },
    )


def _requirements(needs: set[str]) -> list[str]:
    """One requirement for each distribution, the one that asks for more where there are two."""
    best: dict[str, str] = {}
    for need in sorted(needs):
        try:
            name = canonicalize_name(Requirement(need).name)
        except InvalidRequirement as error:
            raise PluginError(f"{need!r} is no requirement: {error}", plugin=need) from error
        best[name] = max(best.get(name, ""), need, key=len)
    return sorted(best.values())


def _card(package: _Package, specs: Sequence[ComponentSpec], exported: Sequence[_Exported]) -> str:
    rows = [f"| `{spec.id}` | {spec.kind.replace('_', ' ')} | {spec.summary} |" for spec in specs]
    return _filled(
        "README.md",
        {
            "distribution": package.distribution,
            "summary": specs[0].summary,
            "components": "\n".join(rows),
            "runs": "".join(_run_card(one) for one in exported),
            "weights_license": package.weights_license,
        },
    )


def _run_card(one: _Exported) -> str:
    about, recipe = one.state["about"], one.state["recipe"]
    languages = f" ({', '.join(about['languages'])})" if about["languages"] else ""
    averaged = f"moving average, decay {recipe['ema']}" if recipe["ema"] else "those of the step"
    return _filled(
        "run.md",
        {
            "run": one.name,
            "learner": f"`{recipe['learner']}` of {about['learner']}",
            "speechloom": about["speechloom"],
            "steps": str(one.state["step"]),
            "seed": str(recipe["seed"]),
            "skipped": str(one.state["skipped"]),
            "examples": str(about["examples"]),
            "frames": str(about["frames"]),
            "speakers": str(about["speakers"]),
            "languages": languages,
            "source": about["source"] or NOT_STATED,
            "data_license": about["license"] or NOT_STATED,
            "averaged": averaged,
            "losses": _losses(one.state["numbers"]),
        },
    )


def _losses(numbers: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        f"| {kind} | {name} | {value:.5g} |"
        for kind, values in numbers.items()
        for name, value in values.items()
        if name not in ("epoch", "skipped") and not name.endswith(("norm", "learning_rate"))
    ]
    if not rows:
        return ""
    return "\n".join(["| data | number | at the end |", "|---|---|---|", *rows, "", ""])


def _provenance(package: _Package, exported: Sequence[_Exported]) -> str:
    files = sorted(path for path in (package.source / "weights").rglob("*") if path.is_file())
    record = {
        "speechloom": core_version(),
        "weights": {str(path.relative_to(package.source)): sha256_of(path) for path in files},
        "runs": {
            one.name: {
                "recipe": one.state["recipe"],
                "step": one.state["step"],
                "numbers": one.state["numbers"],
                **{k: v for k, v in one.state["about"].items() if k != "folder"},
            }
            for one in exported
        },
    }
    return json.dumps(record, indent=2) + "\n"


# Checking and writing -------------------------------------------------------------------------


def _check_loads(package: _Package, specs: Sequence[ComponentSpec]) -> None:
    """Load every component from the new package, as an installed one would."""
    with _importable(package):
        for spec in specs:
            build(record_of(spec, package.distribution, package.version), "cpu")


@contextmanager
def _importable(package: _Package) -> Iterator[None]:
    """The new package goes before an installed one of its name, which may be imported already."""
    source = str(package.source.parent)
    sys.path.insert(0, source)
    importlib.invalidate_caches()
    before = _forget(package.module)
    try:
        yield
    finally:
        _forget(package.module)
        sys.modules.update(before)
        sys.path.remove(source)
        importlib.invalidate_caches()


def _forget(module: str) -> dict[str, ModuleType]:
    """Take a package out of the imported modules."""
    names = [name for name in sys.modules if f"{name}.".startswith(f"{module}.")]
    return {name: sys.modules.pop(name) for name in names}


def _distribution(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name) or name != canonicalize_name(name):
        raise UsageError(
            f"--name: {name!r} cannot be the name of a distribution; take lower-case letters, "
            "digits and hyphens, such as speechloom-mine"
        )
    if not name.replace("-", "_").isidentifier() or name == "speechloom":
        raise UsageError(f"--name: {name!r} cannot be imported; take one like speechloom-mine")
    return name


def _version(text: str) -> str:
    try:
        return str(Version(text))
    except InvalidVersion as error:
        raise UsageError(f"--version: {error}; take one such as 0.1.0") from None


def _module_name(run: str) -> str:
    return re.sub(r"\W", "_", run)


def _filled(template: str, values: Mapping[str, str]) -> str:
    source = resources.files("speechloom.training") / "templates" / f"{template}.txt"
    text = source.read_text(encoding="utf-8")
    return PLACEHOLDER.sub(lambda match: values[match[1]], text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
