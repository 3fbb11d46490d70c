"""The pages say what is: commands, settings, states, links and the generated reference."""

import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest

from nightshift.schema.settings import Settings
from nightshift.schema.states import JobState, RunState, Stage
from tests.command_lines import require_understood

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def command_lines(page):
    """`nightshift …` lines of shell blocks: here, in the environment, or in a container."""
    for language, block in BLOCK.findall(page.read_text()):
        if language in {"sh", "console"}:
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words[:3] == ["docker", "compose", "run"] and "nightshift" in words:
                    words = words[words.index("nightshift") :]
                if words and Path(words[0]).name == "nightshift":
                    ends = [i for i, word in enumerate(words) if word in {"|", "&&", "&", ">"}]
                    yield ["nightshift", *words[1 : min(ends, default=None)]]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=f"{page.relative_to(ROOT)}: {shlex.join(words)}")
        for page in PAGES
        for words in command_lines(page)
    ],
)
def test_every_command_in_the_docs_is_one_that_the_program_understands(words):
    require_understood(words)


def test_the_command_reference_is_what_the_program_says():
    script = runpy.run_path(str(ROOT / "docs" / "cli_reference.py"))

    assert script["TARGET"].read_text() == script["reference"](), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    broken = [
        link
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
        if "://" not in link and not link_target_exists(page, link)
    ]

    assert broken == []


def link_target_exists(page, link):
    path, _, anchor = link.partition("#")
    target = (page.parent / path) if path else page
    if not target.exists():
        return False
    return not anchor or anchor in anchors(target)


def anchors(page):
    """As code hosts make them from headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_that_a_page_names_exist(page):
    known = {f"NIGHTSHIFT_{name.upper()}" for name in Settings.model_fields}

    assert set(re.findall(r"NIGHTSHIFT_[A-Z_]*[A-Z]", page.read_text())) <= known


def test_every_setting_is_explained():
    page = (ROOT / "docs" / "operate.md").read_text()

    assert [
        name for name in Settings.model_fields if f"`NIGHTSHIFT_{name.upper()}`" not in page
    ] == []


def test_the_architecture_page_names_every_state_and_stage():
    page = (ROOT / "docs" / "architecture.md").read_text()
    diagram = page[page.index("stateDiagram-v2") :]

    assert [state for state in JobState if not re.search(rf"\b{state}\b", diagram)] == []
    assert [state for state in RunState if f"`{state}`" not in page] == []
    assert [stage for stage in Stage if f"| {stage} |" not in page] == []


def test_every_test_that_the_security_page_names_exists():
    promised = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text()))
    written = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }

    assert promised
    assert promised - written == set()


def test_decision_records_are_numbered_and_short():
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))

    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text()
        assert len(text.splitlines()) < 40, record
        assert re.findall(r"^## (\w+)", text, re.MULTILINE) == [
            "Context",
            "Decision",
            "Consequences",
        ]


def test_nothing_that_is_published_names_a_registry_host():
    """Whoever installs chooses the index; a lock file or a pin of ours must not."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    if len(tracked) < 2:
        pytest.skip("needs the git checkout")
    hosts = re.compile("files\\.pythonhosted|pypi\\.org/simple|--(extra-)?index-" + "url")
    named = []
    for name in filter(None, tracked):
        path = ROOT / name
        if path.is_file() and path.stat().st_size < 1e6:
            text = path.read_text(errors="replace")
            if path != Path(__file__) and hosts.search(text):
                named.append(name)

    assert named == []
