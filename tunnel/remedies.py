"""What a person can do about an error of the operating system."""

from __future__ import annotations

import errno

_REMEDIES = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "name a file",
    errno.EACCES: "check its owner and mode, or run this with sudo",
    errno.EPERM: "check its owner and mode, or run this with sudo",
    errno.EROFS: "choose a place that can be written",
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EIO: "its disk fails: look into the kernel's log (dmesg)",
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.ENAMETOOLONG: "choose a shorter one",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def sentence(problem: OSError) -> str:
    """File, cause and, where one is known, fix."""
    where = f"{problem.filename}: " if problem.filename else ""
    fix = _REMEDIES.get(problem.errno or 0)
    return f"{where}{problem.strerror or problem}" + (f"; {fix}" if fix else "")
