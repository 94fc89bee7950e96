"""What only this codec does."""

import numpy as np
from speechloom.values import Audio

from speechloom_my_codec._spec import SPEC
from speechloom_my_codec.codec import MyCodec, compress, expand


def test_silence_comes_back_as_zeros():
    codec = MyCodec(SPEC)
    silence = Audio(np.zeros((1, 1600), dtype=np.float32), 16_000)
    (back,) = codec.decode(codec.encode([silence]))
    assert not back.samples.any()


def test_a_low_tone_survives():
    codec = MyCodec(SPEC)
    tone = 0.5 * np.sin(2 * np.pi * 50 * np.arange(16_000) / 16_000)
    (back,) = codec.decode(codec.encode([Audio(tone.astype(np.float32), 16_000)]))
    assert np.corrcoef(tone, back.samples[0])[0, 1] > 0.97


def test_mu_law_is_undone_and_clips():
    codes = np.arange(255)
    assert (compress(expand(codes)) == codes).all()
    assert compress(np.array([2.0, -2.0], dtype=np.float32)).tolist() == [254, 0]
