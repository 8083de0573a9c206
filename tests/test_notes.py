"""What is no mistake but worth a word: one line on stderr, once, and never a line of code."""

import sys
import warnings
from pathlib import Path

import pytest

from mobjrec import cli, notes
from mobjrec.data.example import example


def test_a_warning_is_one_line_without_its_place_and_is_told_once(capsys):
    with notes.shown(), warnings.catch_warnings():
        warnings.simplefilter("always")
        for text in ("one\n  thing", "another", "one\n  thing"):
            warnings.warn(text, stacklevel=1)
    out, error = capsys.readouterr()
    assert (out, error) == ("", "mobjrec: note: one thing\nmobjrec: note: another\n")


def test_it_is_told_again_the_next_time_and_others_keep_their_warnings(capsys):
    @notes.shown()
    def warned():
        warnings.warn("here", UserWarning, stacklevel=1)

    for _ in range(2):
        warned()
    assert capsys.readouterr().err == "mobjrec: note: here\n" * 2
    with pytest.warns(UserWarning, match="there"):
        warnings.warn("there", stacklevel=1)


def test_an_unused_column_is_a_note_of_the_command(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mobjrec", "data", "check", str(example(Path("my_shop")))])
    users = tmp_path / "my_shop" / "users.csv"
    lines = users.read_text().splitlines()
    users.write_text("\n".join([lines[0] + ",shoe", *(f"{line},42" for line in lines[1:])]) + "\n")
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, error = capsys.readouterr()
    assert (end.value.code or 0) == 0, error
    assert error == "mobjrec: note: my_shop/users.csv: columns shoe are not used\n"
    assert "no problem found" in out
