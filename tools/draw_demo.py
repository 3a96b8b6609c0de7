"""Draw what `sms4sats demo` prints in a terminal: docs/demo.svg, for the README.

`make docs` runs it. IDs, times and delays differ in each run, so the picture is written again only
if its words changed.
"""

import io
import re
from pathlib import Path
from typing import Final

import anyio
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI

from sms4sats_async.cli.demo import Demo
from sms4sats_async.simulator import ScaledClock

PICTURE: Final = Path(__file__).resolve().parent.parent / "docs" / "demo.svg"

WIDTH: Final = 92
SPEED: Final = 60.0
"""Faster than the command itself, to save time; the picture shows simulated times."""

# rich's own format fetches a font, and names its origin.
FORMAT: Final = re.sub(
    r"<!--.*?-->|@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL
)


def picture() -> str:
    """Run the demo, and return what it prints as SVG."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print("$ sms4sats demo", style="bold", highlight=False)
    anyio.run(Demo(console, ScaledClock(SPEED)).run)
    svg = console.export_svg(
        title="sms4sats demo", theme=MONOKAI, code_format=FORMAT, unique_id="demo"
    )
    return "\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n"


def words(svg: str) -> list[str]:
    """Return the words of the picture that are the same in each run."""
    texts = " ".join(re.findall(r"<text[^>]*>([^<]*)<", svg)).replace("&#160;", " ")
    return re.findall(r"(?<![\w:/.…])[a-zA-Z_]+(?![\w…])", texts)


if __name__ == "__main__":
    drawn = picture()
    if not PICTURE.is_file() or words(PICTURE.read_text("utf-8")) != words(drawn):
        PICTURE.write_text(drawn, "utf-8")
        print(f"==> wrote {PICTURE.name}")
