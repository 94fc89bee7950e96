"""Optional packages: imported when a metric needs them, named when they are not there."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

from speechloom.errors import BackendUnavailable

__all__ = ["require"]


def require(package: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        package: module name.
        extra: the extra of speechloom that brings it.
        purpose: what it is needed for, for the message.

    Raises:
        BackendUnavailable: it is not installed, or cannot be imported; the cause is chained.
    """
    try:
        with warnings.catch_warnings():
            # Old packages warn about their own imports; the caller can do nothing about it.
            warnings.simplefilter("ignore")
            return importlib.import_module(package)
    except (ImportError, OSError) as error:
        raise BackendUnavailable(
            f"{purpose} needs the package {package}, which cannot be imported ({error}); "
            f"install it with: pip install 'speechloom[{extra}]'",
            plugin=f"speechloom:{extra}",
        ) from error
