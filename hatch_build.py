"""Put compiled kernels into the wheel where SOFTNLL_KERNELS is set; the wheel then is for this platform alone.

    SOFTNLL_KERNELS=1 pip wheel --no-build-isolation --no-deps .

Kernels are compiled by Numba, so that the build needs the package's own requirements: hence no isolation.
SOFTNLL_KERNELS=NAME takes those whose name has NAME in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledKernels(BuildHookInterface):  # type: ignore[type-arg]
    """Hatch's hook."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the kernels and add them to what goes into the wheel."""
        wanted = os.environ.get("SOFTNLL_KERNELS", "")
        if wanted in ("", "0") or version == "editable":
            return
        only = [] if wanted == "1" else ["--only", wanted]
        self._folder = tempfile.TemporaryDirectory()
        script = Path(self.root) / "tools" / "ship_kernels.py"
        sources = os.environ | {"PYTHONPATH": str(Path(self.root) / "src")}
        subprocess.run([sys.executable, str(script), self._folder.name, *only], check=True, env=sources)
        build_data["force_include"][self._folder.name] = "softnll/_kernels/cpu/objects"
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform.replace('linux', 'manylinux_2_17', 1)}"

    def finalize(self, *_: Any) -> None:
        """Remove the compiled files."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()
