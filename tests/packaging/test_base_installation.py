"""The base installation, without PyTorch and without servers, does all but run models.

It is installed from the wheel, with its dependencies and no extra, into an environment of its own.
The files of the dependencies are those of the environment that the tests run in, and so is the
worker of the run below; nothing is downloaded.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nightshift.demo.paths import coarse_dir, scorer_dir
from nightshift.schema.distribution import EXTRA_OF_PACKAGE
from nightshift.schema.settings import Settings

Base = Callable[..., subprocess.CompletedProcess[str]]

EMBEDDER, SCORER = f"open_clip:{coarse_dir()}", f"hf:{scorer_dir()}"
ITEMS = ("a red circle", "a blue square", "a green cross")


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel and what it requires."""
    folder = tmp_path_factory.mktemp("base")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    program = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", program]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", wheel], check=True)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    [root] = distributions(path=[str(site_packages)])
    for dependency in _dependencies(root):
        _link(dependency, site_packages)
    subprocess.run([*pip, "check"], check=True)
    return program


@pytest.fixture
def variables(settings: Settings, tmp_path: Path) -> dict[str, str]:
    """An environment that names the services of this test by URL, and nothing of the checkout."""
    assert settings.database_url
    assert settings.redis_url
    assert settings.milvus_token
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "NIGHTSHIFT"))}
    return {
        **clean,
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "NIGHTSHIFT_DATA_DIR": str(tmp_path / "data"),
        "NIGHTSHIFT_DATABASE_URL": settings.database_url.get_secret_value(),
        "NIGHTSHIFT_REDIS_URL": settings.redis_url.get_secret_value(),
        "NIGHTSHIFT_MILVUS_URI": str(settings.milvus_uri),
        "NIGHTSHIFT_MILVUS_TOKEN": settings.milvus_token.get_secret_value(),
    }


@pytest.fixture
def base(python: Path, variables: dict[str, str], tmp_path: Path) -> Base:
    """Runs a command of the base installation."""

    def run(*words: str, exit_code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [python.with_name("nightshift"), *words],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == exit_code, done.stderr + done.stdout
        return done

    return run


def test_it_holds_no_package_of_the_extras_for_workers_and_servers(python):
    large = [name for name, extra in EXTRA_OF_PACKAGE.items() if extra in {"worker", "embedded"}]
    code = f"from importlib.util import find_spec; print([n for n in {large} if find_spec(n)])"

    held = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout

    assert held.strip() == "[]"


def test_a_whole_run_needs_more_only_for_its_worker(base, python, variables, tmp_path):
    """Import, planning, dispatcher, results, evaluation, calibration and doctor."""
    items, queries, judgements = (tmp_path / name for name in ("i.jsonl", "q.jsonl", "j.qrels"))
    items.write_text(
        "".join(json.dumps({"id": f"i{n}", "text": text}) + "\n" for n, text in enumerate(ITEMS))
    )
    queries.write_text(json.dumps({"id": "q", "text": "red circle"}) + "\n")
    judgements.write_text("q 0 i0 1\n")
    program = [python.with_name("nightshift")]
    worker = [Path(sys.executable).with_name("nightshift"), "worker", "--device", "cpu"]

    base("catalog", "import", "shop", str(items))
    with (
        _running([*program, "dispatcher"], variables, tmp_path / "dispatcher.log"),
        _running(worker, variables, tmp_path / "worker.log"),
    ):
        base("index", "build", "shop", "--embedder", EMBEDDER, "--wait")
        planned = ["--queries", str(queries), "--scorer", SCORER, "--top-k", "2", "--json"]
        judged = ["--qrels", str(judgements), "--wait"]
        run_id = json.loads(base("rerank", "shop", *planned, *judged).stdout)["run_id"]
        ranked = base("results", str(run_id), "--format", "jsonl").stdout.splitlines()
        measured = json.loads(base("evaluate", str(run_id), "--json").stdout)
        base("calibration", str(run_id))
        checked = base("doctor").stdout

    assert len(ranked) == 2
    assert measured
    assert "✗" not in checked


@pytest.mark.parametrize(
    ("words", "extras"),
    [
        (["worker"], "worker"),
        (["up"], "embedded"),
        (["demo"], "worker,embedded"),
        (["index", "build", "shop", "--embedder", "open_clip:ViT-B-32/laion2b"], "worker"),
    ],
)
def test_a_command_that_needs_more_names_the_extra(base, words, extras, tmp_path):
    items = tmp_path / "i.jsonl"
    items.write_text('{"id": "a", "text": "a red circle"}\n')
    base("catalog", "import", "shop", str(items))

    refused = base(*words, exit_code=8 if words[0] == "index" else 2)

    assert f"pip install '.[{extras}]'" in refused.stderr
    assert "Traceback" not in refused.stderr


@contextmanager
def _running(words: list[str | Path], variables: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(words, env=variables, stdout=output, stderr=output)
        try:
            yield
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(30)


def _dependencies(root: Distribution) -> list[Distribution]:
    """The distributions that pip would install beside one, as they are installed here."""
    installed: dict[str, Distribution] = {}
    visited: set[tuple[str, str]] = set()
    waiting = [(root, "")]
    while waiting:
        parent, extra = waiting.pop()
        for line in parent.requires or ():
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            name = canonicalize_name(requirement.name)
            for wanted in ("", *requirement.extras):
                if (name, wanted) not in visited:
                    visited.add((name, wanted))
                    installed[name] = distribution(name)
                    waiting.append((installed[name], wanted))
    return list(installed.values())


def _link(installed: Distribution, site_packages: Path) -> None:
    for file in installed.files or ():
        if ".." not in file.parts:  # else a program or a manual page
            link = site_packages / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(installed.locate_file(file))
