"""Downloads from a server of our own that breaks off, lies and serves other things."""

from __future__ import annotations

import hashlib
import http.server
import threading
from functools import partial

import pytest

from data_files import refused
from softnll.data import DownloadError, cifar10, load
from softnll.data import download as module
from softnll.data.download import fetch

BODY = bytes(range(256)) * 4096  # 1 MiB: four chunks
SHA = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves BODY with ranges; what the server's ``ways`` holds changes how."""

    def do_GET(self):
        ways = self.server.ways
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.server.asked.append(start)
        body = ways.get("body", BODY)
        if "redirect" in ways:
            self.send_response(302)
            self.send_header("Location", ways["redirect"])
            self.end_headers()
            return
        if "status" in ways or start >= len(body):
            self.send_error(ways.get("status", 416))
            return
        ranged = start > 0 and not ways.get("ignore_range")
        rest = body[start:] if ranged else body
        self.send_response(206 if ranged else 200)
        if ranged:
            self.send_header("Content-Range", ways.get("range", f"bytes {start}-{len(body) - 1}/{len(body)}"))
        if not ways.get("no_length"):
            self.send_header("Content-Length", ways.get("length", str(len(rest))))
        self.end_headers()
        cut = ways["cuts"].pop(0) if ways.get("cuts") else len(rest)
        self.wfile.write(rest[:cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.ways, found.asked = {}, []
        found.handle_error = lambda *_: None  # clients that hang up are what is tested
        found.url = f"http://127.0.0.1:{found.server_port}/file.bin"
        thread = threading.Thread(target=partial(found.serve_forever, poll_interval=0.01))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def get(server, tmp_path):
    def inner(**options):
        return fetch(server.url, tmp_path / "new" / "file.bin", **({"size": len(BODY), "sha256": SHA} | options))

    return inner


def held(tmp_path):
    return {file.name: file.stat().st_size for file in (tmp_path / "new").iterdir()}


def test_a_file_comes_whole_with_progress(get, server, tmp_path):
    seen = []
    path = get(progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == BODY
    assert held(tmp_path) == {"file.bin": len(BODY)}
    assert seen[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(seen) >= 4
    assert get() == path  # it is there now
    assert server.asked == [0]


def test_an_interrupted_transfer_goes_on_by_itself(get, server, tmp_path):
    server.ways["cuts"] = [300_000, 500_000]
    assert get().read_bytes() == BODY
    assert server.asked == [0, 300_000, 800_000]
    assert held(tmp_path) == {"file.bin": len(BODY)}


def test_a_transfer_given_up_goes_on_at_the_next_call(get, server, tmp_path):
    server.ways["cuts"] = [1000, 1000, 1000]
    refused(get, "3000 of 1048576 bytes", "3000 bytes that came are kept", error=DownloadError)
    assert held(tmp_path) == {"file.bin.part": 3000}
    server.ways.clear()
    assert get().read_bytes() == BODY
    assert server.asked == [0, 1000, 2000, 3000]


def test_an_exception_of_the_caller_keeps_what_came(get, tmp_path):
    def stop(done, _):
        if done > 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(progress=stop)
    assert list(held(tmp_path)) == ["file.bin.part"]
    assert get().read_bytes() == BODY


def test_a_server_that_ignores_ranges_starts_over(get, server, tmp_path):
    server.ways |= {"cuts": [300_000], "ignore_range": True}
    assert get().read_bytes() == BODY
    assert server.asked == [0, 300_000]
    assert held(tmp_path) == {"file.bin": len(BODY)}


@pytest.mark.parametrize("left", [len(BODY), len(BODY) - 1, len(BODY) + 5])
def test_a_part_that_is_whole_wrong_or_too_long(left, get, server, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file.bin.part").write_bytes((BODY + b"12345")[:left])
    assert get().read_bytes() == BODY
    assert server.asked == {len(BODY): [], len(BODY) - 1: [len(BODY) - 1], len(BODY) + 5: [0]}[left]


def test_a_range_that_the_server_does_not_have_starts_over(get, server, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file.bin.part").write_bytes(b"x" * 5000)
    server.ways["body"] = b"short"
    refused(get, "5 bytes, expected 1048576", error=DownloadError)
    assert server.asked == [5000, 0]
    assert held(tmp_path) == {}


@pytest.mark.parametrize(
    ("ways", "part"),
    [
        ({"body": BODY[:-1] + b"x"}, "sha-256"),
        ({"body": BODY + b"x"}, "offers 1048577 bytes, expected 1048576"),
        ({"body": BODY[:-1]}, "offers 1048575 bytes"),
        ({"body": BODY * 2, "no_length": True}, "sends more than 1048576 bytes"),
        ({"length": str(2**62)}, "offers 461168601842738790"),
        ({"length": "many"}, "offers many bytes"),
        ({"body": b"<html>\x1b[2J no such file</html>"}, "offers"),
        ({"status": 404}, "404"),
        ({"status": 503}, "503"),
        ({"redirect": "file:///etc/passwd"}, "is not allowed"),
        ({"redirect": "http://example.invalid/x"}, "not an https address"),
        ({"redirect": "ftp://example.invalid/x"}, "not an https address"),
        ({"redirect": "http://[::1"}, "redirects to no address"),
        ({"redirect": "https://[x]/"}, "redirects to no address"),
        ({"redirect": "https://localhost:x/"}, "cannot be downloaded"),
    ],
)
def test_other_answers_leave_nothing_and_say_what_to_do(ways, part, get, server, tmp_path):
    server.ways |= ways
    message = refused(get, part, error=DownloadError)
    assert f"by hand: put {server.url} into the folder {tmp_path / 'new'} as file.bin" in message
    assert held(tmp_path) == {}
    server.ways.clear()
    assert get().read_bytes() == BODY


def test_a_lie_about_the_length_breaks_the_transfer(get, server, tmp_path):
    server.ways |= {"body": BODY[:-10], "length": str(len(BODY))}
    refused(get, error=DownloadError)
    assert "file.bin" not in held(tmp_path)


@pytest.mark.parametrize("given", ["bytes 0-1048575/1048576", "bytes 1000-1048575/999", "none", "bytes 1-2/\x7f"])
def test_a_range_that_was_not_asked_for_is_not_appended(given, get, server, tmp_path):
    server.ways |= {"cuts": [1000], "range": given}
    refused(get, "with the range", error=DownloadError)
    assert held(tmp_path) == {}


def test_a_wrong_part_is_seen_by_the_checksum_and_thrown_away(get, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file.bin.part").write_bytes(b"x" * 5000)
    refused(get, "sha-256", error=DownloadError)
    assert held(tmp_path) == {}
    assert get().read_bytes() == BODY


@pytest.mark.parametrize("url", ["http://example.invalid/x", "file:///etc/passwd", "ftp://x/y", "data:,x", "x"])
def test_only_https_and_this_computer(url, tmp_path):
    refused(lambda: fetch(url, tmp_path / "x", size=1, sha256=""), "not an https address", error=DownloadError)
    assert list(tmp_path.iterdir()) == []


def test_no_network_says_what_to_put_where(server, tmp_path):
    port = server.server_port
    server.server_close()
    refused(
        lambda: fetch(f"http://127.0.0.1:{port}/x", tmp_path / "x", size=1, sha256=""),
        "cannot be downloaded",
        f"by hand: put http://127.0.0.1:{port}/x into the folder {tmp_path} as x",
        error=DownloadError,
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(get, tmp_path):
    (tmp_path / "new").write_text("a file")
    refused(get, "cannot be downloaded", error=DownloadError)


@pytest.mark.skipif(module.fcntl is None, reason="this system has no file locks of this kind")
def test_two_processes_do_not_append_to_one_part(get, tmp_path):
    (tmp_path / "new").mkdir()
    with (tmp_path / "new" / "file.bin.part").open("ab") as other:
        module.fcntl.flock(other, module.fcntl.LOCK_EX)
        refused(get, "another process is downloading it", error=DownloadError)
        assert held(tmp_path) == {"file.bin.part": 0}
    assert get().read_bytes() == BODY


def test_cifar10_is_downloaded_where_it_is_missing(server, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(cifar10, "read_archive", lambda path: read.append(path) or "data")
    monkeypatch.setattr(cifar10, "BINARY_SIZE", len(BODY))
    monkeypatch.setattr(cifar10, "BINARY_SHA256", SHA)
    seen = []
    assert cifar10.load_cifar10(tmp_path, url=server.url, progress=lambda *now: seen.append(now)) == "data"
    assert read == [tmp_path / "cifar-10-binary.tar.gz"]
    assert read[0].read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert cifar10.load_cifar10(tmp_path, url="http://example.invalid") == "data"  # from the folder now


def test_cifar10_without_a_download_says_what_to_put_where(tmp_path):
    refused(
        lambda: load("cifar10", cache=tmp_path, download=False),
        f"put {cifar10.BINARY_URL} there as cifar-10-binary.tar.gz",
        str(tmp_path),
        error=DownloadError,
    )
    assert list(tmp_path.iterdir()) == []
