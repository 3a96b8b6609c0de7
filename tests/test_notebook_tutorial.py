"""docs/tutorial.ipynb runs from start to end, and is committed without outputs."""

import os
import re
from pathlib import Path
from typing import Any

import anyio
import nbformat
import pytest
import zxingcpp
from nbclient import NotebookClient

from .test_documents import SHELL, blocks_of, offered, shell_problems
from .test_notebook import pixels_of

TUTORIAL = Path(__file__).resolve().parent.parent / "docs" / "tutorial.ipynb"


def read() -> Any:
    return nbformat.read(TUTORIAL, as_version=4)  # type: ignore[no-untyped-call]


def test_tutorial_is_committed_without_outputs_and_facts_about_the_machine() -> None:
    """Before a commit, clear all outputs and remove what the editor added to `metadata`."""
    tutorial = read()

    assert tutorial.metadata == {
        "kernelspec": {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    for cell in tutorial.cells:
        assert cell.metadata == {}
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
        assert re.fullmatch("[a-z-]+", cell.id)  # a word, which makes diffs readable


def test_tutorial_installs_extras_that_exist() -> None:
    text = "\n".join(cell.source for cell in read().cells if cell.cell_type == "markdown")
    blocks = [block for block in blocks_of(TUTORIAL.name, text) if block.language in SHELL]

    assert [problem for block in blocks for problem in shell_problems(block, offered())] == []
    assert any("pip install" in block.code for block in blocks)


def test_tutorial_links_to_pages_that_exist() -> None:
    text = "\n".join(cell.source for cell in read().cells if cell.cell_type == "markdown")
    pages = [link for link in re.findall(r"\]\(([^)]*)\)", text) if "://" not in link]

    assert pages
    assert [page for page in pages if not (TUTORIAL.parent / page).is_file()] == []


def shown(cell: Any, kind: str, mime: str) -> str:
    """Return what the outputs of that kind show, in one media type."""
    return "\n".join(output.data[mime] for output in cell.outputs if output.output_type == kind)


def text_of(cell: Any, kind: str = "execute_result") -> str:
    return shown(cell, kind, "text/plain")


def html_of(cell: Any, kind: str = "execute_result") -> str:
    return shown(cell, kind, "text/html")


@pytest.mark.asyncio
async def test_tutorial_runs_from_start_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No settings of the user, and no other kernel with the name python3.
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    tutorial = read()
    pids: list[int] = []

    def note_process(**_: object) -> None:
        pids.append(runner.km.provisioner.pid)

    runner: Any = NotebookClient(
        tutorial,
        kernel_name="python3",
        timeout=20,
        startup_timeout=30,
        on_notebook_start=note_process,
        # Jupyter warns that its sockets on this machine are not encrypted.
        extra_arguments=["--log-level=ERROR"],
    )
    with anyio.fail_after(50):
        await runner.async_execute()

    cells = {cell.id: cell for cell in tutorial.cells}
    assert text_of(cells["code"]) == "'012345'"
    assert text_of(cells["refunded"]) == "(None, True)"
    for name, kind in (("create-order", "execute_result"), ("open-order", "display_data")):
        (svg,) = re.findall("<svg.*</svg>", html_of(cells[name], kind))
        (found,) = zxingcpp.read_barcodes(pixels_of(svg))
        assert found.text.startswith("LIGHTNING:LNBCRT15U1")
    assert "tutorial" in html_of(cells["create-order"])
    assert "012345" in html_of(cells["code-or-refund"])
    assert "sms4sats-progress" in html_of(cells["code-or-refund"], "display_data")
    for name in ("order-without-code", "open-order"):
        result = html_of(cells[name])
        assert "cancelled" in result
        assert "refunded" in result
        assert "<svg" not in result
    assert "attempts=3" in text_of(cells["order-without-code"])
    for name in ("cancel-unknown", "order-unknown"):
        (text,) = [each.text for each in cells[name].outputs if each.output_type == "stream"]
        assert text.startswith("outcome: unknown\n")
    assert "REFUNDED" in text_of(cells["status-shows"])
    (text,) = [each.text for each in cells["where-the-money-is"].outputs]
    assert text.rstrip().endswith("refunded")
    assert not re.search("[0-9a-f]{64}", nbformat.writes(tutorial))  # type: ignore[no-untyped-call]

    (pid,) = pids
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
