from speechloom.mel import RTVC_SYNTHESIZER
from speechloom.testing import parametrize_with_checks
from speechloom_sv2tts import tacotron2_spec
from speechloom_sv2tts._spec import (
    CHARACTERS_FRONTEND,
    GE2E_ENCODER,
    TACOTRON2_LJSPEECH,
)
from speechloom_sv2tts.config import TacotronConfig
from speechloom_sv2tts.symbols import CHARACTERS

WITH_VOICE = tacotron2_spec(
    "nowhere.safetensors",
    id="tacotron2-with-voice",
    mel=RTVC_SYNTHESIZER,
    alphabet="tacotron2-characters",
    symbols={phone: number for number, phone in enumerate(CHARACTERS, 1)},
    config=TacotronConfig(symbols=len(CHARACTERS) + 1, voice=256, reduction=3),
    voice="ge2e",
    weights_license="MIT",
)


@parametrize_with_checks(GE2E_ENCODER)
def test_ge2e(check):
    check()


@parametrize_with_checks(TACOTRON2_LJSPEECH)
def test_tacotron2(check):
    check()


@parametrize_with_checks(WITH_VOICE)
def test_tacotron2_with_a_voice_and_several_frames_a_step(check):
    check()


@parametrize_with_checks(CHARACTERS_FRONTEND)
def test_characters(check):
    check()
