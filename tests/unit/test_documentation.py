"""What the documentation says of the code is what the code says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from nightshift.protocol.domains import Domain
from nightshift.protocol.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "data").rglob("*.md")])


def test_the_table_of_domain_strings_is_complete() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    table = dict(re.findall(r"^\| ([A-Z_]+) \| `(nightshift/v1/[a-z-]+)` \|", text, re.MULTILINE))
    assert table == {domain.name: domain.value for domain in Domain}


def test_the_table_of_exit_codes_is_complete() -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    table = {name: int(code) for code, name in re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", text, re.MULTILINE)}
    assert table == {code.name: code.value for code in ExitCode}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_nothing_of_the_workplace_is_committed() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    # Spelt in parts, so that this file does not find itself.
    traces = [f"/{'work'}/main", f"/{'root'}/", f"pypi{'.'}org", f"{'opt'}/pypi", f"/{'home'}/"]
    found = []
    for name in tracked.stdout.split("\0"):
        path = ROOT / name
        if not name or not path.is_file() or path.suffix in {".gguf", ".png", ".jsonl"}:
            continue
        text = path.read_text("utf-8", errors="replace")
        found += [f"{name}: {trace}" for trace in traces if trace in text]
    assert found == []


def test_data_has_its_licence_beside_it() -> None:
    bare = [
        folder.name
        for folder in (ROOT / "data").iterdir()
        if folder.is_dir() and not ((folder / "README.md").exists() and list(folder.glob("LICENSE*")))
    ]
    assert bare == []
