"""docs/tutorial.ipynb runs from start to end, and is committed as it is before it runs."""

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


def test_the_tutorial_is_committed_without_outputs_and_without_a_machine() -> None:
    """Clear all outputs before committing; what the machine adds to `metadata` is not kept."""
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
        assert re.fullmatch("[a-z-]+", cell.id)  # a name, so that a diff says where it is


def test_what_the_tutorial_installs_exists() -> None:
    text = "\n".join(cell.source for cell in read().cells if cell.cell_type == "markdown")
    blocks = [block for block in blocks_of(TUTORIAL.name, text) if block.language in SHELL]

    assert [problem for block in blocks for problem in shell_problems(block, offered())] == []
    assert any("pip install" in block.code for block in blocks)


def test_where_the_tutorial_leads_to_exists() -> None:
    text = "\n".join(cell.source for cell in read().cells if cell.cell_type == "markdown")
    pages = [link for link in re.findall(r"\]\(([^)]*)\)", text) if "://" not in link]

    assert pages
    assert [page for page in pages if not (TUTORIAL.parent / page).is_file()] == []


def data_of(cell: Any, kind: str) -> dict[str, str]:
    """What the outputs of that kind show, by their type."""
    return {
        mime: text
        for output in cell.outputs
        if output.output_type == kind
        for mime, text in output.data.items()
    }


@pytest.mark.asyncio
async def test_the_tutorial_runs_from_start_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing of whoever runs this: no settings, and no other kernel that is called python3.
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
        # That its sockets on this machine are not encrypted needs no saying.
        extra_arguments=["--log-level=ERROR"],
    )
    with anyio.fail_after(50):
        await runner.async_execute()

    cells = {cell.id: cell for cell in tutorial.cells}
    assert data_of(cells["code"], "execute_result")["text/plain"] == "'012345'"
    (svg,) = re.findall(
        "<svg.*</svg>", data_of(cells["create-order"], "execute_result")["text/html"]
    )
    (found,) = zxingcpp.read_barcodes(pixels_of(svg))
    assert found.text.startswith("LIGHTNING:LNBCRT15U1")
    live = data_of(cells["wait-for-code"], "display_data")
    assert live["text/plain"].endswith("code received, money settled")
    assert "sms4sats-progress" in live["text/html"]
    live = data_of(cells["order-without-code"], "display_data")
    assert "cancel_order attempt 2 of 4 failed" in live["text/plain"]
    assert live["text/plain"].endswith("cancelled, money returned")
    assert "attempts=3" in data_of(cells["order-without-code"], "execute_result")["text/plain"]
    for name in ("cancel-unknown", "order-unknown"):
        (told,) = [each.text for each in cells[name].outputs if each.output_type == "stream"]
        assert told.startswith("what became of it: unknown\n")
    assert "REFUNDED" in data_of(cells["status-tells"], "execute_result")["text/plain"]
    assert not re.search("[0-9a-f]{64}", nbformat.writes(tutorial))  # type: ignore[no-untyped-call]

    (pid,) = pids
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
