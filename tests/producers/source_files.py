"""Real files for the tests of sources and imports."""

import io
import json
import tarfile
from pathlib import Path

from PIL import Image


def image_bytes(color="red", form="PNG", size=(8, 6)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, form)
    return buffer.getvalue()


def write_image(path, color="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image_bytes(color, "JPEG" if path.suffix == ".jpg" else "PNG"))
    return path


def write_jsonl(path, rows):
    """Rows are objects, or bytes that are written as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def write_tar(path, members):
    """Members are (name, bytes) pairs."""
    Path(path).write_bytes(tar_bytes(members))
    return path


def tar_bytes(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
