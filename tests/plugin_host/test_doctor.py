"""The doctor finds each trouble and names its cure; it survives what it examines."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from speechloom import doctor
from speechloom.cli.plugins import app
from speechloom.doctor import Finding, Level, examine
from speechloom.hooks import GROUP, Hooks
from speechloom.probe import Probe, run_python
from speechloom.registry import Registry


def well(code):
    """A machine on which everything works."""
    return Probe(True, "1.2.2,WAV,FLAC,OGG,MP3" if "soundfile" in code else "")


def look(plugins=None, environ=None, run=well):
    points = plugins.entry_points() if plugins else ()
    environ = environ or {}
    return {
        f.name: f
        for f in examine(Registry(points, environ), Hooks(points, environ), environ, run=run)
    }


def fake_distribution(plugins, name, version, source):
    (plugins.path / f"{name}.py").write_text(source)
    info = plugins.path / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def failing(module, text):
    return lambda code: Probe(False, text) if module in code else well(code)


def test_a_healthy_machine(plugins):
    plugins.add("good")
    findings = look(plugins)
    assert {f.level for f in findings.values()} == {Level.ok}
    assert "component api" in findings["speechloom"].detail
    assert findings["plugins"].detail == "1 of 1 can be used"
    assert findings["torchaudio"].detail.startswith("not installed")


def test_a_broken_torchaudio_is_found_for_real(plugins):
    fake_distribution(
        plugins, "torchaudio", "2.11.0", "raise OSError('libc10_cuda.so: cannot open')"
    )
    finding = look(plugins, run=lambda c: run_python(c) if "torchaudio" in c else well(c))[
        "torchaudio"
    ]
    assert finding.level is Level.problem
    assert "OSError: libc10_cuda.so: cannot open" in finding.detail
    assert "breaks transformers" in finding.detail
    assert finding.cure == "pip uninstall torchaudio"


def test_a_torchaudio_that_works_is_no_problem(plugins):
    fake_distribution(plugins, "torchaudio", "2.11.0", "")
    assert look(plugins)["torchaudio"].level is Level.ok


def test_a_missing_libsndfile():
    finding = look(run=failing("soundfile", "OSError: sndfile library not found"))["soundfile"]
    assert finding.level is Level.problem
    assert "sndfile library not found" in finding.detail
    assert "apt install libsndfile1" in finding.cure


def test_an_old_libsndfile():
    finding = look(run=lambda code: Probe(True, "1.0.31,WAV,FLAC,OGG"))["soundfile"]
    assert finding.level is Level.warning
    assert "MP3 cannot be read" in finding.detail


@pytest.mark.parametrize("module", ["torch", "soxr"])
def test_other_packages_that_cannot_be_imported(module):
    finding = look(run=failing(f"import {module}", "ImportError: no"))[module]
    assert finding.level is Level.problem
    assert "ImportError: no" in finding.detail
    assert finding.cure


@pytest.mark.parametrize("name", ["torch", "soundfile", "soxr"])
def test_packages_that_are_not_installed(monkeypatch, name):
    known = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda d: None if d == name else known(d))
    finding = look()[name]
    assert finding.level is Level.problem
    assert name in finding.cure


def test_every_bad_plugin_is_a_problem_and_names_itself(plugins):
    plugins.add("bad", init="raise OSError('libfoo')")
    plugins.add("needy", extra="requires=('no-such-dist',),")
    plugins.add("newer", extra="api_version='99.0',")
    plugins.add("twin", dist="speechloom-one")
    plugins.add("twin", dist="speechloom-two")
    plugins.add("listener", group=GROUP, spec="raise ImportError('a hook that fails')")
    findings = look(plugins)
    problems = {name: f.detail for name, f in findings.items() if f.level is Level.problem}
    assert set(problems) == {
        "plugin speechloom-bad:bad",
        "plugin speechloom-newer:newer",
        "plugin speechloom-one:twin",
        "plugin speechloom-two:twin",
        "hook plugin listener",
    }
    assert "SPEECHLOOM_PREFER" in problems["plugin speechloom-one:twin"]
    assert "99.0" in problems["plugin speechloom-newer:newer"]
    needy = findings["plugin speechloom-needy:needy"]
    assert needy.level is Level.warning
    assert "no-such-dist" in needy.detail


def test_what_the_user_settled_is_no_problem(plugins):
    plugins.add("twin", dist="speechloom-one")
    plugins.add("twin", dist="speechloom-two")
    plugins.add("off")
    environ = {"SPEECHLOOM_PREFER": "speechloom-one", "SPEECHLOOM_DISABLE_PLUGINS": "off"}
    findings = look(plugins, environ)
    assert {f.level for f in findings.values()} == {Level.ok}
    assert findings["plugin speechloom-two:twin"].detail.startswith("shadowed")


def test_no_plugin_at_all_is_worth_a_warning():
    assert look()["plugins"].cure == "pip install speechloom-starter"


def test_a_spec_that_imports_torch_is_named(plugins):
    plugins.add("light")
    module = plugins.add("heavy")
    name = f"{module}._spec"
    finding = look(plugins, run=lambda c: Probe(True, name) if "importlib" in c else well(c))
    assert finding["plugin speechloom-heavy:heavy"].level is Level.warning
    assert "imports torch" in finding["plugin speechloom-heavy:heavy"].detail


def test_a_spec_that_imports_torch_is_found_for_real(plugins):
    plugins.add("light")
    module = plugins.add("heavy", init="import torch")
    (plugins.path / "torch.py").write_text("")
    records = Registry(plugins.entry_points(), {}).records()
    (finding,) = doctor._heavy_specs(records, run_python)
    assert finding.name == "plugin speechloom-heavy:heavy"
    assert module in finding.cure


def test_a_misspelt_group_is_found():
    (finding,) = doctor._strange_groups(["speechloom.codecs", "speechloom.codec"])
    assert finding.name == "entry-point group speechloom.codec"
    assert finding.cure == "rename it to speechloom.codecs"


def test_caches_and_flags(tmp_path):
    assert look(environ={"HF_HOME": str(tmp_path)})["cache"].level is Level.ok
    blocked = tmp_path / "file"
    blocked.write_text("")
    finding = look(environ={"HF_HOME": str(blocked)})["cache"]
    assert finding.level is Level.warning
    assert str(blocked) in finding.detail
    assert "HF_HUB_OFFLINE is set" in look(environ={"HF_HUB_OFFLINE": "1"})["offline"].detail
    assert "no flag" in look(environ={"HF_HUB_OFFLINE": "0"})["offline"].detail


def test_probes_survive_what_they_try(monkeypatch):
    assert run_python("print('fine')") == Probe(True, "fine")
    assert run_python("raise OSError('libfoo')") == Probe(False, "OSError: libfoo")
    assert run_python("import os; os._exit(7)") == Probe(False, "ended with code 7")
    monkeypatch.setattr("speechloom.probe.TIMEOUT_SECONDS", 0.2)
    assert "did not end within" in run_python("import time; time.sleep(30)").text


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("warning", 0), ("problem", 1)])
def test_the_command_ends_with_one_when_something_is_broken(monkeypatch, level, code):
    found = [Finding("thing", Level(level), "seen", "a cure")]
    monkeypatch.setattr("speechloom.cli.plugins.examine", lambda registry, hooks: found)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == code
    assert f"{level}  thing: seen" in result.output
    assert "cure  a cure" in result.output
    printed = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)
    assert printed == [{"name": "thing", "level": level, "detail": "seen", "cure": "a cure"}]
