"""The layers of the package, read from its sources: who may import whom, what stays asleep, what
must not be written.
"""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

from suite.ops import NAMES

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "suite").rglob("*.py"))
}

# From the ground up: a unit imports units of lower lines and itself, nothing beside or above it. A unit
# is a module or a package with everything in it; the kernels themselves are a unit above their
# declaration. What `importlib` finds by name is not looked at.
LAYERS = (
    ("formats", "floating_point", "version", "timing"),
    ("numerics", "settings", "tensors", "records"),
    ("inputs",),
    ("ops",),
    ("kernels", "oracle"),
    ("verdict", "kernels/*"),
    ("laws", "suite"),
    ("case",),
    ("execution",),
    ("studies", "report"),
    ("selection",),
    ("session",),
    ("plugin",),
    ("bench",),
    ("commands",),
    ("__main__",),
)
DECLARATION = ("declaration", "loading")
ASLEEP = ("torch", "pandas", "flint", "mpmath", "scipy", "pytest", "matplotlib", "jinja2", "rich")


@functools.cache
def tree(path):
    """The syntax tree of a file, parsed once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"))


def unit_of(module):
    """The unit of LAYERS that a module belongs to."""
    parts = module.split(".")
    if parts == ["suite"]:
        return "suite"
    return "kernels/*" if parts[1] == "kernels" and parts[2:] and parts[2] not in DECLARATION else parts[1]


def layer_of(module):
    [layer] = [number for number, units in enumerate(LAYERS) if unit_of(module) in units]
    return layer


def imports(tree):
    """The names of this package that a module imports anywhere in it, those for type checkers left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)
        else:
            yield from imports(node)


def imported_modules(path):
    for name in imports(tree(path)):
        if name.partition(".")[0] == "suite":
            yield name if name in MODULES else name.rpartition(".")[0]


def test_imports_go_one_way():
    upward = [
        f"{module} imports {imported}"
        for module, path in MODULES.items()
        for imported in imported_modules(path)
        if unit_of(imported) != unit_of(module) and layer_of(imported) >= layer_of(module)
    ]

    assert upward == []


def test_every_unit_of_the_layers_exists():
    assert {unit_of(module) for module in MODULES} == {unit for units in LAYERS for unit in units}


def test_the_imports_of_the_ops_have_no_circle():
    """What two modules need of each other is a third one."""
    of = {
        module: {imported for imported in imported_modules(path) if imported.startswith("suite.ops.")}
        for module, path in MODULES.items()
        if unit_of(module) == "ops"
    }
    while free := [module for module, needed in of.items() if not needed & of.keys() - {module}]:
        for module in free:
            del of[module]

    assert of == {}


NAMED = {
    "suite/ops/__init__.py": "the list of all ops",
    "suite/commands/doctor.py": "the self-test",
    "suite/inputs/__main__.py": "headings of the families",
    "suite/laws/__init__.py": "modules of laws",
    "suite/report/attention_terminal.py": "the heading of a table",
    "suite/report/published.py": "the ops of the published table",
    "suite/studies/claims/dong.py": "stacks of layers",
    "suite/studies/claims/issues.py": "the op of an issue",
    "suite/studies/claims/noci.py": "stacks of layers",
    "suite/studies/depth/__init__.py": "stacks of layers and modules",
    "suite/studies/depth/__main__.py": "stacks of layers",
    "suite/studies/gpu_goals.py": "what is timed",
    "suite/studies/modules/exact.py": "parts of a layer",
    "suite/studies/tuning.py": "configurations of Triton's kernels",
    "suite/studies/vanishing/tables.py": "the op of the tables in docs",
}
"""Files outside of ops and kernels that may hold the name of an op, and as what."""


def names_an_op(source):
    """Whether a text of Python holds the name of an op: whatever decides by one must."""
    return any(isinstance(node, ast.Constant) and node.value in NAMES for node in ast.walk(source))


@pytest.mark.parametrize(
    "source",
    [
        'op == "softmax"', 'op in ("softmax", "log_softmax")', 'TORCH = {"softmax": 1}',
        'TABLE.get("softmax")', 'TABLE["attention"]', 'OPS: tuple = frozenset({"softmax"})',
        'def f(ops=("softmax",)): ...', "match op:\n    case 'attention':\n        pass",
    ],
)  # fmt: skip
def test_the_name_of_an_op_is_seen(source):
    assert names_an_op(ast.parse(source))


def test_only_an_op_and_its_kernels_know_its_name():
    """Adding an op is its folder, a folder of kernels and its name in NAMES: what anything else
    needs to know, the op says itself.
    """
    found = {
        str(path.relative_to(ROOT))
        for module, path in MODULES.items()
        if not (unit_of(module) == "ops" and module.split(".")[2:3] in [[name] for name in NAMES])
        and unit_of(module) not in ("kernels", "kernels/*")
        and names_an_op(tree(path))
    }

    assert found == set(NAMED)


def test_only_ops_and_intervals_look_at_the_lower_limit():
    """Whether results have a sign or a limit is a fact about an op, which it says itself."""
    looking = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr == "lower_limit" and unit_of(module) != "ops"
    }

    assert looking == {"suite.verdict.interval"}


def test_every_module_says_what_it_is():
    silent = [module for module, path in MODULES.items() if not ast.get_docstring(tree(path))]

    assert silent == []


def test_files_and_functions_fit_their_limits():
    """A file of at most 500 lines, a function of at most 60."""
    long = []
    for module, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > 500:
            long.append(f"{module} has {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                long.append(f"{module}.{node.name} has {node.end_lineno - node.lineno + 1} lines")

    assert long == []


def test_relative_imports_are_not_used():
    relative = [
        module
        for module, path in MODULES.items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]

    assert relative == []


def test_importing_the_package_wakes_no_heavy_library():
    code = f"import sys, suite; print(*[name for name in {ASLEEP} if name in sys.modules])"

    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )

    assert finished.stdout.split() == []


def test_no_file_names_a_place_outside_the_repository():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    forbidden = [text.encode() for text in ("/" + "work/", "../" + "shared")]
    files = [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]

    guilty = [str(path) for path in files if any(text in path.read_bytes() for text in forbidden)]

    assert files
    assert guilty == []
