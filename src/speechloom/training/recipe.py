"""A recipe: everything that decides what a training gives, in one YAML file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializationInfo,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from speechloom.errors import BackendUnavailable, UsageError, WeightsError

__all__ = [
    "BatchSettings",
    "CheckpointSettings",
    "DataSettings",
    "OptimizerSettings",
    "Recipe",
    "RecipePath",
    "ValidateSettings",
    "check_settings",
    "from_record",
    "read_recipe",
    "recorded",
]


def _absolute(path: Path, info: ValidationInfo) -> Path:
    """Paths are relative to the recipe's folder, wherever the command is run."""
    return Path(os.path.abspath(Path((info.context or {}).get("folder", "")) / path.expanduser()))


def _relative(path: Path, info: SerializationInfo) -> str:
    """In records paths are as the user wrote them, so that a moved folder is the same recipe."""
    folder = (info.context or {}).get("folder")
    return str(path) if folder is None else os.path.relpath(path, folder)


RecipePath = Annotated[Path, AfterValidator(_absolute), PlainSerializer(_relative)]
"""A path in a recipe or in a learner's settings: written relative to the recipe, read absolute."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSettings(_Section):
    """What is learnt from.

    Attributes:
        manifest: JSONL, one example a line (see `speechloom.training.manifest`).
        cuts: a lhotse cut set instead.
        validation: examples to measure on, a file of the same kind; none by default.
        cache: folder of prepared items; runs may share it.
        max_frames: longer examples are left out, and counted; None keeps all.
        source: where the data come from, for the model card.
        license: of the data, for the model card.
    """

    manifest: RecipePath | None = None
    cuts: RecipePath | None = None
    validation: RecipePath | None = None
    cache: RecipePath = Field(default=Path("cache"), validate_default=True)
    max_frames: int | None = Field(default=None, gt=0)
    source: str = ""
    license: str = ""

    @model_validator(mode="after")
    def _one_kind(self) -> DataSettings:
        if (self.manifest is None) == (self.cuts is None):
            raise ValueError("give either manifest (JSONL) or cuts (a lhotse cut set)")
        return self


class BatchSettings(_Section):
    """How many examples a step sees.

    Attributes:
        frames: at most this many frames a batch, padding included; per process.
        max_items: at most this many examples a batch.
        workers: threads that read and collate ahead.
    """

    frames: int = Field(gt=0)
    max_items: int = Field(default=64, gt=0)
    workers: int = Field(default=2, gt=0)


class OptimizerSettings(_Section):
    """AdamW (arXiv:1711.05101), and how its step size goes.

    Attributes:
        learning_rate: the highest.
        betas: decay of the moving averages of the gradient and of its square.
        weight_decay: of matrices; vectors and scalars are not decayed.
        clip: the gradient is scaled down to this norm; None leaves it.
        warmup: steps of linear rise to `learning_rate`.
        schedule: how it falls after that: ``cosine`` or ``linear`` to `final` of it at the last
            step, ``inverse_sqrt`` of the step, ``exponential`` to `final` of it, or ``constant``.
        final: what is left at the last step, as a share of `learning_rate`.
    """

    learning_rate: float = Field(default=3e-4, gt=0)
    betas: tuple[
        Annotated[float, Field(ge=0, lt=1)],
        Annotated[float, Field(ge=0, lt=1)],
    ] = (0.9, 0.98)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float | None = Field(default=1.0, gt=0)
    warmup: int = Field(default=0, ge=0)
    schedule: Literal["cosine", "linear", "inverse_sqrt", "exponential", "constant"] = "cosine"
    final: float = Field(default=0.01, gt=0, le=1)


class CheckpointSettings(_Section):
    """When the run is saved.

    Attributes:
        seconds: time between checkpoints.
        keep: the newest so many are kept.
    """

    seconds: float = Field(default=300.0, ge=0)
    keep: int = Field(default=2, gt=0)


class ValidateSettings(_Section):
    """When the validation data are measured.

    Attributes:
        every: steps between validations; there is one behind the last step, too.
    """

    every: int = Field(default=1000, gt=0)


class Recipe(_Section):
    """Everything that decides what a training gives.

    Attributes:
        learner: what is trained; ``speechloom train --list`` shows what there is.
        settings: of the learner, checked by it.
        data: what is learnt from.
        batch: how many examples a step sees.
        optimizer: step sizes.
        steps: how many steps.
        seed: names every random draw.
        precision: ``bf16`` (mixed), ``fp32``, or ``auto``: bf16 where the processor has units
            for it.
        ema: decay of the moving average of the weights that is measured and exported; None for the
            weights themselves.
        accumulate: batches whose gradients make one step.
        checkpoint: when the run is saved.
        validate_: when it is measured (key ``validate``).
        freeze: modules of the network that do not learn, by name or pattern (``encoder.*``).
        start_from: weights to begin with: a run's folder, a checkpoint, or a safetensors file.
        log_every: steps between lines of the log.
    """

    learner: str
    settings: dict[str, Any] = Field(default_factory=dict)
    data: DataSettings
    batch: BatchSettings
    optimizer: OptimizerSettings = OptimizerSettings()
    steps: int = Field(gt=0)
    seed: int = Field(default=0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    ema: float | None = Field(default=None, gt=0, lt=1)
    accumulate: int = Field(default=1, gt=0)
    checkpoint: CheckpointSettings = CheckpointSettings()
    validate_: ValidateSettings = Field(default=ValidateSettings(), alias="validate")
    freeze: tuple[str, ...] = ()
    start_from: RecipePath | None = None
    log_every: int = Field(default=10, gt=0)


_KEYS = {field.alias or name for name, field in Recipe.model_fields.items()}


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read and check a recipe.

    Args:
        path: a YAML file.

    Raises:
        UsageError: it cannot be read, or is wrong; the message names file, key and what was
            expected, for every wrong key.
        BackendUnavailable: PyYAML is not installed.
    """
    source = Path(path)
    content = _load_yaml(source)
    try:
        return Recipe.model_validate(content, context={"folder": source.absolute().parent})
    except ValidationError as error:
        raise UsageError(_problems(source, error)) from None


def check_settings(
    settings_type: type[BaseModel], recipe: Recipe, path: str | os.PathLike[str]
) -> BaseModel:
    """Check a recipe's settings as its learner wants them.

    Args:
        settings_type: of the learner.
        recipe: read from `path`.
        path: of the recipe.

    Raises:
        UsageError: they are wrong; the message names file, key and what was expected.
    """
    source = Path(path)
    try:
        return settings_type.model_validate(
            recipe.settings, context={"folder": source.absolute().parent}
        )
    except ValidationError as error:
        raise UsageError(_problems(source, error, "settings.")) from None


def recorded(recipe: Recipe, settings: BaseModel, folder: Path) -> dict[str, Any]:
    """A recipe as plain data with every default filled in and paths relative to its folder."""
    context = {"folder": folder}
    record = recipe.model_dump(mode="json", by_alias=True, context=context)
    return record | {"settings": settings.model_dump(mode="json", context=context)}


def from_record(record: Mapping[str, Any], folder: Path) -> Recipe:
    """A recipe from what `recorded` gave.

    Args:
        record: plain data.
        folder: of the recipe.

    Raises:
        WeightsError: the record is of another version.
    """
    fields = {name: value for name, value in record.items() if name in _KEYS}
    try:
        return Recipe.model_validate(fields, context={"folder": folder})
    except ValidationError as error:
        raise WeightsError(_problems(folder / "the recorded recipe", error)) from None


def _load_yaml(source: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            "recipes need PyYAML, which is not installed; run `pip install 'speechloom[train]'`",
            plugin="speechloom:train",
        ) from error

    try:
        text = source.read_text(encoding="utf-8")
        _check_keys_once(yaml.compose(text, yaml.SafeLoader), source)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the recipe {source} cannot be read: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{source}:{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not YAML: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(
            f"{source}: a recipe is a mapping (learner: ..., data: ...), not "
            f"{'empty' if content is None else type(content).__name__}"
        )
    return content


def _check_keys_once(node: Any, source: Path) -> None:
    """Refuse a key that stands twice, of which YAML readers silently take the last."""
    if node is None or node.id == "scalar":
        return
    if node.id == "sequence":
        for child in node.value:
            _check_keys_once(child, source)
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            line = key.start_mark.line + 1
            raise UsageError(f"{source}:{line}: the key {key.value!r} stands twice; keep one")
        seen.add(key.value)
        _check_keys_once(value, source)


def _problems(source: Path, error: ValidationError, prefix: str = "") -> str:
    """One line for each wrong key: what is wrong and what was expected."""
    lines = []
    for problem in error.errors():
        key = prefix + ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "there is no such key"
        elif problem["type"] == "missing":
            message = "is missing"
        else:
            message = f"{message[0].lower()}{message[1:]}, but is {_short(problem['input'])}"
        lines.append(f"{key.removesuffix('.') or 'recipe'}: {message}")
    return f"{source}: " + "; ".join(lines)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
