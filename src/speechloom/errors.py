"""Every error that speechloom raises on purpose, in one tree.

::

    SpeechloomError                  catch this to catch all of them
    ├── UsageError (ValueError)      the request or a value is wrong; the message says what to do
    │   ├── AudioError               audio that cannot be read or used: missing, empty, not finite
    │   ├── TextError                text that the front end cannot speak
    │   ├── RoutingError             no chain of installed components does what was asked
    │   └── UnsupportedCapability    a component was asked for something that it does not claim
    ├── PluginError                  a plugin is at fault; ``plugin`` names it
    │   ├── PluginNotFound           nothing installed has that id
    │   ├── PluginConflict           two distributions provide the same id
    │   ├── PluginLoadError          the plugin exists, but cannot be used; the cause is chained
    │   └── BackendUnavailable       a package or program that the plugin needs is not here
    ├── WeightsError                 weights are missing, damaged, of another model or unsafe
    └── OutputError (OSError)        a result could not be written; nothing half written is left

A message is one sentence that says what was wrong, what was expected and what to do.
"""

from __future__ import annotations

__all__ = [
    "AudioError",
    "BackendUnavailable",
    "OutputError",
    "PluginConflict",
    "PluginError",
    "PluginLoadError",
    "PluginNotFound",
    "RoutingError",
    "SpeechloomError",
    "TextError",
    "UnsupportedCapability",
    "UsageError",
    "WeightsError",
]


class SpeechloomError(Exception):
    """The root of the tree."""


class UsageError(SpeechloomError, ValueError):
    """The request or a value is wrong."""


class AudioError(UsageError):
    """Audio that cannot be read or used."""


class TextError(UsageError):
    """Text that the front end cannot speak."""


class RoutingError(UsageError):
    """No chain of installed components does what was asked.

    Attributes:
        reasons: one sentence for each way that was tried, naming the two facts that disagree.
    """

    def __init__(self, message: str, *, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.reasons = reasons


class UnsupportedCapability(UsageError):
    """A component was asked for something that it does not claim."""


class PluginError(SpeechloomError):
    """A plugin is at fault.

    Attributes:
        plugin: its id, as ``kind/id`` or ``distribution:id``.
    """

    def __init__(self, message: str, *, plugin: str) -> None:
        super().__init__(message)
        self.plugin = plugin


class PluginNotFound(PluginError):
    """Nothing installed has that id."""


class PluginConflict(PluginError):
    """Two distributions provide the same id."""


class PluginLoadError(PluginError):
    """The plugin exists, but cannot be used; the cause is chained."""


class BackendUnavailable(PluginError):
    """A package or program that the plugin needs is not here."""


class WeightsError(SpeechloomError):
    """Weights are missing, damaged, of another model or unsafe to read."""


class OutputError(SpeechloomError, OSError):
    """A result could not be written; nothing half written is left."""
