"""HuBERT and WavLM for speechloom: content units, and the features of any layer.

Importing the package imports no torch. `SpeechEncoder` is in `speechloom_hubert.encoder`,
`HubertUnits` in `speechloom_hubert.units`, k-means files in `speechloom_hubert.kmeans`.
"""

from speechloom_hubert._spec import SPECS, spec_for

__all__ = ["SPECS", "spec_for"]
