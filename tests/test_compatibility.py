"""The compatibility table: what it says is what the router says, and the page is up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from speechloom.chain import Role
from speechloom.compatibility import (
    SPEECHSEC_PAIRS,
    compatibility_table,
    generator_between,
    specs_in_folder,
)
from speechloom.errors import UsageError
from speechloom.probe import inherited_path
from speechloom.router import find_chain
from speechloom.spec import TASKS, CodecFacts, ComponentSpec, GeneratorFacts, Kind, Task
from speechloom.testing.fake_specs import (
    ALIGNER,
    CODEC,
    FAKE_SPECS,
    FRONTEND,
    SPEAKER_ENCODER,
    TOKENIZER,
)

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "compatibility.md"
NEEDS_TOML = pytest.mark.skipif(sys.version_info < (3, 11), reason="reads pyproject.toml")


def _by_kind(*specs: ComponentSpec) -> dict[Kind, list[ComponentSpec]]:
    kinds: dict[Kind, list[ComponentSpec]] = {}
    for spec in specs:
        kinds.setdefault(spec.kind, []).append(spec)
    return kinds


def _table_of_plugins() -> tuple[str, str]:
    """What the command prints for the plugins of this repository, and the heavy packages it took.

    In a process of its own: the plugins' modules stay out of this one.
    """
    code = (
        "import sys\n"
        "from speechloom.cli.plugins import app\n"
        f"app(['table', '--folder', {str(ROOT / 'plugins')!r}], standalone_mode=False)\n"
        "print(*[m for m in ('torch', 'transformers') if m in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=inherited_path(),
        timeout=120,
        check=True,
    )
    return done.stdout, done.stderr.strip()


@NEEDS_TOML
def test_the_page_is_what_the_command_writes() -> None:
    written, heavy = _table_of_plugins()
    assert heavy == ""
    assert PAGE.read_text(encoding="utf-8") == written, (
        "docs/compatibility.md is out of date; run "
        "`speechloom plugins table --folder plugins > docs/compatibility.md`"
    )


@NEEDS_TOML
def test_the_pairs_of_speechsec_do_all_tasks() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for pair in SPEECHSEC_PAIRS:
        section = page.split(f"### {pair.name}\n")[1].split("\n#")[0]
        answers = [line for line in section.splitlines() if line.startswith("| ")][1:]
        assert len(answers) == len(TASKS) + 1  # continue with text and without
        assert all("| **yes** |" in answer for answer in answers)
        assert f"codec `{pair.codec}`" in answers[0]


def test_a_cell_is_the_answer_of_the_router() -> None:
    specs = _by_kind(*FAKE_SPECS)
    table = compatibility_table(specs)
    wanted: dict[Role, str] = {"generator": "fake-generator"}
    for task in TASKS:
        chain = find_chain(task, lambda kind: specs.get(kind, ()), wanted=wanted)
        for link in chain.links:
            assert f"`{link.spec.id}`" in table
    assert "## Generator fake-generator" in table
    assert "| **yes** 1 |" in table


def test_a_refusal_names_the_facts_that_disagree() -> None:
    facts = CODEC.facts.model_copy(update={"codes": "other"})
    other = CODEC.model_copy(update={"id": "other-codec", "facts": facts})
    table = compatibility_table(_by_kind(*FAKE_SPECS, other))
    assert "| no 2 |" in table
    assert f"gives codes:{CODEC.facts.codes}, but codec other-codec plays codes:other" in table  # type: ignore[union-attr]


def test_what_is_not_installed_leaves_an_empty_page() -> None:
    assert "## Generator" not in compatibility_table({})
    assert "SpeechSEC" not in compatibility_table({})


def test_generators_between_take_what_one_gives_and_give_what_the_other_takes() -> None:
    sounds = generator_between(
        TOKENIZER, CODEC, id="sounds", implementation="my.module:Mine", voice=SPEAKER_ENCODER
    )
    facts, codec = sounds.facts, CODEC.facts
    assert isinstance(facts, GeneratorFacts)
    assert isinstance(codec, CodecFacts)
    assert facts.content == (TOKENIZER.facts.gives,)  # type: ignore[union-attr]
    assert facts.gives == codec.takes
    assert (facts.codebooks, facts.codebook_size) == (codec.codebooks, codec.codebook_size)
    assert facts.free_tasks == ("continue",)
    speaks = generator_between(FRONTEND, TOKENIZER, id="speaks", implementation="my.module:Mine")
    assert isinstance(speaks.facts, GeneratorFacts)
    assert speaks.facts.tasks == ("synthesize", "edit", "continue")
    assert speaks.facts.codebooks == 1


@pytest.mark.parametrize("task", TASKS)
def test_a_pair_with_its_generators_does_every_task(task: Task) -> None:
    mine = "my.module:Mine"
    sounds = generator_between(TOKENIZER, CODEC, id="sounds", implementation=mine)
    speaks = generator_between(FRONTEND, TOKENIZER, id="speaks", implementation=mine)
    specs = _by_kind(FRONTEND, ALIGNER, TOKENIZER, CODEC, sounds, speaks)
    chain = find_chain(task, lambda kind: specs.get(kind, ()))
    assert chain.spec("generator") is sounds
    assert ("content_generator" in chain) == (task != "convert")


def test_generators_between_refuse_other_kinds() -> None:
    with pytest.raises(UsageError, match="not from codec .* to tokenizer"):
        generator_between(CODEC, TOKENIZER, id="wrong", implementation="my.module:Mine")
    with pytest.raises(UsageError, match=f"with codec {CODEC.id}"):
        generator_between(TOKENIZER, CODEC, id="w", implementation="m:M", voice=CODEC)


@NEEDS_TOML
def test_a_folder_without_plugins_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no plugins"):
        specs_in_folder(tmp_path)
