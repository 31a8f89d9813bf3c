"""Files of rows: whatever a kill leaves behind is read as the whole rows before it, and written on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opadpo.training.shards import KEY_BYTES, SUFFIX, Shards, ShardWriter

KEYS = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)
VALUES = st.lists(st.floats(width=32, allow_nan=False), max_size=5)
ROWS = st.dictionaries(KEYS, VALUES, max_size=6)


def write(path, rows, whole=0):
    with ShardWriter(path, whole) as writer:
        writer.append((key, np.asarray(values, np.float32)) for key, values in rows.items())


def read(shards, keys):
    return {key: shards[key].tolist() for key in keys if key in shards}


@pytest.mark.slow
@settings(max_examples=50)
@given(rows=ROWS, more=ROWS, cut=st.floats(0, 1), torn=st.sampled_from(["cut", "zeros", "flipped"]))
def test_a_torn_end_is_cut_off_and_written_again(tmp_path_factory, rows, more, cut, torn):
    folder = tmp_path_factory.mktemp("shards")
    path = folder / f"process-0{SUFFIX}"
    write(path, rows)
    content = path.read_bytes()
    place = round(cut * len(content))
    if torn == "flipped" and place < len(content):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    else:
        path.write_bytes(content[:place] + (bytes(len(content) - place) if torn == "zeros" else b""))
    shards = Shards(folder)
    kept = read(shards, rows)
    before = {key: rows[key] for key, _ in zip(rows, range(len(kept)), strict=False)}
    assert kept == before  # the first ones, and none that is not as it was written
    assert len(shards) == len(kept)
    assert shards.whole[path] <= place or torn == "zeros"
    rest = {key: values for key, values in {**rows, **more}.items() if key not in kept}
    write(path, rest, shards.whole[path])
    assert read(Shards(folder), rest | kept) == rest | kept


def test_rows_of_several_files_and_keys_that_begin_alike(tmp_path):
    keys = [b"the same" + bytes([n]) * 8 for n in range(3)]
    for number, key in enumerate(keys):
        write(tmp_path / f"process-{number}{SUFFIX}", {key: [float(number)]})
    shards = Shards(tmp_path)
    assert read(shards, keys) == {key: [float(number)] for number, key in enumerate(keys)}
    assert b"the same" + b"\xff" * 8 not in shards
    with pytest.raises(KeyError):
        shards[bytes(KEY_BYTES)]


def test_an_open_folder_stays_as_it_was_while_others_append(tmp_path):
    path = tmp_path / f"process-0{SUFFIX}"
    first, second = bytes(KEY_BYTES), b"\x01" * KEY_BYTES
    write(path, {first: [1.5]})
    shards = Shards(tmp_path)
    write(path, {second: [2.5]}, shards.whole[path])
    assert (shards[first].tolist(), second in shards, len(shards)) == ([1.5], False, 1)
    assert Shards(tmp_path)[second].tolist() == [2.5]


def test_no_row_is_copied_into_memory(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / f"process-0{SUFFIX}"
    write(path, {rng.bytes(KEY_BYTES): rng.random(100) for _ in range(50)})
    values = Shards(tmp_path)[path.read_bytes()[:KEY_BYTES]]
    assert not values.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1.0
