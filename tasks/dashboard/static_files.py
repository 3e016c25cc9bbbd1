"""Scripts and styles of our pages: below a path that changes with their content, so browsers may keep them for ever."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tornado.web import StaticFileHandler

FOLDER = Path(__file__).parent / "static"
_YEAR_SECONDS = 365 * 24 * 3600


def _content_hash() -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in FOLDER.rglob("*") if path.is_file()):
        digest.update(file.relative_to(FOLDER).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


#: Of all files together: one imports another by a relative path, which keeps this part.
VERSION = _content_hash()


class StaticFiles(StaticFileHandler):
    """`/flow/static/<version>/<file>`."""

    def get_cache_time(self, *_: Any) -> int:
        return _YEAR_SECONDS
