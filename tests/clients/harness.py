"""What the Python sessions share: one line for each check, packages made by zipfile, and waiting with a deadline."""

import base64
import contextlib
import io
import os
import pathlib
import sys
import time
import traceback
import zipfile

ENDPOINT = os.environ["MAYFLY_ENDPOINT"]  # host:port, no scheme
SECRET_ID = os.environ["MAYFLY_SECRET_ID"]
SECRET_KEY = os.environ["MAYFLY_SECRET_KEY"]
REGION = "ap-guangzhou"
HERE = pathlib.Path(__file__).resolve().parent


class Session:
    """A client's session: counts the checks that passed and failed, and tells the runner through `MAYFLY_TALLY`."""

    def __init__(self, title):
        self.passed = 0
        self.failed = 0
        print(f"\n== {title}", flush=True)

    @contextlib.contextmanager
    def check(self, title):
        """One check: the body raises when it fails; what it appends to the list it gets is printed behind the title."""
        notes = []
        begun = time.monotonic()
        try:
            yield notes
        except Exception as error:  # noqa: BLE001: whatever goes wrong is this check's failure, the session goes on
            self.failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"  FAIL {title}: {type(error).__name__}: {error} ({pathlib.Path(where.filename).name}:{where.lineno})", flush=True)
        else:
            self.passed += 1
            detail = "; ".join(str(note) for note in notes)
            print(f"  ok   {title}{': ' + detail if detail else ''} [{(time.monotonic() - begun) * 1000:.0f} ms]", flush=True)

    def done(self):
        """Writes the tally and ends the program."""
        with open(os.environ["MAYFLY_TALLY"], "a", encoding="utf-8") as tally:
            tally.write(f"{self.passed} {self.failed}\n")
        sys.exit(1 if self.failed else 0)


def expect(condition, what):
    """Like assert, with the value that was wrong, and not switched off by -O."""
    if not condition:
        raise AssertionError(what)


def equal(got, wanted):
    """Fails with both values."""
    if got != wanted:
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")


def until(what, attempt, seconds=20):
    """Calls `attempt` until it gives something true; that is the answer. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = attempt()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def package(files):
    """A zip of {name: text, bytes or path}. Executable: whatever is one on disk, and every `bootstrap`. Base64, as the API takes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            mode = 0o755 if name.endswith("bootstrap") else 0o644
            if isinstance(content, pathlib.Path):
                mode = 0o755 if content.stat().st_mode & 0o111 else mode
                content = content.read_bytes()
            elif isinstance(content, str):
                content = content.encode()
            info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o100000 | mode) << 16
            archive.writestr(info, content)
    return base64.b64encode(buffer.getvalue()).decode()


def folder(path, prefix="", skip=lambda relative: False):
    """All files of a folder as {name: path}, for `package`; `skip` is asked with each relative name."""
    path = pathlib.Path(path)
    found = {}
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path).as_posix()
        if file.is_file() and not skip(relative):
            found[prefix + relative] = file
    return found


def source(name):
    """The files of one of the functions in `functions/`."""
    return folder(HERE / "functions" / name)
