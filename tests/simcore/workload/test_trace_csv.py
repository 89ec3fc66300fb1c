import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simcore.errors import UserError
from simcore.workload import Workload, trace_csv

Build = Callable[..., Workload]

AZURE_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:01+00:00,2399,6
2024-05-10 00:00:01.509930+00:00,76,15
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
118.5,GPT-4,417,276,693,API log
"""


@pytest.fixture
def azure(tmp_path: Path) -> Path:
    path = tmp_path / "azure.csv"
    path.write_text(AZURE_2023)
    return path


def test_azure_2023_to_the_microsecond(build: Build, azure: Path) -> None:
    workload = build(trace={"kind": "azure-2023", "path": "azure.csv"})
    np.testing.assert_allclose(workload.arrival_s, [0, 4.314579, 4.541877], rtol=0, atol=1e-9)
    assert workload.prompt_tokens.tolist() == [374, 396, 879]
    assert workload.output_tokens.tolist() == workload.max_new_tokens.tolist() == [44, 109, 55]
    assert workload.segments is None


def test_azure_2024_with_its_offsets_and_whole_seconds(build: Build, tmp_path: Path) -> None:
    (tmp_path / "azure.csv").write_text(AZURE_2024)
    workload = build(trace={"kind": "azure-2024", "path": "azure.csv"})
    np.testing.assert_allclose(workload.arrival_s, [0, 0.99007, 1.5], rtol=0, atol=1e-9)
    assert workload.prompt_tokens.tolist() == [2162, 2399, 76]


def test_burstgpt_leaves_out_failures_and_says_so(
    build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "burst.csv").write_text(BURSTGPT)
    with caplog.at_level(logging.WARNING):
        workload = build(trace={"kind": "burstgpt", "path": "burst.csv"})
    assert workload.arrival_s.tolist() == [0, 113.5]
    assert workload.prompt_tokens.tolist() == [472, 417]
    assert workload.output_tokens.tolist() == [18, 276]
    assert "burst.csv: 1 of the trace's requests skipped" in caplog.text


def test_the_rate_scale_divides_times(build: Build, azure: Path) -> None:
    workload = build(trace={"kind": "azure-2023", "path": "azure.csv", "rate_scale": 2})
    np.testing.assert_allclose(workload.arrival_s, [0, 2.1572895, 2.2709385], rtol=0, atol=1e-9)


def test_arrivals_replace_the_traces_times(build: Build, azure: Path) -> None:
    workload = build(
        trace={"kind": "azure-2023", "path": "azure.csv"}, arrivals={"kind": "closed_loop", "max_concurrency": 2}
    )
    assert workload.arrival_s.tolist() == [0, 0, 0]
    assert workload.max_concurrency == 2


def test_the_limit_counts_requests_that_can_be_replayed(build: Build, tmp_path: Path) -> None:
    (tmp_path / "burst.csv").write_text(BURSTGPT)
    assert len(build(trace={"kind": "burstgpt", "path": "burst.csv", "limit": 1})) == 1
    assert build(trace={"kind": "burstgpt", "path": "burst.csv", "limit": 2}).prompt_tokens.tolist() == [472, 417]


def test_requests_out_of_order_are_put_in_order(build: Build, tmp_path: Path) -> None:
    rows = ["Timestamp,Request tokens,Response tokens", "9,90,1", "3,30,1", "6,60,1"]
    (tmp_path / "burst.csv").write_text("\n".join(rows))
    workload = build(trace={"kind": "burstgpt", "path": "burst.csv"})
    assert workload.arrival_s.tolist() == [0, 3, 6]
    assert workload.prompt_tokens.tolist() == [30, 60, 90]


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
@pytest.mark.parametrize("limit", [None, 1, 2, 3, 4, 5, 9])
def test_reading_in_pieces_changes_nothing(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, chunk: int
) -> None:
    rows = [f"{second},{10 + second},{0 if second == 2 else 1}" for second in range(8)]
    (tmp_path / "burst.csv").write_text("\n".join(["Timestamp,Request tokens,Response tokens", *rows]))
    monkeypatch.setattr(trace_csv, "_CHUNK", chunk)
    workload = build(trace={"kind": "burstgpt", "path": "burst.csv", "limit": limit})
    assert workload.arrival_s.tolist() == [0, 1, 3, 4, 5, 6, 7][:limit]
    assert workload.prompt_tokens.tolist() == [10, 11, 13, 14, 15, 16, 17][:limit]


def test_what_lies_behind_the_limit_is_not_counted_as_skipped(
    build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "burst.csv").write_text(BURSTGPT)
    with caplog.at_level(logging.WARNING):
        build(trace={"kind": "burstgpt", "path": "burst.csv", "limit": 1})
    assert caplog.text == ""


def test_a_byte_order_mark_windows_lines_and_empty_lines_do_no_harm(build: Build, tmp_path: Path) -> None:
    text = "\ufeff" + AZURE_2023.replace("\n", "\r\n") + "\r\n\r\n"
    (tmp_path / "azure.csv").write_bytes(text.encode())
    assert len(build(trace={"kind": "azure-2023", "path": "azure.csv"})) == 3


@pytest.mark.parametrize("chunk", [1, 100])
@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("396,109", "396,many", r":3: column 'GeneratedTokens': 'many' is not a whole number of tokens"),
        ("396,109", "39.6,109", r":3: column 'ContextTokens': '39.6' is not a whole number"),
        ("396,109", "-396,109", r":3: column 'ContextTokens': '-396' is not a whole number"),
        ("396,109", "396", r":3: column 'GeneratedTokens': '' is not a whole number"),
        ("2023-11-16 18:15:51.2224670", "yesterday", r":4: column 'TIMESTAMP': 'yesterday' is not a time"),
        ("2023-11-16 18:15:51.2224670", "", r":4: column 'TIMESTAMP': '' is not a time"),
        ("ContextTokens", "Prompt", r":1: column 'ContextTokens': missing; the header has TIMESTAMP, Prompt"),
        ("879,55", "879,55,1", r":4: Expected 3 fields in line 4, saw 4"),
        ("374,44", "374,44,1", r":2: more fields than the 3 of the header"),
        (AZURE_2023, "", r":1: the file is empty"),
        (AZURE_2023, "TIMESTAMP,ContextTokens,GeneratedTokens\n", r": no request to replay \(0 skipped\)"),
    ],
)
def test_a_malformed_file_is_one_message_with_line_column_and_origin(
    build: Build, azure: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, old: str, new: str, complaint: str
) -> None:
    monkeypatch.setattr(trace_csv, "_CHUNK", chunk)
    azure.write_text(AZURE_2023.replace(old, new))
    with pytest.raises(UserError, match=rf"azure\.csv{complaint}.*Azure/AzurePublicDataset"):
        build(trace={"kind": "azure-2023", "path": "azure.csv"})


def test_an_unreadable_file_is_one_message(build: Build, azure: Path) -> None:
    azure.write_bytes(b"TIMESTAMP,ContextTokens,GeneratedTokens\n\xff\xfe,1,2\n")
    with pytest.raises(UserError, match=r"azure\.csv: cannot be read: 'utf-8' codec"):
        build(trace={"kind": "azure-2023", "path": "azure.csv"})


def test_a_missing_file_says_where_to_get_it(build: Build) -> None:
    with pytest.raises(UserError, match=r"none\.csv: no such trace file\. .*HPMLL/BurstGPT"):
        build(trace={"kind": "burstgpt", "path": "none.csv"})


def test_variables_in_the_path_are_expanded(build: Build, azure: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = {"kind": "azure-2023", "path": "${SIMROUTE_DATA}/azure.csv"}
    monkeypatch.setenv("SIMROUTE_DATA", str(azure.parent))
    assert len(build(trace=trace)) == 3
    monkeypatch.delenv("SIMROUTE_DATA")
    with pytest.raises(UserError, match=r"SIMROUTE_DATA, which is not set.*SIMROUTE_DATA=DIR.*AzurePublicDataset"):
        build(trace=trace)
