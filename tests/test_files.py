"""A file is replaced whole, or not at all."""

import pytest

from fabfile.files import replacing


def test_what_was_written_takes_its_place(tmp_path):
    path = tmp_path / "note.json"
    path.write_text("old")
    with replacing(path) as scratch:
        scratch.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_what_fails_half_way_leaves_the_old_one_alone(tmp_path):
    path = tmp_path / "note.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as scratch:
        scratch.write_text("ne")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
