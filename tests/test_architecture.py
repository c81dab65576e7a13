"""The layers of the package, read from its sources: who may import whom, what stays asleep, what
must not be written.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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
    ("numerics", "tensors", "records"),
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
    for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
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


def test_every_module_says_what_it_is():
    silent = [
        module
        for module, path in MODULES.items()
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]

    assert silent == []


def test_relative_imports_are_not_used():
    relative = [
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
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
