"""What the plugin can train, without torch."""

from __future__ import annotations

from speechloom.training.spec import LearnerSpec

__all__ = ["WAVENET"]

WAVENET = LearnerSpec(
    id="wavenet",
    implementation="speechloom_wavenet.learner:WaveNetLearner",
    summary="A WaveNet vocoder for mel spectrograms: mu-law, mixture of logistics or Gaussian",
    requires=("torch>=2.6", "safetensors"),
)
