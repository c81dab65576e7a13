"""Modules of kernels changed in their text, and Triton's kernels compiled for a GPU that need not be here."""

import importlib.util
from pathlib import Path
from types import ModuleType


def loaded(path, name: str = "a_copy_of_a_module") -> ModuleType:
    """The module of a file, under another name than its own."""
    specification = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def mutated(module: ModuleType, right: str, wrong: str, folder: Path) -> ModuleType:
    """A copy of the module in the folder, with one text in place of another that it must have."""
    text = Path(module.__file__).read_text(encoding="utf-8")
    assert right in text
    path = folder / "mutated.py"
    path.write_text(text.replace(right, wrong), encoding="utf-8")
    return loaded(path)


def compiled(kernel, kinds, constants, aligned=(), **options):
    """A kernel of Triton for CUDA of capability 9.0, down to machine code; nothing runs.

    kinds: of arguments that are no i32, such as "*bf16". aligned: how the names of those end that are
    multiples of 16.
    """
    import triton
    from triton.backends.compiler import GPUTarget

    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else kinds.get(name, "i32") for name in names}
    source = triton.compiler.ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items() if name in names},
        attrs={
            (names.index(name),): [["tt.divisibility", 16]] for name in names if name.endswith(tuple(aligned))
        },
    )
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
