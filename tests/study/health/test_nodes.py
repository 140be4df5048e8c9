"""What a node is asked: whether the folder that it writes into is the others' too."""

from pathlib import Path

from study.health import nodes


def test_a_folder_that_is_not_shared_is_found(tmp_path: Path) -> None:
    assert nodes._write(str(tmp_path), "t", "a") == ""
    assert nodes._missing(str(tmp_path), "t", ["a"]) == []
    assert nodes._missing(str(tmp_path / "elsewhere"), "t", ["a"]) == ["a"]
    (tmp_path / "file").touch()
    assert "Not a directory" in nodes._write(str(tmp_path / "file"), "t", "a")
