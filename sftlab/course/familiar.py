"""Lessons whose runs are all in the cache: it is noted when one has passed.

A note is an empty file, named by the hash of what the lesson consists of. It promises no result: a
lesson that was noted and needs a run after all makes it, only slower.

    <cache>/lessons/<hash>
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from sftlab.course.lessons import Lesson
from sftlab.sweeps import lessons_folder, stamp


def is_familiar(lesson: Lesson, parameters: Mapping[str, Any]) -> bool:
    """Whether the lesson passed as it is, with these parameters, since the cache was cleared."""
    return _file(lesson, parameters).is_file()


def remember(lesson: Lesson, parameters: Mapping[str, Any]) -> None:
    """Note that the lesson has passed."""
    file = _file(lesson, parameters)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def _file(lesson: Lesson, parameters: Mapping[str, Any]) -> Path:
    made_of = [stamp(()), json.dumps(dict(parameters), sort_keys=True, default=str)]
    whole = lesson.path.read_bytes() + "\n".join(made_of).encode()
    return lessons_folder() / sha256(whole).hexdigest()[:32]
