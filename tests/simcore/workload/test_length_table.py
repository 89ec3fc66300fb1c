import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from simcore.errors import UserError
from simcore.workload.derive_lengths import TABLES, derive_table, main
from simcore.workload.length_table import LEVELS, LengthTable, Source, bundled_tables

SOURCE = Source(repository="o/r", file="f.csv", sha256="0" * 64, licence="MIT", requests=10)


def test_every_derived_table_is_bundled_and_no_other() -> None:
    assert bundled_tables() == sorted(TABLES)


@pytest.mark.parametrize("name", bundled_tables())
def test_a_bundled_table_has_its_sources_means_and_says_where_it_is_from(name: str) -> None:
    table = LengthTable.load(name, Path())
    assert np.trapezoid(table.prompt_tokens, table.levels) == pytest.approx(table.prompt_mean_tokens, rel=0.01)
    assert np.trapezoid(table.output_tokens, table.levels) == pytest.approx(table.output_mean_tokens, rel=0.01)
    assert table.derived_from.licence in ("CC-BY-4.0", "Apache-2.0")
    assert table.derived_from.requests > 3_000


def test_a_derived_table_has_the_lengths_distribution() -> None:
    rng = np.random.default_rng(1)
    prompt = rng.geometric(1 / 500, 20_000)
    table = derive_table("t", SOURCE, prompt, 2 * prompt)
    drawn = table.quantile("prompt", rng.random(200_000))
    assert drawn.mean() == pytest.approx(prompt.mean(), rel=0.01)
    assert drawn.std() == pytest.approx(prompt.std(), rel=0.03)
    assert table.quantile("output", np.array([0.0, 1.0])).tolist() == [2 * prompt.min(), 2 * prompt.max()]
    assert table.rank_correlation == table.copula_correlation == 1


def test_a_users_own_table_is_read_from_a_file(tmp_path: Path) -> None:
    table = derive_table("mine", SOURCE, np.arange(1, 100), np.arange(1, 100)[::-1])
    (tmp_path / "mine.json").write_text(table.model_dump_json())
    assert LengthTable.load("mine.json", tmp_path) == table


def test_an_unknown_table_names_those_there_are() -> None:
    with pytest.raises(UserError, match=r"no length table 'azur'.*azure-code, azure-conv"):
        LengthTable.load("azur", Path())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": [0.0, *LEVELS[2:], 0.5]}, "'levels' must rise from 0 to 1"),
        ({"prompt_tokens": [1.0]}, "'prompt_tokens' must have one value a level"),
        ({"output_tokens": [-1.0]}, "output_tokens.0: Input should be greater than 0"),
        ({"schema_version": 2}, "schema_version"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_malformed_table_is_refused_with_its_path_and_field(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    table = derive_table("mine", SOURCE, np.arange(1, 100), np.arange(1, 100))
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(table.model_dump(mode="json") | change))
    with pytest.raises(UserError, match=f"{path}.*{message}"):
        LengthTable.load("mine.json", tmp_path)


def test_a_missing_table_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: No such file"):
        LengthTable.load("none.json", tmp_path)


def test_deriving_needs_the_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SIMROUTE_DATA", raising=False)
    result = CliRunner().invoke(main, ["--out", str(tmp_path)])
    assert isinstance(result.exception, UserError)
    assert "SIMROUTE_DATA, which is not set" in str(result.exception)


@pytest.mark.skipif(not os.environ.get("SIMROUTE_DATA"), reason="needs the traces under SIMROUTE_DATA")
def test_the_bundled_tables_are_what_the_derivation_writes(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--out", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0
    for name in TABLES:
        written = LengthTable.load(f"{name}.json", tmp_path)
        assert written == LengthTable.load(name, Path())
