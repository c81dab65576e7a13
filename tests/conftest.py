"""One thread of torch for each test process, and a share of the costly tests."""

import torch

from tests import share

torch.set_num_threads(1)
"""Tests run beside each other, and on small tensors threads wait for one another."""

CASES = 3
"""Of the cases, one in so many runs, and at least one of each function."""


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "share(of, group=None, by=None): one in `of` items runs, of each test function or of the group;"
        " by(**parameters) names kinds of items, of each of which at least one runs",
    )


def pytest_collection_modifyitems(config, items):
    """Leaves out what is not in this run's share. What is chosen with ::, -k or -m always runs."""
    chosen = config.option.keyword or config.option.markexpr or any("::" in word for word in config.args)
    if share.number() == share.ALL or chosen:
        return
    kinds = {}
    for item in items:
        kind = kind_of(item)
        if kind is not None:
            kinds.setdefault(kind, []).append(item)
    left_out = set()
    for (of, *_), found in kinds.items():
        kept = share.share([item.nodeid for item in found], of=of)
        left_out |= {item.nodeid for item in found}.difference(kept)
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
    items[:] = [item for item in items if item.nodeid not in left_out]


def kind_of(item):
    """(of, what it is a kind of): one in `of` of the items of the same kind runs; None where all do."""
    place = item.nodeid.split("/")
    if place[0] == "cases":
        return CASES, item.nodeid.split("[")[0]
    mark = item.get_closest_marker("share")
    if mark is None:
        return None
    given = dict(mark.kwargs)
    group, by = given.get("group") or item.nodeid.split("[")[0], given.get("by")
    return given["of"], group, by(**item.callspec.params) if by else None


def pytest_terminal_summary(terminalreporter, config):
    if hasattr(config, "workerinput"):
        return
    number = share.number()
    if number == share.ALL:
        terminalreporter.write_line("SHARE=all: every test")
    else:
        terminalreporter.write_line(
            f"SHARE={number}: a share of the costly tests, by the commit. `make test SHARE={number}` runs"
            " the same ones again, `make test-all` every test"
        )
