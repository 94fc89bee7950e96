"""SV2TTS for speechloom: the GE2E speaker encoder and Tacotron 2 with a voice."""

from speechloom_sv2tts._spec import VOICE, ge2e_spec, tacotron2_spec

__all__ = ["VOICE", "ge2e_spec", "tacotron2_spec"]
