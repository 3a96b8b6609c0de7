"""Check that each file in requirements/ names all that it needs, whatever is released later.

`make lock` runs this at its end. In hash mode pip refuses a release that the file does not pin. But
a pip before 23.3 does not apply the pin of `name` to `name[extra]`: it takes the newest release,
and the file works only until a newer one is out. So pip resolves each file without an index, from
the wheels that the file pins and from decoys: empty packages with the same names, in version 9999.
If the file leaves anything open, pip chooses a decoy, and refuses it because it has no hash.

Each supported Python that is found resolves each file with two releases of pip. With the oldest,
which it brings, `make` fills .venv; with the pinned one, the environments of the wheel.
"""

import os
import re
import sys
import tempfile
import zipfile
from pathlib import Path

from wheel_test import VERSIONS, FailedError, Interpreter, find, install, run

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
OLDEST_PIP = {"3.11": "22.3", "3.12": "23.2.1", "3.13": "24.2", "3.14": "25.2"}
"""The pip that the first release of each supported Python brings."""

PINNED_NAME = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", re.MULTILINE)
QUIET = ("-qq", "--disable-pip-version-check", "--no-input")


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


def make_environment(interpreter: Interpreter, pip: str, folder: Path) -> Path:
    """Return the Python of an environment with one release of pip."""
    run([interpreter.path, "-m", "venv", "--without-pip", folder], ROOT)
    python = folder / "bin" / "python"
    install(python, f"pip=={pip}")
    return python


def download(python: Path, lock: Path, wheels: Path) -> None:
    """Download what a lock file pins for one Python, and nothing else."""
    options = ("--no-deps", "--require-hashes", "--dest", wheels)
    run([python, "-m", "pip", "download", *QUIET, *options, "-r", lock], ROOT)


def resolve(python: Path, lock: Path, *folders: Path) -> str | None:
    """Resolve a lock file from these folders alone; return what pip reports, if it refuses."""
    # The settings of this machine may name more folders.
    alone: list[str | Path] = ["--isolated", "--no-index"]
    for folder in folders:
        alone += ["--find-links", folder]
    options = ("--dry-run", "--ignore-installed", "--require-hashes")
    command = [python, "-m", "pip", "install", *QUIET, *options, *alone, "-r", lock]
    try:
        run(command, ROOT, PIP_CONFIG_FILE=os.devnull)
    except FailedError as error:
        return str(error).partition("\n")[2].strip()
    return None


def check(interpreter: Interpreter, newest_pip: str, folder: Path) -> bool:
    """Check each lock file with one Python; return whether all are complete.

    Raises:
        FailedError: The check cannot be done, for example without a connection.
    """
    pips = dict.fromkeys((OLDEST_PIP[interpreter.version], newest_pip))
    pythons = {pip: make_environment(interpreter, pip, folder / pip) for pip in pips}
    complete = True
    for lock in sorted(REQUIREMENTS.glob("*.txt")):
        wheels, decoys = folder / f"{lock.stem}-wheels", folder / f"{lock.stem}-decoys"
        download(pythons[newest_pip], lock, wheels)
        decoys.mkdir()
        for name in PINNED_NAME.findall(lock.read_text("utf-8")):
            write_decoy(decoys, name)
        for pip, python in pythons.items():
            what = f"requirements/{lock.name}, Python {interpreter.full_version}, pip {pip}"
            if refusal := resolve(python, lock, wheels, decoys):
                print(f"{what}: INCOMPLETE. pip reports:\n{refusal}", flush=True)
                complete = False
            else:
                print(f"{what}: complete", flush=True)
    return complete


def main() -> int:
    """Check every file with every Python; return the exit code."""
    (newest_pip,) = re.findall(
        r"^pip==(\S+)", (REQUIREMENTS / "dev.txt").read_text("utf-8"), re.MULTILINE
    )
    complete = True
    for version in VERSIONS:
        interpreter = find(version)
        if interpreter is None:
            print(f"Python {version}: not on this machine, so not checked")
            continue
        with tempfile.TemporaryDirectory(prefix="check-locks-") as name:
            try:
                complete = check(interpreter, newest_pip, Path(name)) and complete
            except FailedError as error:
                print(f"Python {interpreter.full_version}: the check failed\n{error}")
                return 1
    if not complete:
        print(
            "A file is incomplete: pip will refuse it as soon as a newer release is out. Run make "
            "lock again, and see whether uv keeps the extra or the name that pip reports."
        )
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
