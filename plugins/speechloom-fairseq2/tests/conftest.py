"""The default session does not install this plugin, but collects its folder."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("speechloom_fairseq2") is None:
    collect_ignore_glob = ["*"]
