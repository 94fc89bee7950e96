"""``speechloom plugins``: works whatever is installed, names what is broken, imports no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from speechloom.checking import CheckRow, check_component
from speechloom.cli.plugins import app
from speechloom.errors import PluginNotFound, UsageError
from speechloom.hooks import GROUP, Hooks
from speechloom.registry import Registry

CHILD_ENVIRON = {k: v for k, v in os.environ.items() if not k.startswith("SPEECHLOOM_")}


@pytest.fixture
def run(plugins, monkeypatch):
    """Run a command on the plugins of this test; returns code and output."""

    def call(*arguments, **environ):
        points = plugins.entry_points()
        monkeypatch.setattr(
            "speechloom.cli.plugins.default_registry", lambda: Registry(points, environ)
        )
        monkeypatch.setattr("speechloom.cli.plugins.default_hooks", lambda: Hooks(points, environ))
        result = CliRunner().invoke(app, list(arguments))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return call


@pytest.fixture
def zoo(plugins):
    """One plugin of every status."""
    plugins.add("good", extra='weights_license="CC0-1.0",')
    plugins.add("bad", init="raise OSError('libc10_cuda.so: cannot open shared object file')")
    plugins.add("needy", extra="requires=('no-such-dist',), install='pip install the-thing',")
    plugins.add("newer", extra="api_version='99.0',")
    plugins.add("twin", dist="speechloom-one")
    plugins.add("twin", dist="speechloom-two")
    plugins.add("listener", group=GROUP, spec="raise ImportError('a hook that fails')")
    return plugins


def test_list_works_with_all_of_them_and_names_the_culprits(run, zoo):
    code, output = run("list")
    assert code == 0
    table, problems = output.split("Not usable:")
    (good,) = [line for line in table.splitlines() if line.startswith("good")]
    for word in ("frontend", "0.1.0", "speechloom-good", "available", "MIT", "CC0-1.0"):
        assert word in good
    for said in (
        "broken: frontend 'bad' of speechloom-bad 0.1.0 cannot be imported: OSError: libc10_cuda",
        "missing_dependency: frontend 'needy' of speechloom-needy 0.1.0 needs no-such-dist",
        "pip install the-thing",
        "incompatible: frontend 'newer' of speechloom-newer 0.1.0 is written for api version 99.0",
        "shadowed: frontend 'twin' of speechloom-one 0.1.0 has the same id as speechloom-two:twin",
        "hook plugin 'listener' of speechloom-listener 0.1.0 fails: ImportError",
    ):
        assert said in problems


def test_list_as_json(run, zoo):
    code, output = run("list", "--json")
    listed = json.loads(output)
    assert code == 0
    statuses = {one["full_id"]: one["status"] for one in listed["components"]}
    assert statuses["speechloom-good:good"] == "available"
    assert statuses["speechloom-one:twin"] == "shadowed"
    assert listed["components"][0]["kind"] == "frontend"
    assert [hook["status"] for hook in listed["hooks"]] == ["broken"]
    good = next(one for one in listed["components"] if one["id"] == "good")
    assert good["facts"]["languages"] == ["en"]


def test_list_hides_the_disabled_unless_asked(run, plugins):
    plugins.add("good")
    assert "speechloom-good" not in run("list", SPEECHLOOM_PLUGINS="")[1]
    everything = run("list", "--all", SPEECHLOOM_PLUGINS="")[1]
    assert "disabled" in everything
    assert "SPEECHLOOM_PLUGINS" in everything


def test_list_of_one_kind(run, zoo):
    assert "good" in run("list", "--kind", "frontend")[1]
    assert "good" not in run("list", "--kind", "codec")[1]
    with pytest.raises(UsageError, match="did you mean 'codec'"):
        run("list", "--kind", "codecs")
    with pytest.raises(UsageError, match="kinds are tokenizer"):
        run("list", "--kind", "zzz")


def test_a_hook_plugin_is_listed(run, plugins):
    plugins.add(
        "quiet",
        group=GROUP,
        spec="""
        from speechloom.hooks import hookimpl
        class Quiet:
            @hookimpl
            def speechloom_progress(self, event):
                pass
        SPEC = Quiet()
        """,
    )
    assert "hook plugin quiet (speechloom-quiet): speechloom_progress" in run("list")[1]


def test_info_shows_facts_licences_and_what_is_wrong(run, zoo):
    code, output = run("info", "good")
    assert code == 0
    for said in ("speechloom-good:good", "CC0-1.0", "alphabet: letters", "status  available"):
        assert said in output
    assert "pip install the-thing" in run("info", "needy")[1]
    assert "Traceback" in run("info", "bad")[1]
    both = run("info", "twin")[1]
    assert "speechloom-one:twin" in both
    assert "speechloom-two:twin" in both
    assert len(json.loads(run("info", "speechloom-two:twin", "--json")[1])) == 1


def test_info_of_nothing(run, zoo):
    with pytest.raises(PluginNotFound, match="did you mean 'good'"):
        run("info", "goot")
    with pytest.raises(PluginNotFound, match="plugins list"):
        run("info", "zzzzzz")


def test_check_of_a_plugin_that_cannot_be_imported_fails(run, zoo):
    code, output = run("check", "bad")
    assert code == 1
    assert "failed  speechloom-bad:bad  discovery: " in output
    assert "1 failed" in output


def test_check_passes_and_fails_by_the_checks(run, zoo, monkeypatch):
    rows = [CheckRow("x", "one", "passed"), CheckRow("x", "two", "skipped", "why")]
    monkeypatch.setattr("speechloom.cli.plugins.check_component", lambda name, record: rows)
    code, output = run("check", "good")
    assert (code, "1 passed, 0 failed, 1 skipped" in output) == (0, True)
    assert json.loads(run("check", "good", "--json")[1])[1]["detail"] == "why"
    rows.append(CheckRow("x", "three", "failed", "so"))
    assert run("check", "good")[0] == 1


@pytest.mark.parametrize("target", ["good", "speechloom-good:good", "some_module:Thing"])
def test_check_finds_its_target(run, zoo, monkeypatch, target):
    seen = []
    monkeypatch.setattr(
        "speechloom.cli.plugins.check_component", lambda name, one: seen.append((name, one)) or []
    )
    run("check", target)
    ((name, record),) = seen
    assert (record is None) == (target == "some_module:Thing")
    assert name == (target if record is None else "speechloom-good:good")


def test_check_runs_in_a_process_that_may_die(plugins):
    (plugins.path / "lethal.py").write_text("import os; os._exit(3)")
    (row,) = check_component("lethal:Thing", None)
    assert (row.name, row.status) == ("process", "failed")
    assert "code 3" in row.detail


def test_check_of_a_class_that_is_not_there(plugins):
    (plugins.path / "present.py").write_text("class Thing:\n    pass")
    (row,) = check_component("present:Nothing", None)
    assert "present:Nothing cannot be imported: AttributeError" in row.detail
    (row,) = check_component("present:Thing", None)
    assert "has no spec" in row.detail


def test_check_of_a_class_that_need_not_be_installed(plugins):
    module = plugins.add("letters")
    (plugins.path / "mine.py").write_text(
        f"from {module}._spec import SPEC\n"
        f"from {module}.frontend import LettersFrontend\n"
        "class Mine(LettersFrontend):\n"
        "    spec = SPEC\n"
        "    def __init__(self, spec, device):\n"
        "        self.device = device\n"
    )
    rows = {row.name: row for row in check_component("mine:Mine", None)}
    assert rows["follows_protocol"].status == "passed"
    # Its spec names another class, which would be loaded in its place.
    assert rows["implementation_is_named"].status == "failed"


def test_check_runs_the_conformance_checks(plugins):
    plugins.add("letters")
    (record,) = Registry(plugins.entry_points(), {}).records()
    rows = {row.name: row for row in check_component(record.full_id, record)}
    assert rows["follows_protocol"].status == "passed"
    # It refuses nothing, so it cannot pass.
    assert rows["refuses_what_cannot_be_said"].status == "failed"


def test_no_command_imports_torch(zoo, tmp_path):
    code = f"""
import sys
from typer.testing import CliRunner
from speechloom.cli.plugins import app
run = CliRunner().invoke
for arguments in (["list"], ["list", "--json"], ["info", "good"], ["doctor"],
                  ["new", "codec", "mine", "--directory", {str(tmp_path)!r}]):
    result = run(app, arguments)
    print(arguments[0], result.exit_code, "torch" in sys.modules)
    if arguments[0] == "doctor":
        print(result.output)
"""
    environ = {**CHILD_ENVIRON, "PYTHONPATH": os.pathsep.join([str(zoo.path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    for said in ("list 0 False", "info 0 False", "doctor 1 False", "new 0 False"):
        assert said in lines
    for level, culprit in (
        ("problem", "speechloom-bad:bad"),
        ("warning", "speechloom-needy:needy"),
        ("problem", "speechloom-newer:newer"),
    ):
        assert any(level in line and culprit in line for line in lines)
    assert any("ok  torch: " in line for line in lines)
    assert (tmp_path / "speechloom-mine" / "pyproject.toml").exists()


def test_new_says_what_to_do_next(run, tmp_path):
    code, output = run("new", "speaker-encoder", "ears", "--directory", str(tmp_path))
    assert code == 0
    assert "pytest" in output
    assert (tmp_path / "speechloom-ears/src/speechloom_ears/speaker_encoder.py").exists()
    with pytest.raises(UsageError, match="exists already"):
        run("new", "codec", "ears", "--directory", str(tmp_path))
