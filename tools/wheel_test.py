"""Test the built wheel, without the source, on every other Python that is found.

The main test run imports the package from the source folder. It cannot see that a file is missing
from the wheel, or that another Python behaves differently. This run can: it builds the sdist, and
the wheel from that sdist alone, and installs it into one environment for each Python of `VERSIONS`
other than its own. The tests are copied to a folder without the source.

Each Python runs a chosen part of the tests (`CHOSEN`). The workflow runs the whole suite on each.

Run it with the Python of .venv, as `make test` does. Its arguments are passed to pytest. The
environments stay in .venv-wheel, and are created again only if their Python or
requirements/test.txt has changed.
"""

import contextlib
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
PACKAGE = "sms4sats_async"
# What pytest loads of it; its docstring says why it is a file of its own.
PLUGIN = "pytest_sms4sats.py"
SCRIPT = "sms4sats"

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".venv-wheel"
LOCK = ROOT / "requirements" / "test.txt"
CHOSEN = (
    # Every public name is importable, its hints resolve, and pytest finds the plugin.
    "test_public_api.py",
    "test_typing.py",
    "test_testing.py",
    # Every driver of an order, the scheduler among them. (test_scheduler.py alone takes 20 s.)
    "test_same_end.py",
    # What depends on the Python: its event loop and cancellation, sqlite3, ssl, email, typing.
    "test_cancellation.py",
    "test_code_or_refund.py",
    "test_cancel_orders.py",
    "test_journal.py",
    "test_journal_sqlite.py",
    "test_journal_migration.py",
    "test_journal_fork.py",
    "test_transport_own.py",
    "test_transport_injected.py",
    "test_decode_endpoints.py",
    # The wallets over HTTP: their connections, time-outs and cancellation.
    "test_wallets.py",
    # The command starts with its extras.
    "test_cli_ends.py",
)
"""The tests of the wheel: what another Python or a missing file can break.

They take less than 60 s of CPU on each Python. Each run prints what it took.
"""

# What the tests read: their settings are in pyproject.toml, and the documents are tested too, with
# what one of the tools writes into them, and the workflows.
COPIED = (
    "tests",
    "pyproject.toml",
    "Makefile",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs",
    "examples",
    "requirements",
    "tools",
    ".github",
)

# Asked of a Python: its version, short and in full (`venv`: Debian has Pythons without it)...
WHICH = "import sys, venv; v = sys.version_info; print('%d.%d %d.%d.%d' % (*v[:2], *v[:3]))"
# ... and of an environment: where packages are installed, and where ours comes from.
WHERE = (
    f"import sysconfig, {PACKAGE} as package;"
    "print(sysconfig.get_path('purelib'), package.__file__, sep='\\n')"
)


class FailedError(Exception):
    """A step failed; the message is all there is to show."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that answered."""

    version: str
    full_version: str
    path: Path


@dataclass(frozen=True)
class Result:
    """How a test run on one Python ended."""

    passed: bool
    report: str


def cpu_of_children() -> float:
    """Return the seconds of CPU of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: Sequence[str | Path], cwd: Path, **variables: str) -> str:
    """Run a command to its end, with more environment variables; return what it printed.

    Raises:
        FailedError: The command failed, or is not there.
    """
    # A path to the source, however it came here, would defeat the purpose.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment.update(variables)
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except OSError as error:
        raise FailedError(str(error)) from error
    if done.returncode != 0:
        raise FailedError(f"$ {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """Build the sdist, then the wheel from that sdist alone; check what the wheel holds."""
    hatchling = [sys.executable, "-m", "hatchling"]
    run([*hatchling, "build", "--target", "sdist", "--directory", folder], ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    # No isolation: the pinned hatchling of this environment builds, and nothing is fetched.
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "-qq", "--disable-pip-version-check"]
    run([*pip_wheel, "--no-deps", "--no-build-isolation", "--wheel-dir", folder, sdist], ROOT)
    (wheel,) = folder.glob("*.whl")

    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    strays = [
        name
        for name in names
        if name.partition("/")[0] not in {PACKAGE, PLUGIN}
        and not name.partition("/")[0].endswith(".dist-info")
    ]
    if strays:
        raise FailedError(f"The wheel holds more than the package and its plugin: {strays}")
    for needed in (f"{PACKAGE}/py.typed", PLUGIN, "/licenses/LICENSE"):
        if not any(name.endswith(needed) for name in names):
            raise FailedError(f"The wheel does not hold {needed}: {names}")
    return wheel


def pyenv_roots() -> Iterator[Path]:
    """Where pyenv may keep its Pythons, asked in the way pyenv itself would answer."""
    if "PYENV_ROOT" in os.environ:
        yield Path(os.environ["PYENV_ROOT"])
    if pyenv := shutil.which("pyenv"):
        with contextlib.suppress(FailedError):
            yield Path(run([pyenv, "root"], ROOT).strip())
    yield Path.home() / ".pyenv"


def candidates(version: str) -> Iterator[Path]:
    """Paths that may be a Python of this version, likeliest first."""
    name = f"python{version}"
    for folder in os.get_exec_path():
        if found := shutil.which(name, path=folder):
            yield Path(found)
    for root in pyenv_roots():
        yield from sorted(root.glob(f"versions/{version}.*/bin/{name}"), reverse=True)


def find(version: str) -> Interpreter | None:
    """The first Python of this version that really runs.

    Being on PATH is not enough: a pyenv shim is there for every version and refuses to start all
    but the chosen ones.
    """
    for path in candidates(version):
        try:
            answer = run([path, "-c", WHICH], ROOT).split()
        except FailedError:
            continue
        if answer[:1] == [version]:
            return Interpreter(version, answer[1], path)
    return None


def make_environment(interpreter: Interpreter) -> Path:
    """Return the Python of an environment that holds the pinned test requirements."""
    folder = ENVIRONMENTS / interpreter.version
    python = folder / "bin" / "python"
    stamp = folder / "made-from"
    made_from = f"{interpreter.full_version} {hashlib.sha256(LOCK.read_bytes()).hexdigest()}\n"
    if stamp.is_file() and stamp.read_text() == made_from:
        return python
    # No pip inside: the pinned one of .venv fills every environment alike.
    run([interpreter.path, "-m", "venv", "--clear", "--without-pip", folder], ROOT)
    install(python, "--require-hashes", "-r", str(LOCK))
    stamp.write_text(made_from)
    return python


def install(python: Path, *what: str) -> None:
    """Install into the environment of another Python."""
    quiet = ("-qq", "--no-input", "--disable-pip-version-check")
    run([sys.executable, "-m", "pip", "--python", str(python), "install", *quiet, *what], ROOT)


def run_tests(python: Path, wheel: Path, arguments: Sequence[str]) -> str:
    """Install the wheel and run the tests on it; return pytest's last line."""
    install(python, "--no-deps", "--force-reinstall", str(wheel))
    with tempfile.TemporaryDirectory(prefix="wheel-test-") as name:
        folder = Path(name)
        for item in COPIED:
            source = ROOT / item
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "_build")
                shutil.copytree(source, folder / item, ignore=ignored)
            elif source.is_file():
                shutil.copy(source, folder / item)

        answer = run([python, "-c", WHERE], folder).splitlines()
        site_packages, imported = map(Path, answer)
        if not imported.is_relative_to(site_packages):
            raise FailedError(f"The tests would not run on the wheel but on {imported}")
        run([python.with_name(SCRIPT), "--version"], folder)

        # Of what brings a plugin pytest rewrites every assert, and then it is not the wheel that is
        # tested, and runpy cannot run it.
        options = ["-q", "-p", "no:cacheprovider", "--assert=plain"]
        chosen = [Path("tests") / name for name in CHOSEN]
        report = run([python, "-m", "pytest", *options, *arguments, *chosen], folder)
        return report.splitlines()[-1]


def test_on(interpreter: Interpreter, wheel: Path, arguments: Sequence[str]) -> Result:
    """Test the wheel on one Python."""
    name = f"Python {interpreter.full_version}"
    print(f"{name}: making its environment, if there is none yet ...", flush=True)
    begin = time.monotonic()
    try:
        python = make_environment(interpreter)
        print(f"{name}: testing ({time.monotonic() - begin:.0f} s of set-up) ...", flush=True)
        spent = cpu_of_children()
        summary = run_tests(python, wheel, arguments)
    except FailedError as error:
        return Result(passed=False, report=f"{name}: FAILED\n{error}")
    cpu = cpu_of_children() - spent
    return Result(passed=True, report=f"{name}: {summary}, {cpu:.0f} s of CPU")


def main() -> int:
    """Find, build, test, report; return the exit code."""
    missing = [name for name in CHOSEN if not (ROOT / "tests" / name).is_file()]
    if missing:
        print(f"CHOSEN names tests that do not exist: {', '.join(missing)}. Correct the list.")
        return 1
    own_version = f"{sys.version_info.major}.{sys.version_info.minor}"
    interpreters: list[Interpreter] = []
    for version in VERSIONS:
        if version == own_version:
            continue
        if interpreter := find(version):
            interpreters.append(interpreter)
        else:
            print(f"Python {version}: not on this machine, so not tested")
    if not interpreters:
        # Better this Python than an untested wheel.
        own_full_version = ".".join(map(str, sys.version_info[:3]))
        interpreters.append(Interpreter(own_version, own_full_version, Path(sys.executable)))

    with tempfile.TemporaryDirectory(prefix="wheel-build-") as folder:
        print("building the wheel ...", flush=True)
        try:
            wheel = build_wheel(Path(folder))
        except FailedError as error:
            print(error)
            return 1
        passed = True
        for interpreter in interpreters:
            result = test_on(interpreter, wheel, sys.argv[1:])
            print(result.report, flush=True)
            passed = passed and result.passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
