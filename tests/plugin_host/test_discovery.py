"""Discovery records and does not raise: one bad plugin never harms another."""

from __future__ import annotations

import pytest

from speechloom.discovery import Switches, missing_requirements
from speechloom.errors import BackendUnavailable, PluginConflict, PluginLoadError
from speechloom.registry import Status


def statuses(registry):
    return {record.full_id: record.status for record in registry.records()}


def only(registry, id):
    (record,) = [r for r in registry.records() if id in (r.id, r.full_id)]
    return record


def test_a_good_plugin_is_available(plugins):
    plugins.add("letters", extra='weights_license="CC0-1.0",')
    record = only(plugins.registry(), "letters")
    assert record.status is Status.available
    assert (record.kind, record.distribution, record.version) == (
        "frontend",
        "speechloom-letters",
        "0.1.0",
    )
    assert record.full_id == "speechloom-letters:letters"
    assert record.spec.weights_license == "CC0-1.0"
    assert record.error is None
    assert record.origin == str(plugins.path)


@pytest.mark.parametrize(
    ("init", "named"),
    [
        ("raise OSError('libc10_cuda.so: cannot open shared object file')", "OSError: libc10_cuda"),
        ("import a_package_that_nobody_has", "a_package_that_nobody_has"),
        ("raise SystemExit('a script, not a module')", "SystemExit: a script"),
        ("def broken(:\n    pass", "SyntaxError"),
        ("raise ValueError", "(no message)"),
    ],
)
def test_a_plugin_that_raises_on_import_is_named_and_harms_no_other(plugins, init, named):
    plugins.add("bad", init=init)
    plugins.add("good")
    registry = plugins.registry()
    assert statuses(registry) == {
        "speechloom-bad:bad": Status.broken,
        "speechloom-good:good": Status.available,
    }
    record = only(registry, "bad")
    assert "speechloom-bad 0.1.0" in record.error
    assert named in record.error
    assert "Traceback" in record.traceback
    assert registry.load("frontend", "good").phonemize("ab")
    with pytest.raises(PluginLoadError, match="speechloom-bad") as caught:
        registry.load("frontend", "bad")
    assert caught.value.plugin == "speechloom-bad:bad"


def test_an_object_that_is_not_a_spec_is_broken(plugins):
    plugins.add("odd", spec="SPEC = {'id': 'odd'}")
    assert "must name a ComponentSpec, but" in only(plugins.registry(), "odd").error


def test_a_spec_in_the_wrong_group_is_broken(plugins):
    plugins.add("letters", kind="codec")
    record = only(plugins.registry(), "letters")
    assert record.status is Status.broken
    assert "speechloom.frontends" in record.error


def test_a_field_of_a_newer_spec_is_explained(plugins):
    plugins.add("letters", extra="streaming=True,")
    record = only(plugins.registry(), "letters")
    assert record.status is Status.broken
    assert "may need a newer one" in record.error


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("1.0", Status.available),
        ("1.1", Status.incompatible),
        ("2.0", Status.incompatible),
        ("0.9", Status.incompatible),
    ],
)
def test_api_versions(plugins, monkeypatch, version, status):
    monkeypatch.setattr("speechloom.discovery.API_VERSION", "1.0")
    plugins.add("letters", extra=f"api_version={version!r},")
    plugins.add("good", extra="api_version='1.0',")
    registry = plugins.registry()
    assert only(registry, "letters").status is status
    assert registry.load("frontend", "good").spec.id == "good"
    if status is Status.incompatible:
        with pytest.raises(PluginLoadError, match=f"api version {version}.*speaks 1.0"):
            registry.load("frontend", "letters")


def test_an_older_minor_version_is_accepted(plugins, monkeypatch):
    monkeypatch.setattr("speechloom.discovery.API_VERSION", "1.3")
    plugins.add("letters", extra="api_version='1.2',")
    assert only(plugins.registry(), "letters").status is Status.available


def test_a_missing_package_is_named_with_the_way_to_get_it(plugins):
    plugins.add(
        "needy",
        extra="requires=('no-such-dist>=2', 'numpy>=999'), install='pip install speechloom[x]',",
    )
    plugins.add("good")
    registry = plugins.registry()
    record = only(registry, "needy")
    assert record.status is Status.missing_dependency
    assert "no-such-dist>=2 (not installed)" in record.error
    assert "numpy>=999 (found " in record.error
    assert "pip install speechloom[x]" in record.error
    with pytest.raises(BackendUnavailable, match=r"pip install speechloom\[x\]"):
        registry.load("frontend", "needy")
    assert registry.load("frontend", "good")


def test_an_unreadable_requirement_is_the_plugins_fault(plugins):
    plugins.add("odd", extra="requires=('not a requirement!',),")
    record = only(plugins.registry(), "odd")
    assert record.status is Status.broken
    assert "unreadable requirement" in record.error


def test_requirements_honour_markers_and_prereleases():
    assert missing_requirements(["no-such-dist; python_version < '3'"]) == []
    assert missing_requirements(["numpy>=1.0", "pydantic"]) == []


def test_two_distributions_with_one_id_are_both_shadowed_and_named(plugins):
    plugins.add("letters", dist="speechloom-one")
    plugins.add("letters", dist="speechloom-two")
    plugins.add("good")
    registry = plugins.registry()
    records = [r for r in registry.records() if r.id == "letters"]
    assert [r.status for r in records] == [Status.shadowed, Status.shadowed]
    assert "speechloom-two:letters" in records[0].error
    assert "speechloom-one:letters" in records[1].error
    assert all("SPEECHLOOM_PREFER=" in record.error for record in records)
    assert [spec.id for spec in registry.specs("frontend")] == ["good"]
    with pytest.raises(PluginConflict, match="speechloom-one:letters and speechloom-two:letters"):
        registry.load("frontend", "letters")
    two = registry.load("frontend", "speechloom-two:letters")
    assert type(two).__module__ == "speechloom_two.frontend"
    assert registry.load("frontend", "good")


def test_prefer_settles_a_collision(plugins):
    plugins.add("letters", dist="speechloom-one")
    plugins.add("letters", dist="speechloom-two")
    registry = plugins.registry(SPEECHLOOM_PREFER="Speechloom_Two")
    assert statuses(registry) == {
        "speechloom-one:letters": Status.shadowed,
        "speechloom-two:letters": Status.available,
    }
    assert "SPEECHLOOM_PREFER names" in only(registry, "speechloom-one:letters").error
    assert type(registry.load("frontend", "letters")).__module__ == "speechloom_two.frontend"
    one = registry.load("frontend", "speechloom-one:letters")
    assert type(one).__module__ == "speechloom_one.frontend"


def test_a_broken_plugin_does_not_take_an_id_away(plugins):
    plugins.add("letters", dist="speechloom-one", init="raise OSError('no')")
    plugins.add("letters", dist="speechloom-two")
    registry = plugins.registry()
    assert statuses(registry) == {
        "speechloom-one:letters": Status.broken,
        "speechloom-two:letters": Status.available,
    }
    assert type(registry.load("frontend", "letters")).__module__ == "speechloom_two.frontend"


@pytest.mark.parametrize(
    ("switch", "value", "left"),
    [
        ("SPEECHLOOM_PLUGINS", "", []),
        ("SPEECHLOOM_PLUGINS", "one", ["one"]),
        ("SPEECHLOOM_PLUGINS", "speechloom_one, three", ["one", "three"]),
        ("SPEECHLOOM_PLUGINS", "speechloom-two:two", ["two"]),
        ("SPEECHLOOM_DISABLE_PLUGINS", "one,speechloom-two", ["three"]),
        ("SPEECHLOOM_DISABLE_PLUGINS", "", ["one", "three", "two"]),
    ],
)
def test_switches_allow_and_disable(plugins, switch, value, left):
    for id in ("one", "two", "three"):
        plugins.add(id)
    registry = plugins.registry(**{switch: value})
    assert [spec.id for spec in registry.specs("frontend")] == left
    assert len(registry.records()) == 3


def test_disabling_wins_and_a_disabled_plugin_is_not_imported(plugins):
    plugins.add("one", init="raise OSError('must not be imported')")
    registry = plugins.registry(SPEECHLOOM_PLUGINS="one", SPEECHLOOM_DISABLE_PLUGINS="one")
    record = only(registry, "one")
    assert record.status is Status.disabled
    assert "SPEECHLOOM_DISABLE_PLUGINS" in record.error
    with pytest.raises(PluginLoadError, match="SPEECHLOOM_DISABLE_PLUGINS"):
        registry.load("frontend", "one")


@pytest.mark.parametrize(
    ("extra", "init", "error"),
    [
        ("", "raise OSError('no')", PluginLoadError),
        ("requires=('no-such-dist',),", "", BackendUnavailable),
        ("api_version='9.0',", "", PluginLoadError),
    ],
)
def test_strict_raises_at_discovery(plugins, extra, init, error):
    plugins.add("bad", extra=extra, init=init)
    with pytest.raises(error, match="speechloom-bad"):
        plugins.registry(SPEECHLOOM_STRICT_PLUGINS="1").records()
    assert plugins.registry(SPEECHLOOM_STRICT_PLUGINS="0").records()


def test_strict_raises_for_a_collision(plugins):
    plugins.add("letters", dist="speechloom-one")
    plugins.add("letters", dist="speechloom-two")
    with pytest.raises(PluginConflict, match="speechloom-two"):
        plugins.registry(SPEECHLOOM_STRICT_PLUGINS="1").records()


def test_trace_prints_the_traceback_of_the_plugin(plugins, capsys):
    plugins.add("bad", init="raise OSError('no')")
    plugins.registry().records()
    assert capsys.readouterr().err == ""
    plugins.registry(SPEECHLOOM_PLUGIN_TRACE="1").records()
    assert "raise OSError('no')" in capsys.readouterr().err


def test_switches_are_read_from_any_mapping():
    switches = Switches.read({"SPEECHLOOM_PREFER": "B_c, a", "SPEECHLOOM_PLUGINS": " "})
    assert switches.preferred == ("b-c", "a")
    assert switches.allowed == frozenset()
    assert Switches.read({}).allowed is None
