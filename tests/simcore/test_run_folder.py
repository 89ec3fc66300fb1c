import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.results import make_result, measured, noisy_result

from simcore import run_folder
from simcore.errors import UserError
from simcore.manifest import Manifest, make_manifest
from simcore.records import REQUEST_DTYPES, RunResult
from simcore.report import compare
from simcore.run_folder import comparison_folder, load_run, write_run
from simcore.staging import check_out, slug, staged_folder

START = datetime(2025, 1, 31, 12, 30, 5, tzinfo=UTC)
CONFIG = "name: tiny\n"


def manifest_of(result: RunResult) -> Manifest:
    command = ["simroute", "sim", "--scenario", "my tiny.yaml"]
    return make_manifest(result, command=command, profiles={"p": "ab12"}, started_at=START, finished_at=START)


def write(out: Path, result: RunResult) -> Path:
    return write_run(out, result, measured(result, {"ttft_s": 0.1}), config=CONFIG, manifest=manifest_of(result))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder to look at."""
    return write(tmp_path_factory.mktemp("out") / "results", noisy_result(requests=100))


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time, and how many plots a folder has is another test's matter."""
    monkeypatch.setattr(run_folder, "run_plots", lambda *_: {})


def test_folder_holds_everything(written: Path) -> None:
    folder = written

    assert folder.relative_to(folder.parents[1]).as_posix() == "results/20250131-123005-tiny-random"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "caps.parquet",
        "config.yaml",
        "itl.parquet",
        "manifest.json",
        "plots/cdf-e2e.svg",
        "plots/cdf-tpot.svg",
        "plots/cdf-ttft.svg",
        "plots/server-load.svg",
        "plots/timeline.svg",
        "report.html",
        "requests.parquet",
        "servers.parquet",
        "summary.json",
        "timeline.parquet",
    ]
    assert "simroute sim --scenario &#39;my tiny.yaml&#39;" in (folder / "report.html").read_text()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing aside is left"


def test_what_is_written_can_be_read_back(tmp_path: Path, without_plots: None) -> None:
    rows = [
        {"arrived_at": 0.1, "dispatched_at": 0.2, "first_token_at": 0.3, "finished_at": 0.9, "session_id": 4},
        {"arrived_at": 0.2, "status": "rejected", "reason": "queue full", "server_id": "", "output_tokens": 0},
    ]
    result = make_result(rows, itl={"gap_s": [0.06], "count": [10]}, warnings=["w"], interrupted=True)
    stored = load_run(write(tmp_path, result))

    for name in ("requests", "servers", "timeline", "itl"):
        pd.testing.assert_frame_equal(getattr(stored.result, name), getattr(result, name))
    assert stored.result.warnings == ["w"]
    assert stored.result.interrupted
    assert stored.result.wall_s == result.wall_s
    assert stored.summary.to_dict() == measured(result, {"ttft_s": 0.1}).summary.to_dict()
    assert stored.config == CONFIG


def test_same_data_same_bytes(written: Path, tmp_path: Path) -> None:
    first, second = written, write(tmp_path, noisy_result(requests=100))

    for name in ("requests.parquet", "timeline.parquet", "summary.json", "report.html", "plots/timeline.svg"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_requests_are_plain_parquet(written: Path) -> None:
    table = pq.read_table(written / "requests.parquet")

    assert table.column_names == list(REQUEST_DTYPES)
    assert table.schema.metadata == {b"simroute.schema_version": b"1"}


def test_what_did_not_happen_is_null(tmp_path: Path, without_plots: None) -> None:
    folder = write(tmp_path, make_result([{"arrived_at": 0.2, "status": "rejected"}]))

    assert pq.read_table(folder / "requests.parquet")["finished_at"].null_count == 1


def test_a_run_of_an_earlier_version_has_no_times_at_the_server(tmp_path: Path, without_plots: None) -> None:
    folder = write(tmp_path, make_result([{"arrived_at": 0.2, "server_queue_s": 1.0, "prefill_s": 1.0}]))
    table = pq.read_table(folder / "requests.parquet")
    pq.write_table(table.drop_columns(["server_queue_s", "prefill_s"]), folder / "requests.parquet")

    requests = load_run(folder).result.requests
    assert list(requests.columns) == list(REQUEST_DTYPES)
    assert requests[["server_queue_s", "prefill_s"]].isna().all(axis=None)


def test_a_run_may_have_its_own_name_and_no_page(tmp_path: Path) -> None:
    result = make_result([{"arrived_at": 0.2}])
    manifest = manifest_of(result)
    folder = write_run(
        tmp_path, result, measured(result), config=CONFIG, manifest=manifest, name="mine", with_page=False
    )

    assert folder == tmp_path / "mine"
    assert not {"report.html", "plots"} & {path.name for path in folder.iterdir()}
    assert len(load_run(folder).result.requests) == 1


def test_manifest(written: Path) -> None:
    manifest = json.loads((written / "manifest.json").read_text())

    assert " ".join(manifest) == (
        "schema_version scenario policy seed kind interrupted command started_at finished_at duration_s wall_s "
        "requests profiles simroute_version git_commit python platform packages"
    )
    assert manifest["started_at"] == "2025-01-31T12:30:05+00:00"
    assert manifest["profiles"] == {"p": "ab12"}
    assert "numpy" in manifest["packages"]


def test_a_taken_name_gets_a_suffix(tmp_path: Path, without_plots: None) -> None:
    names = [write(tmp_path, noisy_result(requests=10)).name for _ in range(3)]

    assert names == [f"20250131-123005-tiny-random{suffix}" for suffix in ("", "-2", "-3")]


def test_an_error_leaves_nothing(tmp_path: Path, without_plots: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(run_folder, "run_page", fail)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, noisy_result(requests=10))

    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def be_interrupted() -> None:
        with staged_folder(tmp_path, "x") as folder:
            (folder.staging / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()

    assert list(tmp_path.iterdir()) == []


def test_comparison_holds_its_runs(tmp_path: Path, without_plots: None) -> None:
    runs = []
    with comparison_folder(tmp_path, "tiny", START) as folder:
        for policy in ("random", "my policy.py:Mine"):
            result = noisy_result(requests=50, policy=policy)
            runs.append(measured(result))
            folder.add(result, runs[-1], config=CONFIG, manifest=manifest_of(result))
        folder.finish(compare(runs), config=CONFIG, command=["simroute", "sim"])

    assert folder.path == tmp_path / "20250131-123005-tiny-comparison"
    assert load_run(folder.path / "random-seed0").summary.policy == "random"
    assert load_run(folder.path / "my-policy.py-Mine-seed0").summary.policy == "my policy.py:Mine"
    page = (folder.path / "report.html").read_text()
    assert 'href="random-seed0/report.html"' in page
    assert json.loads((folder.path / "comparison.json").read_text())["rank_by"] == "mean_e2e_s"
    with pytest.raises(UserError, match=r"is a comparison; its runs are my-policy.py-Mine-seed0, random-seed0"):
        load_run(folder.path)


def test_policies_whose_file_names_fall_together_keep_their_folders(tmp_path: Path, without_plots: None) -> None:
    with comparison_folder(tmp_path, "tiny", START) as folder:
        for policy in ("a b", "a:b"):
            result = noisy_result(requests=20, policy=policy)
            folder.add(result, measured(result), config=CONFIG, manifest=manifest_of(result))

    assert sorted(path.name for path in folder.path.iterdir()) == ["a-b-seed0", "a-b-seed0-2"]


def test_what_is_not_a_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run folder: summary.json is missing"):
        load_run(tmp_path)
    with pytest.raises(UserError, match="is not a run folder"):
        load_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", "{", "not readable JSON"),
        ("summary.json", '{"schema_version": 7}', "schema_version is 7"),
        ("manifest.json", "[]", "schema_version is None"),
        ("requests.parquet", "x", "not a readable parquet file"),
    ],
)
def test_a_damaged_run_is_said(written: Path, tmp_path: Path, name: str, content: str, message: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(written, folder)
    (folder / name).write_text(content)

    with pytest.raises(UserError, match=message):
        load_run(folder)


def test_out_that_is_a_file_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="it is, or lies below, a file"):
            check_out(out)


def test_out_that_cannot_be_written_is_the_users_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)

    with pytest.raises(UserError, match="permission denied"):
        write(tmp_path, noisy_result(requests=10))


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("azure-conv", "azure-conv"),
        ("../up", "up"),
        ("a b/c.py:D", "a-b-c.py-D"),
        ("...", "unnamed"),
        ("x" * 99, "x" * 60),
    ],
)
def test_slug(name: str, safe: str) -> None:
    assert slug(name) == safe
