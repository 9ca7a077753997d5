"""A real browser, headless Chromium, on pages of a framework and of a plain server."""

import json
import os
import subprocess

from harness import Session, equal, expect
from services import HERE, attempt, delete_all, host_url, path_url

session = Session("a browser: headless Chromium")
urls = {}
with attempt(session, "browser", "Nodejs18.15", "MAYFLY_WEB_BROWSER") as ready:
    if ready:
        urls["browser"] = [path_url("browser"), host_url("browser")]
with attempt(session, "next", "Nodejs18.15", "MAYFLY_WEB_NEXT") as ready:
    if ready:
        # Its pages use absolute paths, so it needs a host of its own.
        urls["next"] = [host_url("next")]

environment = {**os.environ, "NODE_PATH": f"{os.environ.get('MAYFLY_WEB_NODE_CLIENTS', '')}/node_modules"}
with session.check("the browser starts and goes through all its pages"):
    done = subprocess.run(["node", str(HERE / "browser.js"), json.dumps(urls)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    for one in told:
        with session.check(one["title"]) as notes:
            expect(one["failure"] is None, one["failure"])
            notes.append(f"{one['ms']} ms")
            notes += one["notes"]
    equal((done.returncode, done.stderr.strip()[-600:]), (0, ""))
    # It tells how many there were to be, so that none is missed.
    equal(told[-1]["title"] if told else None, "the browser ends")

with session.check("all of them are deleted") as notes:
    notes.append(f"{delete_all()} functions")
session.done()
