"""Pages are served to the browser of this machine, and nothing else is, to nobody else."""

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.reports.server import PageServer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results beside a secret that is not theirs."""
    (tmp_path / "secret.txt").write_text("secret")
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "one.html").write_text("page one")
    (out / "sub" / "two & 3.html").write_text("page two")
    (out / "one.nii.gz").write_bytes(b"volume")
    (out / ".hidden.html").write_text("hidden")
    (out / "way_out.txt").symlink_to(tmp_path / "secret.txt")
    return out


@pytest.fixture
def server(folder: Path) -> Iterator[PageServer]:
    with PageServer(folder) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def ask(server: PageServer, path: str, method: str = "GET", host: str | None = None) -> tuple[int, str, str]:
    """Status, kind and content of an answer; the path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer.status, answer.headers.get("Content-Type", ""), content


def test_the_address_is_of_this_machine_and_holds_another_token_each_time(server: PageServer, folder: Path) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}/{server.token}/"
    with PageServer(folder) as other:
        assert len({server.token, other.token}) == 2
    assert len(server.token) >= 32


def test_the_first_page_lists_the_pages_or_is_the_index(server: PageServer, folder: Path) -> None:
    status, kind, content = ask(server, f"/{server.token}/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert 'href="one.html"' in content
    assert 'href="sub/two%20%26%203.html">sub/two &amp; 3.html<' in content
    assert "hidden" not in content
    (folder / "index.html").write_text("all scans")
    assert ask(server, f"/{server.token}/")[2] == "all scans"


@pytest.mark.parametrize(
    ("name", "kind", "content"),
    [
        ("one.html", "text/html; charset=utf-8", "page one"),
        ("sub/two%20%26%203.html", "text/html; charset=utf-8", "page two"),
        ("one.nii.gz", "application/gzip", "volume"),
    ],
)
def test_files_of_the_folder_are_served(server: PageServer, name: str, kind: str, content: str) -> None:
    assert ask(server, f"/{server.token}/{name}") == (200, kind, content)
    assert ask(server, f"/{server.token}/{name}", method="HEAD") == (200, kind, "")


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/one.html", "/wrong/one.html", "//one.html", "/TOKEN", "/TOKENx/one.html"),
        *("/TOKEN/../secret.txt", "/TOKEN/%2e%2e/secret.txt", "/TOKEN/..%2fsecret.txt", "/TOKEN/sub/../../secret.txt"),
        *("/TOKEN//etc/passwd", "/TOKEN/%2fetc/passwd", "/TOKEN/..%5csecret.txt", "/TOKEN/one.html%00.txt"),
        *("/TOKEN/way_out.txt", "/TOKEN/.hidden.html", "/TOKEN/sub", "/TOKEN/sub/", "/TOKEN/none.html"),
    ],
)
def test_nothing_else_is(server: PageServer, path: str) -> None:
    status, _, content = ask(server, path.replace("TOKEN", server.token))
    assert status == 404
    assert "secret" not in content.replace("secrets", "")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1"])
def test_a_request_to_another_host_is_refused(server: PageServer, host: str) -> None:
    assert ask(server, f"/{server.token}/one.html", host=host)[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_written(server: PageServer, method: str) -> None:
    assert ask(server, f"/{server.token}/one.html", method=method)[0] == 501
