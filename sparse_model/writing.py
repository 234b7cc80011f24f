"""Files that appear whole or not at all, whatever happens while they are written."""

import glob
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

RUST = re.compile(
    r'message: "([^"]+)"|([^:\s][^:]*) \(os error \d+\)'
)  # how safetensors, old and new, quotes the system
LEFT_OVER = 3600  # seconds after which nobody is writing to a temporary file any more


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to. What was written takes the place of `path` at the end, and is removed if
    anything fails.

    OSError in one sentence if it cannot be written: a full disk, a folder that does not exist. What killed processes
    left beside `path` is removed.
    """
    remove_left_overs(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # of no suffix, so that nobody lists it
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # of any new file here; safetensors makes its own private
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"'{path}' could not be written: {reason(error)}.") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_left_overs(path: Path, age: float = LEFT_OVER) -> None:
    """Removes temporary files of `path` that nobody has written to for `age` seconds."""
    for file in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}"):
        try:
            if time.time() - file.stat().st_mtime >= age:
                file.unlink()
        except OSError:  # somebody else's, or gone by now
            continue


def reason(error: Exception) -> str:
    """What went wrong in the system's words, without Python's and Rust's around them."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    rust = RUST.search(text)
    return rust[1] or rust[2] if rust else text.rstrip(".") or type(error).__name__
