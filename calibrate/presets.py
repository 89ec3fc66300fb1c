"""Launch presets: a YAML file of named sets of SGLang flags, so that settings can be calibrated one after the other.

fp8:
  model: meta-llama/Llama-3.1-8B
  flags: {quantization: fp8, kv-cache-dtype: fp8_e5m2, disable-radix-cache: true}
  env: {CUDA_VISIBLE_DEVICES: "0"}
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from simcore.errors import UserError
from simcore.profile_launch import explain

__all__ = ["Preset", "load_presets", "merged_flags"]


class Preset(BaseModel):
    """One way to launch a server. A flag that is true is given without a value, one that is false not at all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    flags: dict[str, str | bool | int | float] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)


_Presets = TypeAdapter(dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], Preset])


def load_presets(file: Path) -> dict[str, Preset]:
    """All presets of a file, by name, in its order. Raises UserError."""
    try:
        document = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not YAML: {error}") from error
    try:
        return _Presets.validate_python(document)
    except ValidationError as error:
        raise UserError(explain(str(file), error)) from error


def merged_flags(preset: Preset, given: tuple[str, ...]) -> list[str]:
    """The preset's flags with those of the command line after them; one given on both is the command line's."""
    names = {flag.partition("=")[0] for flag in given if flag.startswith("--")}
    flags: list[str] = []
    for key, value in preset.flags.items():
        name = f"--{key.removeprefix('--')}"
        if name in names or value is False:
            continue
        flags += [name] if value is True else [name, str(value)]
    return [*flags, *given]
