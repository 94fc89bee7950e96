"""What the component takes and gives; every listing imports this module, so no torch here."""

from fractions import Fraction

from speechloom.spec import CodecFacts, ComponentSpec

SPEC = ComponentSpec(
    id="my-codec",
    implementation="speechloom_my_codec.codec:MyCodec",
    summary="Mu-law means of eight blocks per frame as codes",
    api_version="1.0",
    license="MIT",
    weights_license=None,
    install="pip install speechloom-my-codec",
    facts=CodecFacts(
        codes="my-codec",
        sample_rate=16_000,
        frame_rate=Fraction(50),
        codebooks=8,
        codebook_size=255,
        context_frames=0,
    ),
)
