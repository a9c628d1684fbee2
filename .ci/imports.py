"""Import every module of emolib in an environment that holds the base requirements alone.

A module may stop at a package of an extra (torch, ray, ...); any other failure is one. Run from
the repository as ``python .ci/imports.py``; prints how many modules were imported.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import sys

import emolib

# Import names of the extras' packages that modules of emolib import when they are imported.
EXTRAS = {"huggingface_hub", "peft", "ray", "swift", "torch", "transformers"}


def main() -> int:
    """Import, print the counts; 1 when a module failed."""
    done, stopped, failed = 0, 0, []
    found = pkgutil.walk_packages(emolib.__path__, "emolib.", onerror=lambda name: None)
    for name in sorted(module.name for module in found if not module.name.endswith("__main__")):
        try:
            importlib.import_module(name)
            done += 1
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in EXTRAS:
                stopped += 1
            else:
                failed.append(f"{name}: {error}")
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
    print(f"Python {sys.version.split()[0]}: {done} modules imported, {stopped} need an extra")
    print("\n".join(failed), file=sys.stderr, end="\n" if failed else "")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
