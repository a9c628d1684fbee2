"""From a profile's files, or from a notebook's first cell, to a stage's checked parameters.

Order, later wins: ``params/<profile>/_base.yaml``, the notebook's parameters cell,
``params/<profile>/<stage>.yaml``, the command line. The last three are papermill's: it puts a
file's value in the place of the cell's, a mapping as a whole. What is left of them is laid over
``_base.yaml`` key by key. A key stands either in the cell or in ``_base.yaml``, never in both
(tested).
"""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from emolib.errors import ParamsError
from emolib.params.loading import BASE, Source, merge, project_root, read_yaml
from emolib.params.stages import SCHEMAS, Baselines, StageParams

RECIPES = "baselines"  # folder of a profile that holds a file a recipe
_PLAIN = (str, int, float, bool, list, dict, tuple, type(None))
_MARKER = "_emolib_parameters"


def profiles(root: Path) -> list[str]:
    """Names of the profiles that exist."""
    return sorted(p.parent.name for p in (root / "params").glob(f"*/{BASE}"))


def stage_source(root: Path, profile: str, stage: str) -> Source:
    """What the profile's file of this stage says.

    Raises:
        ParamsError: no such profile or file, or not readable.
    """
    folder = root / "params" / profile
    if not (folder / BASE).is_file():
        raise ParamsError(f"no profile {profile!r}: choose from {profiles(root)}")
    return read_yaml(folder / f"{stage}.yaml")


def resolve(
    root: Path, profile: str, stage: str, extra: Mapping[str, object] | None = None
) -> StageParams:
    """Check a stage's parameters without starting a kernel: those its notebook will have.

    A mapping in the stage's file, such as ``recipe``, takes the place of the whole one in the
    notebook's cell, as papermill does it; keys it leaves out have the schema's defaults.

    Args:
        root: Project root.
        profile: Folder under ``params/``.
        stage: Notebook name without suffix.
        extra: Values that win over the files (input runs, command line).

    Raises:
        ParamsError: any wrong file, key or value.
    """
    own = stage_source(root, profile, stage)
    notebook = root / "notebooks" / f"{stage}.ipynb"
    given = [Source(f"{notebook.name}, parameters cell", cell_defaults(notebook)), own]
    if extra:
        given.append(Source("command line", extra))
    checked = merge(SCHEMAS[stage], [*shared_sources(root, profile, stage), *_replaced(given)])
    if checked.profile != profile:
        raise ParamsError(
            f"{own.origin}: profile = {checked.profile!r}, but the file is in {profile!r}"
        )
    return checked


def _replaced(sources: Sequence[Source]) -> list[Source]:
    """What is left of sources whose values take the place of earlier ones, mappings included."""
    left: list[Source] = []
    taken: set[str] = set()
    for source in reversed(sources):
        kept = {key: value for key, value in source.values.items() if key not in taken}
        taken |= kept.keys()
        left.append(Source(source.origin, kept))
    return left[::-1]


def shared_sources(root: Path, profile: str, stage: str) -> list[Source]:
    """What a profile's files say beside the stage's own.

    That is ``_base.yaml`` and, for the stage that has recipes, ``baselines/*.yaml``.

    Raises:
        ParamsError: one of them is not readable.
    """
    found = [read_yaml(root / "params" / profile / BASE)]
    if "recipes" in SCHEMAS[stage].model_fields:
        for file in sorted((root / "params" / profile / RECIPES).glob("*.yaml")):
            read = read_yaml(file)
            found.append(Source(read.origin, {"recipes": {file.stem: dict(read.values)}}))
    return found


def recipes(root: Path, profile: str) -> Baselines:
    """The profile's recipes of other systems, with the models they may use.

    Raises:
        ParamsError: no such profile, or a wrong key or value in one of its files.
    """
    base_params(root, profile)
    given = Source("profile", {"profile": profile})
    return merge(Baselines, [given, *shared_sources(root, profile, "08_baselines")])


def base_params(root: Path, profile: str) -> StageParams:
    """What all stages of a profile share: its ``_base.yaml``.

    Raises:
        ParamsError: no such profile, or a wrong key or value.
    """
    file = root / "params" / profile / BASE
    if not file.is_file():
        raise ParamsError(f"no profile {profile!r}: choose from {profiles(root)}")
    return merge(StageParams, [Source("profile", {"profile": profile}), read_yaml(file)])


def cell_defaults(notebook: Path) -> dict[str, Any]:
    """Read the literals of a notebook's cell tagged ``parameters``; nothing is run.

    Raises:
        ParamsError: no such notebook, no such cell, or a value that is no literal.
    """
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except FileNotFoundError:
        raise ParamsError(f"{notebook}: no such notebook") from None
    except Exception as error:
        raise ParamsError(f"{notebook}: not a notebook: {error}") from None
    tagged = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ParamsError(f"{notebook}: needs exactly one cell tagged 'parameters'")
    values: dict[str, Any] = {}
    try:
        body = ast.parse(tagged[0].source).body
    except SyntaxError as error:
        raise ParamsError(f"{notebook}: the parameters cell is not Python: {error}") from None
    for node in body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if not isinstance(node, ast.AnnAssign) or not isinstance(target, ast.Name):
            raise ParamsError(
                f"{notebook}: the parameters cell may only hold `name: type = literal`"
            )
        try:
            values[target.id] = ast.literal_eval(node.value) if node.value else None
        except (ValueError, TypeError, SyntaxError, RecursionError):
            raise ParamsError(f"{notebook}: parameter {target.id} is no literal") from None
    return values


def from_notebook(stage: str, namespace: dict[str, Any]) -> Any:
    """Check the parameters of the notebook that calls this from its first cells.

    Every plain value defined so far counts as a parameter, so a misspelt name given to
    papermill is refused. May be called again in the same kernel after changes. Changes the
    working directory to the project root: relative paths in parameters are relative to it, in
    JupyterLab too.

    Args:
        stage: The notebook's name without suffix.
        namespace: The notebook's ``globals()``.

    Returns:
        The stage's schema from :mod:`emolib.params.stages`.

    Raises:
        ParamsError: any wrong key or value.
    """
    plain = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and name not in ("In", "Out") and isinstance(value, _PLAIN)
    }
    if (before := namespace.get(_MARKER)) is not None:
        # Run again in a used kernel: later cells' variables are no parameters, but one that has
        # been added to the parameters cell since is.
        known = {*before, *SCHEMAS[stage].model_fields}
        plain = {name: value for name, value in plain.items() if name in known}
    given = plain
    root = project_root()
    profile = given.get("profile")
    base = root / "params" / str(profile) / BASE
    if not base.is_file():
        raise ParamsError(f"profile = {profile!r}: choose from {profiles(root)}")
    os.chdir(root)
    # Libraries ask for a widget package that plain progress bars do not need.
    warnings.filterwarnings("ignore", message="IProgress not found")
    shared = shared_sources(root, str(profile), stage)
    checked = merge(SCHEMAS[stage], [*shared, Source("notebook parameters", given)])
    namespace[_MARKER] = tuple(given)
    return checked
