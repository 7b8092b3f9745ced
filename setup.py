"""The native extensions; everything else about the package stands in pyproject.toml."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from setuptools import Extension, setup

NATIVE = sorted(path for end in ("pyx", "pxd", "h") for path in Path("fastpath").glob(f"*.{end}"))
MODULES = [path.stem for path in NATIVE if path.suffix == ".pyx"]


def build_id() -> str:
    """What the modules were built from; fastpath.engines() compares it with the sources there."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in NATIVE)).hexdigest()[:16]


def links(library: str, header: str) -> bool:
    """Whether a program with ``header`` can be compiled and linked with ``library``."""
    compiler = shutil.which("cc")
    if compiler is None:
        return False
    command = [compiler, "-x", "c", "-", f"-l{library}", "-o", "/dev/null"]
    source = f"#include <{header}>\nint main(void) {{ return 0; }}"
    return subprocess.run(command, input=source.encode(), capture_output=True).returncode == 0


ipsec_mb = links("IPSec_MB", "intel-ipsec-mb.h")
macros: list[tuple[str, str | None]] = [("AUTOTUNNEL_BUILD", f'"{build_id()}"')]
macros += [("AUTOTUNNEL_IPSEC_MB", "1")] if ipsec_mb else []


def extension(name: str) -> Extension:
    """Any edit rebuilds all: the modules share each other's structures."""
    return Extension(
        f"fastpath.{name}",
        [f"fastpath/{name}.pyx"],
        include_dirs=["fastpath"],
        depends=[str(path) for path in NATIVE],
        define_macros=macros,
        libraries=["crypto", "IPSec_MB"] if ipsec_mb else ["crypto"],
        extra_compile_args=["-O3", "-fvisibility=hidden"],
        extra_link_args=["-Wl,--as-needed"],
    )


setup(ext_modules=[extension(name) for name in MODULES])
