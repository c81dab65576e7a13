"""suite/kernels: every way to name a kernel, and every way to name it wrong."""

import functools
import sys
from types import SimpleNamespace

import pytest
import torch

from suite.formats import get_format
from suite.kernels import Kernel, kernel, kernel_names, load_kernels, loading, own_kernels
from suite.kernels.declaration import parameters_of
from suite.ops import NAMES

FLOAT32, BFLOAT16 = get_format("float32"), get_format("bfloat16")

TWO = """
from suite.kernels import kernel

@kernel("softmax")
def first(x, dim=-1):
    return x.softmax(dim)

@kernel("softmax", name="second")
@kernel("logsumexp", dtypes=("float32",))
def both(x, dim=-1):
    return x.softmax(dim)

def plain(x, dim=-1):
    return x.softmax(dim)

def without_dim(x):
    return x.softmax(-1)

def wrong(x, y):
    return x

def nothing():
    return None

_hidden = plain
number = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(TWO)
    return path


def written(tmp_path, text):
    path = tmp_path / "broken.py"
    path.write_text(text)
    return path


def test_a_file_gives_all_its_decorated_kernels_of_the_op(file):
    found = load_kernels(str(file), "softmax")

    assert [k.id for k in found] == [f"{file}:first", f"{file}:second"]
    assert [k.id for k in load_kernels(str(file), "logsumexp")] == [f"{file}:both"]
    assert all(k.outside and k.version for k in found)


@pytest.mark.parametrize("op", ["softmax", "logsumexp"])
def test_the_id_of_every_kernel_of_a_file_loads_that_kernel_again(file, op):
    """Reports and reproduce commands name kernels by their id."""
    for one in load_kernels(str(file), op):
        (again,) = load_kernels(one.id, op)
        assert (again.id, again.call) == (one.id, one.call)


@pytest.mark.parametrize("function", ["first", "both", "plain", "without_dim"])
def test_a_function_of_a_file_is_a_kernel_decorated_or_not(file, function):
    (found,) = load_kernels(f"{file}:{function}", "softmax")

    assert (found.id, found.op, found.outside) == (f"{file}:{function}", "softmax", True)
    assert torch.equal(found({"x": torch.zeros(2, 4)}, options={"dim": -1}), torch.full((2, 4), 0.25))


def test_a_file_is_imported_once(file):
    assert (
        load_kernels(f"{file}:plain", "softmax")[0].call is load_kernels(f"{file}:plain", "softmax")[0].call
    )


def test_two_files_of_one_name_are_two_modules(tmp_path):
    results = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "mine.py"
        path.write_text(f"def f(x, dim=-1):\n    return {folder!r}\n")
        results.append(load_kernels(f"{path}:f", "softmax")[0].call(None))

    assert results == ["a", "b"]


def test_a_file_may_import_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_a_kernel.py").write_text("VALUE = 5\n")
    path = tmp_path / "mine.py"
    path.write_text("from neighbour_of_a_kernel import VALUE\ndef f(x, dim=-1):\n    return VALUE\n")
    before = list(sys.path)

    assert load_kernels(f"{path}:f", "softmax")[0].call(None) == 5
    assert sys.path == before


def test_what_a_file_puts_on_the_path_stays_and_its_own_folder_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "mine.py"
    path.write_text("import sys\nsys.path.insert(0, '/from/the/file')\ndef f(x, dim=-1):\n    return x\n")
    load_kernels(f"{path}:f", "softmax")

    assert "/from/the/file" in sys.path
    assert str(tmp_path) not in sys.path


def test_a_missing_file_is_named_with_the_folder_that_was_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"kernel file 'absent.py' does not exist \(looked in ") as caught:
        load_kernels("absent.py:f", "softmax")
    assert str(tmp_path) in str(caught.value)


def test_a_missing_function_is_answered_with_the_functions_there_are(file):
    message = (
        r"mine.py has no function 'frist'; it has: both, first, kernel, nothing, plain, without_dim, wrong$"
    )
    with pytest.raises(ValueError, match=message):
        load_kernels(f"{file}:frist", "softmax")
    with pytest.raises(ValueError, match="has no function 'f'; it has: no functions"):
        load_kernels(f"{written(file.parent, '')}:f", "softmax")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import no_such_package_at_all", "ModuleNotFoundError: No module named 'no_such_package_at_all'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise ValueError", "ValueError: "),
        ("raise ValueError('first\\nsecond')", "ValueError: first$"),
        ("\n\ndef f(x:\n    pass\n", "SyntaxError: .*line 3"),
        ("\0", "(SyntaxError|ValueError): .*null byte"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named_with_the_reason(tmp_path, text, message):
    path = written(tmp_path, text)
    before = list(sys.path)

    for _ in range(2):
        with pytest.raises(ValueError, match=f"kernel file '.*broken.py' cannot be imported: {message}"):
            load_kernels(f"{path}:f", "softmax")
    assert sys.path == before


def test_a_file_that_was_repaired_is_imported_again(tmp_path):
    path = written(tmp_path, "1 / 0")
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        load_kernels(f"{path}:f", "softmax")
    written(tmp_path, "def f(x, dim=-1):\n    return 'repaired'\n")

    assert load_kernels(f"{path}:f", "softmax")[0].call(None) == "repaired"


def test_a_value_that_cannot_be_called_is_named_with_its_type(file):
    with pytest.raises(ValueError, match=r"mine.py:number is a int, not a function"):
        load_kernels(f"{file}:number", "softmax")


@pytest.mark.parametrize(("function", "signature"), [("wrong", r"\(x, y\)"), ("nothing", r"\(\)")])
def test_a_function_of_another_signature_is_refused(file, function, signature):
    with pytest.raises(
        ValueError,
        match=rf"{function}{signature} cannot be called as a kernel of softmax: expected f\(x, dim=-1",
    ):
        load_kernels(f"{file}:{function}", "softmax")


def test_a_kernel_of_another_op_is_refused(file):
    with pytest.raises(
        ValueError, match=r"mine.py:first is declared as a kernel of softmax, not of logsumexp"
    ):
        load_kernels(f"{file}:first", "logsumexp")
    with pytest.raises(
        ValueError, match=r"mine.py:both is declared as a kernel of logsumexp, softmax, not of log_softmax"
    ):
        load_kernels(f"{file}:both", "log_softmax")


def test_a_kernel_object_of_another_op_is_refused(tmp_path):
    path = tmp_path / "objects.py"
    path.write_text(
        "from suite.kernels import Kernel\nmine = Kernel(id='mine', op='logsumexp', call=lambda x, dim=-1:"
        " x)\n"
    )

    assert load_kernels(f"{path}:mine", "logsumexp")[0].id == f"{path}:mine"
    with pytest.raises(ValueError, match=r"objects.py:mine .*logsumexp, not of softmax"):
        load_kernels(f"{path}:mine", "softmax")


def test_a_file_without_a_decorated_kernel_of_the_op_asks_for_a_function(file):
    with pytest.raises(
        ValueError,
        match=r"mine.py declares no kernel of log_softmax with @kernel\('log_softmax'\); name a function: ",
    ):
        load_kernels(str(file), "log_softmax")


def test_a_module_is_named_by_its_dotted_name():
    (found,) = load_kernels("torch.nn.functional:softmax", "softmax")

    assert found.id == "torch.nn.functional:softmax"
    assert found({"x": torch.zeros(1, 2)}, options={"dim": 1}).tolist() == [[0.5, 0.5]]


def test_a_builtin_without_a_signature_is_taken():
    (found,) = load_kernels("torch:softmax", "softmax")

    assert found({"x": torch.zeros(2, 1)}, options={"dim": 0}).tolist() == [[0.5], [0.5]]


def test_a_module_that_does_not_exist_is_named():
    with pytest.raises(
        ValueError,
        match="kernel module 'no_such_module' cannot be imported: ModuleNotFoundError: No module named",
    ):
        load_kernels("no_such_module:f", "softmax")
    with pytest.raises(
        ValueError, match=r"kernel module 'math.sub' cannot be imported: ModuleNotFoundError: "
    ):
        load_kernels("math.sub:f", "softmax")


@pytest.mark.parametrize("specification", [":f", ":", "", " ", "..x:f", "naive "])
def test_any_other_name_of_nothing_is_a_value_error(specification):
    with pytest.raises(ValueError, match=r"\S"):
        load_kernels(specification, "softmax")


@pytest.mark.parametrize("op", NAMES)
def test_an_unknown_name_is_answered_with_the_valid_ones(op):
    with pytest.raises(ValueError, match=f"unknown kernel 'nave' of {op}; expected one of ") as caught:
        load_kernels("nave", op)
    assert [name for name in kernel_names(op) if name not in str(caught.value)] == []
    assert str(caught.value).endswith("or FILE.py:FUNC, or pkg.mod:FUNC")


@pytest.mark.parametrize("op", NAMES)
def test_the_names_read_from_the_sources_are_those_of_the_imported_kernels(op):
    own = own_kernels(op)

    assert sorted(kernel_names(op)) == sorted(own)
    assert all((k.id, k.op, k.outside) == (name, op, False) and k.version for name, k in own.items())


@pytest.mark.parametrize("op", NAMES)
def test_every_own_kernel_is_loaded_by_its_name(op):
    for name, one in own_kernels(op).items():
        assert load_kernels(name, op) == [one]


def entry_points(monkeypatch, **loaders):
    entries = [SimpleNamespace(name=name, load=load) for name, load in loaders.items()]
    monkeypatch.setattr(
        loading.metadata, "entry_points", lambda group: entries if group == loading.ENTRY_POINTS else []
    )


def test_an_entry_point_is_a_kernel_by_its_name(monkeypatch):
    entry_points(monkeypatch, theirs=lambda: lambda x, dim=-1: "called")
    (found,) = load_kernels("theirs", "softmax")

    assert (found.id, found.outside, found({"x": None}, options={"dim": -1})) == ("theirs", True, "called")


def test_an_entry_point_that_cannot_be_loaded_is_a_value_error(monkeypatch):
    def load():
        raise ImportError("their library is missing")

    entry_points(monkeypatch, theirs=load)
    with pytest.raises(ValueError, match=r"theirs.*their library is missing"):
        load_kernels("theirs", "softmax")


def test_the_decorator_returns_the_function_itself():
    def f(x, dim=-1):
        return x

    assert kernel("softmax")(f) is f


@pytest.mark.parametrize(
    ("op", "given", "message"),
    [
        ("hardmax", {}, "unknown op 'hardmax'; expected one of softmax, log_softmax, logsumexp"),
        (
            "softmax",
            {"dtypes": ("fp16",)},
            "dtypes has 'fp16'; expected some of float64, float32, bfloat16, float16",
        ),
        ("softmax", {"adapter": "cupy"}, "adapter='cupy' is not one of torch, numpy, jax"),
    ],
)
def test_a_declaration_of_something_unknown_is_refused(op, given, message):
    with pytest.raises(ValueError, match=message):
        kernel(op, **given)


def declared(function=lambda x, dim=-1: x, **given):
    name = given.pop("name", "mine")
    return Kernel(id=name, op="softmax", call=function, parameters=parameters_of(function), **given)


@pytest.mark.parametrize(
    ("given", "options", "format", "device", "reason"),
    [
        ({}, {}, FLOAT32, "cpu", None),
        (
            {"requires": ("no_such_package",)},
            {},
            FLOAT32,
            "cpu",
            "no_such_package is not installed: pip install",
        ),
        ({"requires": ("torch",)}, {}, FLOAT32, "cpu", None),
        ({"dtypes": ("float16", "float32")}, {}, BFLOAT16, "cpu", "declares dtypes float16, float32"),
        ({"dtypes": ("float16", "float32")}, {}, FLOAT32, "cpu", None),
        ({"devices": ("cuda",)}, {}, FLOAT32, "cpu", "declares devices cuda"),
        ({"devices": ("cuda",)}, {}, FLOAT32, "cuda:1", None),
        ({"adapter": "numpy"}, {}, BFLOAT16, "cpu", "numpy has no bfloat16"),
        ({"adapter": "numpy"}, {}, FLOAT32, "cuda", "numpy runs on the CPU only"),
        ({"adapter": "numpy"}, {}, FLOAT32, "cpu", None),
        ({"function": lambda x: x}, {"dim": 0}, FLOAT32, "cpu", "takes no argument dim"),
        ({"function": lambda x: x}, {"dim": -1}, FLOAT32, "cpu", None),
        ({}, {"temperature": 0.5}, FLOAT32, "cpu", "takes no argument temperature"),
        ({}, {"temperature": 1.0, "off_by_one": False}, FLOAT32, "cpu", None),
        ({"function": lambda x, dim, off_by_one: x}, {"off_by_one": True}, FLOAT32, "cpu", None),
        ({"function": lambda x: x}, {}, FLOAT32, "cpu", None),
        ({"function": lambda x, **k: x}, {"dim": 0}, FLOAT32, "cpu", None),
        ({"function": lambda x, *, dim: x}, {"dim": 0}, FLOAT32, "cpu", None),
        (
            {"function": functools.partial(torch.nn.functional.softmax, dim=-1)},
            {"dim": 0},
            FLOAT32,
            "cpu",
            None,
        ),
    ],
)
def test_supports_gives_the_reason_or_none(given, options, format, device, reason):
    answer = declared(**given).supports(options, format, device)

    assert answer is None if reason is None else answer.startswith(reason)


def test_a_function_without_dim_is_called_without_it():
    assert declared(lambda x: ("alone", x))({"x": 1}, options={"dim": -1}) == ("alone", 1)
    assert declared(lambda x, dim: (dim, x))({"x": 1}, options={"dim": 2}) == (2, 1)
    assert declared(lambda x, **given: given)({"x": 1}, options={"dim": 2}) == {"dim": 2}


def test_a_function_that_takes_every_name_gets_dim_and_what_differs_from_the_defaults():
    options = {"dim": -1, "temperature": 1.0, "off_by_one": True}
    assert declared(lambda x, **given: given)({"x": 1}, options=options) == {"dim": -1, "off_by_one": True}
    assert declared(lambda x, temperature, off_by_one: (temperature, off_by_one))(
        {"x": 1}, options=options
    ) == (1.0, True)


def test_a_loss_gets_logits_and_target_in_this_order_and_its_options_by_name():
    loss = Kernel(id="loss", op="cross_entropy", call=lambda *tensors, **given: (tensors, given))
    options = {"ignore_index": -100, "label_smoothing": 0.1, "reduction": "mean"}
    assert loss({"logits": "logits", "target": "target"}, options=options) == (
        ("logits", "target"),
        {"label_smoothing": 0.1},
    )


def test_the_version_changes_with_the_source(tmp_path):
    versions = []
    for body in ("x", "x + 1"):
        folder = tmp_path / str(len(versions))
        folder.mkdir()
        path = folder / "mine.py"
        path.write_text(f"def f(x, dim=-1):\n    return {body}\n")
        versions.append(load_kernels(f"{path}:f", "softmax")[0].version)

    assert len(set(versions)) == 2
    assert all(versions)
