"""What the docs say of the app's pages is what the desk's tables say, and no key means two things on one page."""

import pytest

from app import docs


@pytest.mark.parametrize(("name", "page"), docs.PAGES.items())
def test_made_parts_are_up_to_date(name: str, page: str):
    text = (docs.DOCS / name).read_text(encoding="utf-8")
    assert docs.document(text, page) == text, "run `make pages`"


@pytest.mark.parametrize("page", sorted(docs.table("keys").keys() - {"everywhere"}))
def test_every_key_does_one_thing(page: str):
    entries = docs.keys_of(page)
    keys = [key for entry in entries for key in entry["keys"]]
    actions = [entry["action"] for entry in entries]
    assert len(keys) == len(set(keys))
    assert len(actions) == len(set(actions))
