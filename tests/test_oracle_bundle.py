"""References in one file: they serve another machine, one without python-flint too, and a torn or
foreign file is refused.
"""

import io
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from suite import inputs
from suite.commands.main import cli
from suite.formats import float64
from suite.ops import get_op
from suite.oracle import REFERENCE_VERSION, Oracle, cache, tiers
from suite.oracle.bundle import pack, unpack
from suite.oracle.certified import Certified

NARROW = ("--op", "softmax", "--kernel", "shifted", "--dtype", "float64", "--case", "softmax/normal/16x33/s0")


def reference(folder):
    x = inputs.build("normal_large", 4, 17, float64, 0)
    return Oracle(folder).reference(get_op("softmax"), {"x": x}, {"dim": -1}, float64)


def without_computing(monkeypatch):
    monkeypatch.setattr(tiers, "certified", lambda *_: pytest.fail("computed instead of read"))


@pytest.fixture
def bundle(tmp_path):
    """A file with one reference, and that reference."""
    original = reference(tmp_path / "here")
    assert pack(tmp_path / "here", tmp_path / "references.npz") == 1
    return tmp_path / "references.npz", original


def test_references_serve_a_machine_without_python_flint(bundle, tmp_path, monkeypatch):
    path, original = bundle
    monkeypatch.setitem(sys.modules, "flint", None)
    without_computing(monkeypatch)

    assert unpack(path, tmp_path / "there") == 1
    travelled = reference(tmp_path / "there")

    assert travelled.tier == "arb"
    for name in ("hi", "lo", "radius"):
        assert np.array_equal(getattr(travelled, name), getattr(original, name))


def test_balls_are_not_given_up_for_references_by_mpmath(tmp_path, monkeypatch):
    with monkeypatch.context() as without_flint:
        without_flint.setitem(sys.modules, "flint", None)
        assert reference(tmp_path).tier == "mpmath"

    assert reference(tmp_path).tier == "arb"


def test_rows_that_another_machine_did_not_need_are_computed(tmp_path):
    """Which rows go to the certified tier depends on a machine's exp and log."""
    original = reference(tmp_path)
    (path,) = tmp_path.glob("*/*.npz")
    whole = cache.load(tmp_path, path.stem)
    for rows in ([1], [0, 2, 3], []):
        cache.save(
            tmp_path,
            path.stem,
            Certified(np.array(rows, np.intp), *(one[rows] for one in whole[1:4]), whole.tier),
        )

        assert np.array_equal(reference(tmp_path).hi, original.hi)
        assert cache.load(tmp_path, path.stem).rows.tolist() == [0, 1, 2, 3]


def test_rows_that_this_machine_does_not_need_are_left_out(tmp_path, monkeypatch):
    original = reference(tmp_path)
    (path,) = tmp_path.glob("*/*.npz")
    whole = cache.load(tmp_path, path.stem)
    more = (np.insert(one, 4, 7.0, axis=0) for one in whole[1:4])
    cache.save(tmp_path, path.stem, Certified(np.arange(5), *more, whole.tier))
    without_computing(monkeypatch)

    assert np.array_equal(reference(tmp_path).hi, original.hi)


def test_a_torn_file_is_refused(bundle, tmp_path):
    path, _ = bundle
    content = path.read_bytes()
    middle = len(content) // 2
    for torn in (
        b"",
        content[:middle],
        b"not a zip",
        content[:middle] + b"\xff" * 40 + content[middle + 40 :],
    ):
        path.write_bytes(torn)
        with pytest.raises(ValueError, match=r"references.npz' is no whole file of references"):
            unpack(path, tmp_path / "there")
    assert not (tmp_path / "there").exists()


FOREIGN = {
    "another version": {"format": np.array(f"softmax-suite references {REFERENCE_VERSION - 1}")},
    "a path for a key": {"keys": np.array(["../../../../../../../etc/cron.d/" + "a" * 8])},
    "an unknown tier": {"tiers": np.array(["trust"])},
    "fewer values": {"hi": np.zeros(3)},
    "negative radius": {"radius": -np.ones(68)},
    "no radius": {"radius": np.full(68, np.nan)},
    "a radius that allows everything": {"radius": np.full(68, np.inf)},
    "no value": {"hi": np.full(68, np.nan)},
    "no rest": {"lo": np.full(68, np.inf)},
    "rows in disorder": {"rows": np.array([3, 2, 1, 0])},
    "shapes of another sum": {"shapes": np.array([[-4, -17]])},
    "objects": {"hi": np.array([{}], dtype=object)},
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_file_is_refused(what, bundle, tmp_path):
    path, _ = bundle
    with np.load(path) as stored:
        arrays = dict(stored)
    assert arrays["rows"].shape == (4,)
    assert arrays["hi"].shape == (68,)
    np.savez(path, **{**arrays, **FOREIGN[what]})

    with pytest.raises(ValueError, match="is no whole file of references"):
        unpack(path, tmp_path / "there")
    np.savez(path, x=np.zeros(3))
    with pytest.raises(ValueError, match="it has no format"):
        unpack(path, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_what_is_no_archive_or_holds_objects_is_told_in_plain_words(tmp_path):
    path = tmp_path / "references.npz"
    for content, message in (
        (b"some text", "it is no .npz file, or its end is missing"),
        (b"", "it is no .npz file, or its end is missing"),
        (saved(np.save, np.zeros(3)), "it is no .npz file, or its end is missing"),
        (saved(np.savez, format=np.array([{}], dtype=object)), "format cannot be read as numbers or text"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no whole file of references") as raised:
            unpack(path, tmp_path / "there")
        assert str(raised.value).endswith(message)


def saved(write, *arrays, **named):
    buffer = io.BytesIO()
    write(buffer, *arrays, **named)
    return buffer.getvalue()


# A file is well formed and its numbers are not: a stored reference decides nothing that float64 contradicts.

ALTERED = {
    "halves": lambda one: one._replace(hi=one.hi / 2, lo=one.lo * 0),
    "one entry, in the ninth digit": lambda one: one._replace(
        hi=one.hi * np.where(np.arange(17) == 5, 1 + 1e-9, 1)
    ),
    "a rest that is no rest": lambda one: one._replace(lo=one.hi),
    "a radius that allows everything": lambda one: one._replace(radius=one.radius + 1),
    "an infinite radius": lambda one: one._replace(radius=one.radius + np.inf),
    "no numbers": lambda one: one._replace(hi=one.hi * np.nan),
    "infinities": lambda one: one._replace(hi=one.hi + np.inf),
}


@pytest.mark.parametrize("what", ALTERED)
def test_an_altered_reference_is_computed_again(what, tmp_path):
    original = reference(tmp_path)
    (path,) = tmp_path.glob("*/*.npz")
    cache.save(tmp_path, path.stem, ALTERED[what](cache.load(tmp_path, path.stem)))

    again = reference(tmp_path)

    for name in ("hi", "lo", "radius"):
        assert np.array_equal(getattr(again, name), getattr(original, name))
    assert np.array_equal(cache.load(tmp_path, path.stem).hi, original.hi)


# The command.


def invoke(*arguments):
    return CliRunner().invoke(cli, ["references", *map(str, arguments)])


def test_the_command_makes_the_references_that_a_selection_needs_and_loads_them(tmp_path, monkeypatch):
    here, there, path = tmp_path / "here", tmp_path / "there", tmp_path / "references.npz"
    monkeypatch.setenv("SOFTMAX_SUITE_CACHE", str(here))
    made = invoke("--out", path, *NARROW)

    assert made.exit_code == 0
    assert made.stdout.startswith(f"{path}: ")
    assert not list(here.glob("*/*.npz"))
    monkeypatch.setenv("SOFTMAX_SUITE_CACHE", str(there))
    loaded = invoke("--load", path)
    assert loaded.exit_code == 0
    assert made.stdout.split()[1] == loaded.stdout.split()[0] != "0"
    without_computing(monkeypatch)
    assert CliRunner().invoke(cli, ["run", *NARROW, "--out", str(tmp_path / "run")]).exit_code == 0


def test_a_failing_kernel_does_not_fail_its_references(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTMAX_SUITE_CACHE", str(tmp_path))
    (tmp_path / "wrong.py").write_text("def f(x, dim=-1):\n    return x\n")
    arguments = [word if word != "shifted" else f"{tmp_path / 'wrong.py'}:f" for word in NARROW]

    assert invoke("--out", tmp_path / "references.npz", *arguments).exit_code == 0


def test_misuse_is_told(tmp_path):
    missing, folder = tmp_path / "none.npz", tmp_path / "no" / "file.npz"
    for arguments, message in (
        ((), "--out FILE makes a file of references, --load FILE reads one; give one of them"),
        (("--out", "a.npz", "--load", "b.npz"), "give one of them"),
        (("--load", missing), "No such file"),
        (("--load", "a.npz", "--op", "softmax"), "--load takes no selection"),
        (("--out", folder, *NARROW), "cannot be written"),
        (("--out", "a.npz", "--case", "softmax/nothing/*"), "matches no case"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr


def test_a_cache_that_takes_nothing_is_told(bundle, tmp_path, monkeypatch):
    path, _ = bundle
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SOFTMAX_SUITE_CACHE", str(tmp_path / "file"))

    result = invoke("--load", path)

    assert result.exit_code == 2
    assert "takes no references" in result.stderr


def test_what_is_in_the_cache_is_packed_without_what_is_torn(tmp_path):
    reference(tmp_path)
    (torn,) = tmp_path.glob("*/*.npz")
    torn.write_bytes(b"")

    assert pack(tmp_path, tmp_path / "references.npz") == 0
    assert unpack(tmp_path / "references.npz", tmp_path / "there") == 0
    assert cache.load(tmp_path / "there", torn.stem) is None
