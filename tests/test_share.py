"""The share of costly tests: it follows SHARE or the commit, and holds something of every kind."""

import pytest

from tests import share

ITEMS = [f"{kind}{number}" for kind in "abc" for number in range(12)] + ["d0"]


@pytest.fixture
def numbered(monkeypatch):
    def of(number):
        monkeypatch.setenv("SHARE", number)
        share.number.cache_clear()
        return share.share(ITEMS, of=4, kind=lambda item: item[0])

    yield of
    share.number.cache_clear()


def test_a_share_holds_one_in_so_many_of_each_kind_and_at_least_one_in_their_order(numbered):
    found = numbered("1a2b3c4d")

    assert [sum(item[0] == kind for item in found) for kind in "abcd"] == [3, 3, 3, 1]
    assert found == [item for item in ITEMS if item in found]


def test_the_same_number_gives_the_same_share_others_give_others_and_all_is_everything(numbered):
    assert numbered("1") == numbered("1")
    assert set().union(*(numbered(str(number)) for number in range(30))) == set(ITEMS)
    assert numbered("all") == ITEMS


def test_without_a_number_the_commit_chooses(monkeypatch):
    monkeypatch.delenv("SHARE", raising=False)
    share.number.cache_clear()
    try:
        assert share.number() == share.number() != share.ALL
    finally:
        share.number.cache_clear()
