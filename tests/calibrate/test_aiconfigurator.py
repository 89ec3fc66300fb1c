"""The import from aiconfigurator, whose place a stand-in with planted times takes."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from calibrate.aiconfigurator import import_aiconfigurator, model_shape
from simcore.errors import UserError
from simcore.kv_capacity import MODELS

LLAMA = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


def estimate(model: str, system: str, *, mode: str, batch_size: int, isl: int, **_: object) -> SimpleNamespace:
    tokens = batch_size * isl
    return SimpleNamespace(tpot=6 + 0.01 * batch_size + 5e-5 * tokens, ttft=7 + 0.02 * tokens, backend_version="0.5.14")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    import json

    api = ModuleType("aiconfigurator.cli.api")
    api.cli_estimate = estimate  # type: ignore[attr-defined]
    for name in ("aiconfigurator", "aiconfigurator.cli"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "aiconfigurator.cli.api", api)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.12.0")
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model/config.json").write_text(json.dumps(LLAMA))
    return tmp_path / "my-model"


def test_the_shape_of_a_model_is_read_off_its_configuration() -> None:
    shape, known = model_shape("m", LLAMA), MODELS["llama-3.1-8b"]
    assert shape.parameters == known.parameters
    assert shape.kv_bytes_per_token == known.kv_bytes_per_token
    with pytest.raises(UserError, match="mixtures of experts"):
        model_shape("m", {**LLAMA, "num_local_experts": 8})
    with pytest.raises(UserError, match="no 'hidden_size'"):
        model_shape("m", {})


def test_planted_times_come_back(stand_in: Path) -> None:
    profile = import_aiconfigurator(str(stand_in), "h100_sxm", "sglang", None)
    assert profile.name == "my-model-h100"
    assert profile.model == "my-model"
    assert profile.steps.decode.base_s == pytest.approx(
        [(6 + 0.01 * b) / 1000 for b in (1, 4, 16, 32, 64, 128)], rel=1e-3
    )
    assert profile.steps.prefill.per_token_s == pytest.approx(2e-5, rel=0.01)
    assert profile.settings.chunked_prefill_size == 8192


def test_what_cannot_be_is_said(stand_in: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--system b300: not one of a100_sxm"):
        import_aiconfigurator(str(stand_in), "b300", "sglang", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="give the folder of its config"):
        import_aiconfigurator(str(tmp_path / "empty"), "h100_sxm", "sglang", None)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiconfigurator", None)
    with pytest.raises(UserError, match=r"pip install 'simroute\[aiconfigurator\]'"):
        import_aiconfigurator("m", "h100_sxm", "sglang", None)
