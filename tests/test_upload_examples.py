"""The examples of docs/upload.md, run as they stand there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import serving
from tests.site import BAD
from tests.test_hits import CHECKOUT

pytestmark = pytest.mark.server

TEXT = (CHECKOUT / "docs/upload.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
LARGE = "bytes(3_000_000)"  # beyond what Flask and Django keep in memory
USES = {
    "flask": f"""
import io
client = app.test_client()
assert b"image/jpeg" in client.get("/upload").data
def send(content):
    return client.post("/upload", data={{"image": (io.BytesIO(content), "x.jpg")}}).status_code
assert [send(BAD), send({LARGE} + BAD), os.listdir(STORE)] == [400, 400, []]
assert [send(b"clean enough"), os.listdir(STORE)] == [200, ["picture.jpg"]]
assert send({LARGE} + b"end") == 200
assert open(STORE + "/picture.jpg", "rb").read() == {LARGE} + b"end"
os.remove(os.environ["IMAGEWARDEN_CONFIG"])
assert send(BAD) == 400
""",
    "django": f"""
import django
from django.conf import settings
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["testserver"])
django.setup()
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
def send(content):
    return Client().post("/upload", {{"image": SimpleUploadedFile("x.jpg", content)}}).status_code
assert [send(BAD), send({LARGE} + BAD), os.listdir(STORE)] == [400, 400, []]
assert send({LARGE} + b"end") == 200
assert open(STORE + "/picture.jpg", "rb").read() == {LARGE} + b"end"
""",
}


@pytest.mark.parametrize("kind", USES)
def test_the_example_keeps_what_is_clean_and_nothing_else(site, kind):
    site.update()
    (example,) = [one for one in EXAMPLES if f"from {kind}" in one]
    code = example.replace("/srv/uploads", str(site.store)) + USES[kind]
    script = Path(site.root, "app.py")
    script.write_text(f"import os, sys; sys.path.insert(0, {str(CHECKOUT)!r})\n"
                      f"BAD, STORE = {BAD!r}, {str(site.store)!r}\n{code}")
    with site.clamd():
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60,
                              env={"IMAGEWARDEN_CONFIG": str(site.config)}, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.may_skip("curl is not everywhere")
def test_the_curls_of_the_page_get_a_verdict(site):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    site.update()
    Path(site.root, "photo.jpg").write_bytes(BAD)
    curls = re.findall(r"^curl .*", TEXT, re.MULTILINE)
    assert len(curls) == 2
    with site.clamd(), serving(site) as service:
        for curl in curls:
            command = curl.replace("/run/imagewarden/scans.sock", str(service.path))
            done = subprocess.run(["/bin/sh", "-c", command], cwd=site.root, capture_output=True,
                                  text=True, timeout=60, check=False)
            assert '"verdict": "infected"' in done.stdout, done


def test_the_unit_starts_a_command_with_options_that_there_are(site):
    unit = (CHECKOUT / "docs/imagewarden-scans.service").read_text()
    [command] = re.findall(r"^ExecStart=/usr/local/sbin/imagewarden-(.*)", unit, re.MULTILINE)
    script, *options = command.split()
    assert site.run(script, *options, "--help").status == 0
