"""Run a hook by its name. Copier deletes a new project when its task fails, so an unexpected error is only reported.

Run this folder with ``python -I``, so that no ``PYTHON*`` variable changes how the hook is imported or how it ends.
"""

import importlib
import os
import sys
import traceback


def main() -> int:
    """Run the hook that the first argument names; return the exit status."""
    try:
        return int(importlib.import_module(sys.argv.pop(1)).main())
    except Exception:
        # The log may be missing or on a full disk, or the hook cannot be imported: print the traceback.
        traceback.print_exc()
        print("The hook stopped at the error above. The files of the project are complete.", flush=True)
        in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
        return int(in_ci or "--keep=yes" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
