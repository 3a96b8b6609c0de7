"""Check that each file in requirements/ names all that it needs, whatever is released later.

`make lock` runs this at its end. pip's hash mode refuses a package that a lock file does not name,
but only if pip chooses it. As long as the newest release is the pinned one, an incomplete file
passes by luck. So each file is resolved without an index, from the wheels that it pins and from
decoys: empty packages with the same names in version 9999. If the file leaves anything open, pip
chooses the decoy, and refuses it because the file has no hash for it.

This is done with the oldest pip that a supported Python brings and with the pinned one; and for
test.txt with every Python on this machine, since the wheel's environments are made from it.
"""

import re
import sys
import tempfile
import zipfile
from pathlib import Path

from wheel_test import VERSIONS, FailedError, Interpreter, find, run

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
OLDEST_PIP = "22.3"
"""The pip that Python 3.11.0 brings."""

PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", re.MULTILINE)


def write_decoy(folder: Path, name: str) -> None:
    """Write an empty wheel, newer than any real one."""
    stem = f"{re.sub(r'[-_.]+', '_', name).lower()}-9999"
    info = f"{stem}.dist-info"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 9999\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", tags)
        wheel.writestr(f"{info}/RECORD", "")


def check(lock: Path, interpreter: Interpreter, pip: str, folder: Path) -> None:
    """Resolve one lock file with one Python and one pip.

    Raises:
        FailedError: The file is incomplete.
    """
    environment = folder / "venv"
    run([interpreter.path, "-m", "venv", "--clear", environment], ROOT)
    python = environment / "bin" / "python"
    run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", f"pip=={pip}"], ROOT)
    wheels = folder / "wheels"
    quiet: list[str | Path] = [
        "-qq",
        "--disable-pip-version-check",
        "--no-input",
        "--require-hashes",
    ]
    download: list[str | Path] = [
        python,
        "-m",
        "pip",
        "download",
        *quiet,
        "--no-deps",
        "--dest",
        wheels,
    ]
    run([*download, "-r", lock], ROOT)
    decoys = folder / "decoys"
    decoys.mkdir()
    for name in PINNED.findall(lock.read_text()):
        write_decoy(decoys, name)
    resolve: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        *quiet,
        "--dry-run",
        "--ignore-installed",
    ]
    offline: list[str | Path] = ["--no-index", "--find-links", wheels, "--find-links", decoys]
    run([*resolve, *offline, "-r", lock], ROOT)


def main() -> int:
    """Check every file; return the exit code."""
    own = ".".join(map(str, sys.version_info[:3]))
    this = Interpreter(own.rpartition(".")[0], own, Path(sys.executable))
    found = [this, *(other for v in VERSIONS if v != this.version and (other := find(v)))]
    (newest,) = re.findall(r"^pip==(\S+)", (REQUIREMENTS / "dev.txt").read_text(), re.MULTILINE)
    passed = True
    for lock in sorted(REQUIREMENTS.glob("*.txt")):
        for interpreter in found if lock.name == "test.txt" else found[:1]:
            oldest = OLDEST_PIP if interpreter is this else newest
            for pip in dict.fromkeys((oldest, newest)):
                what = f"{lock.name}, Python {interpreter.full_version}, pip {pip}"
                with tempfile.TemporaryDirectory(prefix="check-locks-") as name:
                    try:
                        check(lock, interpreter, pip, Path(name))
                    except FailedError as error:
                        print(f"{what}: INCOMPLETE\n{error}")
                        passed = False
                    else:
                        print(f"{what}: complete", flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
