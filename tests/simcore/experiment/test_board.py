import pickle
from pathlib import Path

from simcore.experiment.board import Board


def test_a_new_board_says_nothing(tmp_path: Path) -> None:
    board = Board.create(tmp_path / "board", 3)

    assert not board.stopped
    assert board.jobs_done == 0


def test_what_one_process_writes_another_reads(tmp_path: Path) -> None:
    """A copy maps the same file."""
    board = Board.create(tmp_path / "board", 3)
    copy = pickle.loads(pickle.dumps(board))
    copy.report(0, 1.0)
    copy.report(2, 0.25)

    assert board.jobs_done == 1.25
    board.stop()
    assert copy.stopped
    assert copy.jobs_done == 1.25, "the stop is no job"
