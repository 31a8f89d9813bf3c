"""Logs are read by pieces that are whole lines, whatever their size."""

from hypothesis import given
from hypothesis import strategies as st

from opadpo.jobs import logs


def test_following_the_tail_and_what_is_new(tmp_path):
    path = tmp_path / "log.txt"
    assert logs.read(path, None) == ("", 0, 0, 0)
    path.write_bytes(b"one\ntwo\nthr")
    piece = logs.read(path, None)
    assert (piece.text, piece.offset, piece.skipped) == ("one\ntwo\n", 8, 0)
    with path.open("ab") as file:
        file.write(b"ee\n\xff\n")
    assert logs.read(path, piece.offset).text == "three\n\ufffd\n"
    path.write_bytes(b"new\n")  # another file: an offset beyond its end says nothing
    assert logs.read(path, 100).text == "new\n"


def test_a_reader_too_far_behind_jumps_to_the_tail(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("".join(f"line {number:04d}\n" for number in range(1000)))
    piece = logs.read(path, 100, limit=50)
    assert piece.text == "".join(f"line {number:04d}\n" for number in range(995, 1000))
    assert (piece.offset, piece.skipped) == (10_000, 9_950 - 100)
    assert logs.read(path, None, limit=55).text == piece.text


@given(st.lists(st.text(st.characters(blacklist_characters="\n", blacklist_categories=["Cs"]), max_size=30)))
def test_reading_on_gives_every_line_once(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("log") / "log.txt"
    path.touch()
    seen, offset = "", 0
    for line in lines:
        with path.open("ab") as file:
            file.write(f"{line}\n".encode())
        piece = logs.read(path, offset)
        seen, offset = seen + piece.text, piece.offset
        assert piece.skipped == 0
    assert seen == "".join(f"{line}\n" for line in lines)


def test_searching_in_any_case_with_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "_BLOCK", 64)
    path = tmp_path / "log.txt"
    path.write_text("".join(f"{'Größe' if number % 7 == 0 else 'Warning'} {number}\n" for number in range(50)) + "end")
    assert list(logs.search(path, "GRÖSSE", 3)) == [(1, "Größe 0"), (8, "Größe 7"), (15, "Größe 14")]
    assert list(logs.search(path, "warning 4", 2)) == [(5, "Warning 4"), (41, "Warning 40")]
    assert list(logs.search(path, "END", 9)) == [(51, "end")]
    assert list(logs.search(path, "", 9)) == []
