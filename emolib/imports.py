"""Which modules of this package a piece of code depends on, read from its source.

Used to tell whether a finished run was made by today's code, and to test the layers.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

import nbformat

from emolib.errors import ParamsError
from emolib.hashing import key_of, sha_file

PACKAGE = Path(__file__).parent


def module_file(name: str) -> Path | None:
    """The source file of ``emolib.…``; None for what is not a module of the package."""
    parts = name.split(".")
    if parts[0] != PACKAGE.name:
        return None
    stem = PACKAGE.joinpath(*parts[1:])
    for path in (stem / "__init__.py", stem.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def imported(source: str, *, top_level_only: bool = False) -> set[str]:
    """Names of the package's modules that a source imports, functions' own imports included.

    Args:
        source: Python text.
        top_level_only: Leave out imports inside functions and under ``TYPE_CHECKING``.
    """
    found: set[str] = set()
    for node in _import_nodes(ast.parse(source), top_level_only):
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        else:
            module = node.module or ""
            candidates = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        found |= {name for name in candidates if module_file(name) is not None}
    return found


def _import_nodes(tree: ast.AST, top_level_only: bool) -> list[ast.Import | ast.ImportFrom]:
    nodes: list[ast.Import | ast.ImportFrom] = []
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Import | ast.ImportFrom):
            nodes.append(child)
        elif (top_level_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)) or (
            top_level_only and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        ):
            continue
        else:
            nodes += _import_nodes(child, top_level_only)
    return nodes


def closure(modules: set[str]) -> dict[str, Path]:
    """Everything ``modules`` depend on inside the package, themselves and parents included."""
    files: dict[str, Path] = {}
    waiting = set(modules)
    while waiting:
        name = waiting.pop()
        path = module_file(name)
        if path is None or name in files:
            continue
        files[name] = path
        waiting |= _imports_of(path) - files.keys()
        if "." in name:
            waiting.add(name.rpartition(".")[0])
    return files


@lru_cache(maxsize=1024)
def _imports_of(path: Path) -> frozenset[str]:
    source = path.read_text(encoding="utf-8")
    return frozenset(imported(source) | _named(source))


def _named(source: str) -> set[str]:
    """Modules of the package whose full name is a string: started as a process of their own."""
    texts = (n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant))
    return {t for t in texts if isinstance(t, str) and "." in t and module_file(t) is not None}


def notebook_code(path: Path) -> str:
    """All code of a notebook, magics left out."""
    cells = nbformat.read(path, as_version=4).cells
    lines = [line for c in cells if c.cell_type == "code" for line in c.source.splitlines()]
    return "\n".join(line for line in lines if not line.startswith(("%", "!")))


def notebook_hash(notebook: Path) -> str:
    """Return the hash of a notebook's own code; text cells play no part."""
    return key_of(code=notebook_code(notebook))


def code_hash(notebook: Path) -> str:
    """Hash of a notebook's code and of every module of the package it depends on.

    Text cells play no part. Data files inside the package count with the modules beside them;
    those in a folder without modules (``emolib/data``) count with the folder above it.

    Raises:
        ParamsError: the notebook's code is not Python.
    """
    source = notebook_code(notebook)
    try:
        files = closure(imported(source))
    except SyntaxError as error:
        raise ParamsError(f"{notebook}: its code is not Python: {error}") from None
    folders = {file.parent for file in files.values()}
    folders |= {
        below
        for folder in folders
        for below in folder.iterdir()
        if below.is_dir() and not any(below.glob("*.py"))
    }
    data = {p for folder in folders for kind in ("*.csv", "*.json") for p in folder.glob(kind)}
    everything = sorted({*files.values(), *data})
    named = [(p.relative_to(PACKAGE).as_posix(), sha_file(p)) for p in everything]
    return key_of(code=source, files=named)
