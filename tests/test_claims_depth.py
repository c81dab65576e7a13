"""claims/dong.py and claims/noci.py: reproduced, and not by a network that has what the claim says
is missing, or lacks it.
"""

import pytest

from suite.studies import claims, depth
from suite.studies.claims import dong, noci

MEASURED = {
    "rank-collapse-cubic": dong.cubic,
    "rank-collapse-skip": dong.skip,
    "rank-collapse-query-gradients": noci.query_gradients,
}


@pytest.mark.parametrize("name", MEASURED)
def test_the_claim_is_reproduced(name):
    assert claims._CLAIMS[name].measure is MEASURED[name]
    assert MEASURED[name]().agrees


@pytest.mark.parametrize("name", MEASURED)
def test_attention_with_a_residual_in_secret_does_not_agree(name, monkeypatch):
    monkeypatch.setitem(depth.STACKS, "attention", depth.STACKS["residual, LayerNorm before"])

    assert not MEASURED[name]().agrees


def test_skip_connections_that_are_missing_do_not_agree(monkeypatch):
    monkeypatch.setitem(depth.STACKS, "residual", depth.STACKS["attention"])

    assert not dong.skip().agrees
