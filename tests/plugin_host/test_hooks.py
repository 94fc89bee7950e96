"""Hooks: plugins are told, a broken one harms no other, and one that raises is named."""

from __future__ import annotations

import pytest

from speechloom.errors import PluginError, PluginLoadError
from speechloom.hooks import GROUP, Hooks, default_hooks, hookimpl
from speechloom.registry import Status

LISTENER = """
from speechloom.hooks import hookimpl

seen = []

class Listener:
    @hookimpl
    def speechloom_before_task(self, request):
        seen.append(request)

SPEC = Listener()
"""


def empty():
    return Hooks((), {})


def add(plugins, name, source=LISTENER, **more):
    return plugins.add(name, group=GROUP, spec=source, **more)


class Recorder:
    def __init__(self):
        self.calls = []

    @hookimpl
    def speechloom_register_commands(self, app):
        self.calls.append(("commands", app))

    @hookimpl
    def speechloom_before_task(self, request):
        self.calls.append(("before", request))

    @hookimpl
    def speechloom_after_task(self, speech):
        self.calls.append(("after", speech))

    @hookimpl
    def speechloom_progress(self, event):
        self.calls.append(("progress", event))


class Faulty:
    @hookimpl
    def speechloom_before_task(self, request):
        raise ValueError(f"I dislike {request}")

    @hookimpl(wrapper=True)
    def speechloom_progress(self, event):
        yield
        raise RuntimeError("late")


def test_every_hook_reaches_a_plugin_which_may_take_fewer_arguments():
    hooks, recorder = empty(), Recorder()
    hooks.register(recorder)
    hooks.register_commands("app")
    hooks.before_task("request")
    hooks.progress("event")
    hooks.after_task("request", "speech")
    assert recorder.calls == [
        ("commands", "app"),
        ("before", "request"),
        ("progress", "event"),
        ("after", "speech"),
    ]


def test_a_hook_that_raises_names_its_plugin():
    hooks = empty()
    hooks.register(Recorder())
    hooks.register(Faulty(), name="faulty")
    hooks.register(Recorder(), name="after")
    with pytest.raises(PluginError, match="plugin faulty failed: ValueError: I dislike x") as found:
        hooks.before_task("x")
    assert found.value.plugin == "faulty"
    assert isinstance(found.value.__cause__, ValueError)
    with pytest.raises(PluginError, match="speechloom_progress of plugin faulty"):
        hooks.progress("x")


def test_a_command_that_cannot_be_added_does_not_stop_the_command_line(plugins, capsys):
    add(
        plugins,
        "bad",
        """
        from speechloom.hooks import hookimpl
        class Bad:
            @hookimpl
            def speechloom_register_commands(self, app):
                raise RuntimeError("no command")
        SPEC = Bad()
        """,
    )
    hooks, recorder = Hooks(plugins.entry_points(), {}), Recorder()
    hooks.register(recorder)
    hooks.register_commands("app")
    assert recorder.calls == [("commands", "app")]
    assert "'bad' could not add its commands: RuntimeError" in capsys.readouterr().err
    (record,) = hooks.records()
    assert record.status is Status.broken
    assert "no command" in record.traceback


def test_an_error_outside_of_any_function_names_those_it_can_be():
    class NoGenerator:
        @hookimpl(wrapper=True)
        def speechloom_progress(self, event):
            if event == "never":
                yield

    hooks = empty()
    hooks.register(NoGenerator(), name="odd")
    with pytest.raises(PluginError, match="plugin odd failed"):
        hooks.progress("x")


def test_router_policy_takes_the_first_answer():
    class Silent:
        @hookimpl
        def speechloom_router_policy(self, chains):
            return None

    class Backwards:
        @hookimpl
        def speechloom_router_policy(self, chains):
            return chains[::-1]

    hooks = empty()
    assert hooks.router_policy([1, 2]) == [1, 2]
    hooks.register(Backwards())
    with hooks.using(Silent()):
        assert hooks.router_policy((1, 2)) == [2, 1]


@pytest.mark.parametrize("answer", [[], ["invented"]])
def test_router_policy_may_not_invent_chains(answer):
    class Inventive:
        @hookimpl
        def speechloom_router_policy(self, chains):
            return answer

    hooks = empty()
    hooks.register(Inventive())
    with pytest.raises(PluginError, match="of Inventive must return some of the chains"):
        hooks.router_policy(["a"])


def test_using_ends_with_its_block():
    hooks, recorder = empty(), Recorder()
    with hooks.using(recorder):
        hooks.before_task(1)
    hooks.before_task(2)
    assert recorder.calls == [("before", 1)]


def test_two_plugins_of_one_name_are_both_called():
    hooks, first, second = empty(), Recorder(), Recorder()
    hooks.register(first)
    hooks.register(second)
    hooks.before_task(1)
    assert first.calls == second.calls == [("before", 1)]


def wrong_name():
    class Wrong:
        @hookimpl
        def speechloom_before_tusk(self, request):
            pass

    return Wrong()


def wrong_argument():
    class Wrong:
        @hookimpl
        def speechloom_before_task(self, reqest):
            pass

    return Wrong()


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (wrong_name(), "did you mean speechloom_before_task"),
        (wrong_argument(), "refused"),
        (object(), "implements no hook"),
    ],
)
def test_a_plugin_that_cannot_be_called_is_refused(plugin, said):
    hooks = empty()
    with pytest.raises(PluginLoadError, match=said):
        hooks.register(plugin)
    hooks.before_task("still works")


def test_installed_plugins_are_found_and_called(plugins):
    module = add(plugins, "listener")
    hooks = Hooks(plugins.entry_points(), {})
    hooks.before_task("request")
    (record,) = hooks.records()
    assert record.status is Status.loaded
    assert record.hooks == ("speechloom_before_task",)
    assert __import__(f"{module}._spec")._spec.seen == ["request"]


@pytest.mark.parametrize(
    "source", ["raise OSError('no libfoo')", "SPEC = 3", "import nobody_has_this"]
)
def test_a_broken_hook_plugin_is_named_and_harms_no_other(plugins, source):
    add(plugins, "bad", source)
    module = add(plugins, "good")
    hooks = Hooks(plugins.entry_points(), {})
    hooks.before_task("request")
    bad, good = hooks.records()
    assert (bad.status, good.status) == (Status.broken, Status.loaded)
    assert "'bad' of speechloom-bad 0.1.0 fails" in bad.error
    assert "Traceback" in bad.traceback
    assert __import__(f"{module}._spec")._spec.seen == ["request"]
    with pytest.raises(PluginLoadError, match="speechloom-bad"):
        Hooks(plugins.entry_points(), {"SPEECHLOOM_STRICT_PLUGINS": "1"}).records()


def test_switches_hold_for_hooks_and_the_trace_is_printed(plugins, capsys):
    add(plugins, "bad", "raise OSError('no libfoo')")
    points = plugins.entry_points()
    (record,) = Hooks(points, {"SPEECHLOOM_DISABLE_PLUGINS": "speechloom-bad"}).records()
    assert record.status is Status.disabled
    assert record.traceback is None
    Hooks(points, {"SPEECHLOOM_PLUGIN_TRACE": "1"}).records()
    assert "no libfoo" in capsys.readouterr().err


def test_the_default_hooks_are_one():
    assert default_hooks() is default_hooks()
