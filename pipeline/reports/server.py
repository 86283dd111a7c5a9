"""Pages of a folder for a browser on this machine, and for nobody else."""

import io
import mimetypes
import secrets
import shutil
from collections.abc import Callable
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

ADDRESS = "127.0.0.1"
INDEX = "index.html"
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}


class PageServer(ThreadingHTTPServer):
    """Serves the files below a folder on 127.0.0.1, to those who know a random token in the address.

    Only reading, only files, none that is hidden or that a link leads to outside the folder; a request that was
    addressed to another host than this one is refused, so that no web page can ask by a name of its own.

    Args:
        folder: whose files are served.
        port: 0 takes a free one.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder.resolve()
        self.token = secrets.token_urlsafe(24)
        super().__init__((ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        """The address of the first page."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def file(self, address: str) -> Path | None:
        """The file that an address means; None where there is none that may be read."""
        blank, token, *names = unquote(urlsplit(address).path).split("/")
        if blank or not secrets.compare_digest(token.encode(), self.token.encode()):
            return None
        if any(name.startswith(".") or not name or "\0" in name or "\\" in name for name in names):
            return None
        path = self.folder.joinpath(*names).resolve()
        return path if path.is_relative_to(self.folder) and path.is_file() else None

    def is_start(self, address: str) -> bool:
        """Whether an address means the first page."""
        return secrets.compare_digest(urlsplit(address).path.encode(), f"/{self.token}/".encode())

    def start_page(self) -> bytes:
        """The index that lies there, the only page, or a list of all."""
        if (self.folder / INDEX).is_file():
            return (self.folder / INDEX).read_bytes()
        places = [path.relative_to(self.folder) for path in pages(self.folder)]
        links = "".join(
            f'<li><a href="{escape(quote(place.as_posix()))}">{escape(place.as_posix())}</a></li>' for place in places
        )
        title = escape(self.folder.name)
        head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        return f"{head}<h1>{title}</h1><ul>{links}</ul>".encode(errors="backslashreplace")


def pages(folder: Path) -> list[Path]:
    """The pages below a folder, those that are hidden left out."""
    return sorted(
        path
        for path in folder.rglob("*.html")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "phs-pipeline", ""

    def do_GET(self) -> None:
        self._answer(lambda source: shutil.copyfileobj(source, self.wfile))

    def do_HEAD(self) -> None:
        self._answer(lambda _: None)

    def _answer(self, send: Callable[[Any], None]) -> None:
        if self.headers.get("Host") not in {f"{host}:{self.server.server_port}" for host in (ADDRESS, "localhost")}:
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        if self.server.is_start(self.path):
            page = self.server.start_page()
            self._head("text/html; charset=utf-8", len(page))
            send(io.BytesIO(page))
            return
        path = self.server.file(self.path)
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with path.open("rb") as file:
            self._head(_kind(path), path.stat().st_size)
            send(file)

    def _head(self, kind: str, length: int) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing: addresses hold the token, and names of scans."""


def _kind(path: Path) -> str:
    if path.suffix == ".gz":  # a volume, which is no web page in compressed form
        return "application/gzip"
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
