"""What a path leads to, told without opening it."""

import os
import stat


def special_file(path: str | os.PathLike[str]) -> str | None:
    """Return what a pipe, socket or device is: reading it could wait for ever, or never end.

    None for regular files, folders and whatever cannot be looked at, an address for one.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
