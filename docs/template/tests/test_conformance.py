"""MyCodec keeps what speechloom promises of every codec."""

from speechloom.registry import default_registry
from speechloom.testing import parametrize_with_checks

from speechloom_my_codec._spec import SPEC


def test_it_is_found_under_its_id():
    record = default_registry().get("codec", f"speechloom-my-codec:{SPEC.id}")
    assert record.spec == SPEC


@parametrize_with_checks(SPEC)
def test_it_conforms(check):
    check()
