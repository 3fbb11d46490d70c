"""The limits that CONTRIBUTING.md states: lengths, and names that are used once.

What is over a limit is listed here. An entry leaves when it is no longer needed; none may be added.
"""

import re

from tests.architecture import ROOT, class_paths, functions, modules, rooms

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
(LIMITS,) = re.findall(r"Modules up to (\d+) lines, functions up to (\d+)", CONTRIBUTING)
MAX_MODULE_LINES, MAX_FUNCTION_LINES = map(int, LIMITS)

LONG_MODULES: set[str] = set()
LONG_FUNCTIONS: set[tuple[str, str]] = set()
REPEATED_CLASSES: set[str] = set()
NAMES_THE_COMMANDS: set[str] = set()


def test_no_module_is_longer_than_contributing_allows():
    long_modules = {
        str(path.relative_to(ROOT))
        for path in modules()
        if len(path.read_text("utf-8").splitlines()) > MAX_MODULE_LINES
    }

    assert long_modules == LONG_MODULES


def test_no_function_is_longer_than_contributing_allows():
    long_functions = {
        (function.path, function.name)
        for function in functions()
        if function.lines > MAX_FUNCTION_LINES
    }

    assert long_functions == LONG_FUNCTIONS


def test_no_class_name_is_used_twice():
    duplicates = {name for name, paths in class_paths().items() if len(paths) > 1}

    assert duplicates == REPEATED_CLASSES


def test_no_room_below_the_commands_names_them():
    """Not even in a string: a process that starts the program gets its command as an argument."""
    named = {
        str(path.relative_to(ROOT))
        for room in rooms()
        if room != "cli"
        for path in (ROOT / room).rglob("*.py")
        if "nightshift.cli" in path.read_text("utf-8")
    }

    assert named == NAMES_THE_COMMANDS
