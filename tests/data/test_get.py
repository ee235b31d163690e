"""Known data sets are fetched from a server on this machine, with made files of their layouts."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rpbert.data import get as module
from rpbert.data.check import check
from rpbert.data.get import SOURCES, DataSet, Source, data_set, download, get
from rpbert.data.readers import open_data
from rpbert.errors import InputError
from tests.conftest import picture
from tests.test_cli import run as command

POSTS = "IMGID:{0}_1\nAda\tB-PER\nLovelace\tI-PER\n\nIMGID:{0}_2\nat\tO\nComo\tB-LOC\n\n"


class Server(ThreadingHTTPServer):
    """Serves bytes by path, with ranges; `cut` requests end halfway, `wait` makes them slow."""

    def __init__(self) -> None:
        self.files, self.asked = dict[str, bytes](), list[tuple[str, str | None]]()
        self.cut, self.wait = 0, 0.0
        super().__init__(("127.0.0.1", 0), Answer)

    def address(self, path: str, content: bytes) -> str:
        self.files[path] = content
        return f"http://127.0.0.1:{self.server_port}{path}"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append((self.path, asked))
        time.sleep(self.server.wait)
        content = self.server.files.get(self.path)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if content is None or (asked and start >= len(content)):
            self.send_error(404 if content is None else 416)
            return
        self.send_response(206 if asked else 200)
        rest = content[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.server.cut:
            self.server.cut -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def zipped(members: dict[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def jpeg() -> bytes:
    file = io.BytesIO()
    picture(0).save(file, "JPEG")
    return file.getvalue()


def made(source: Source) -> bytes:
    """A made file of a source's layout, of two posts in each split."""
    split, box = Path(source.to).stem, "GMNER-1/Twitter10000_v2.0"
    splits = ("train", "dev", "valid", "test")
    ids = {f"{box}/txt/{name}.txt": f"IMGID:{name}_1\n\nIMGID:{name}_2\n" for name in splits}
    told = {
        f"{name}.txt": "Ada\tB-PER\r\nLovelace\tI-PER\r\n<EOS>\tX\r\nNamed\tX\r\nAda\tX\r\n\r\n"
        f"at\tO\r\nComo\tB-LOC\r\n<EOS>\tX\r\nof\tX\r\n{name}\tX\r\n\r\n"
        for name in splits
    }
    labels = "tweet_id,image_adds\n1,1\n2,0\n"
    contents: dict[str, str | dict[str, Any]] = {
        "as_is": labels if split == "textimage" else POSTS.format(split),
        "captions": "train_1.jpg :a man : a dog\nother.jpg :x\ntrain_1.jpg :again\n",
        "knowledge": told,
        "grounding": {**ids, f"{box}/xml/train_2.xml": "<a/>"},
        "images": {"a/i/train_1.jpg": jpeg(), "a/i/else.jpg": b"", "a/x.csv": "x"},
        "trc_texts": json.dumps([{"words": ["a", "b"], "image_id": "T1.jpg"}]),
        "conll": "\t\nAda\tB-person\n \nin\tO\n\t\n\t\nat\tO\n",
    }
    content = contents[source.layout]
    return content.encode() if isinstance(content, str) else zipped(content)


def served(data: DataSet, server: Server) -> DataSet:
    """The data set at addresses of the server, with the checksums of what is there."""
    files = []
    for number, source in enumerate(data.files):
        content = made(source)
        digest = hashlib.sha256(content).hexdigest() if source.sha256 else ""
        url = server.address(f"/{data.name}/{number}", content)
        files.append(replace(source, url=url, bytes=len(content), sha256=digest))
    return replace(data, files=tuple(files))


@pytest.mark.parametrize("name", SOURCES)
def test_every_known_data_set_becomes_a_data_folder(
    name: str, server: Server, tmp_path: Path
) -> None:
    data = served(data_set(name), server)
    images = any(source.to == "images" for source in data.files)
    record = get(data, tmp_path / name, images=images)
    assert record == json.loads((tmp_path / name / "sources.json").read_text())
    hashes = [hashlib.sha256(server.files[f"/{name}/{i}"]) for i in range(len(data.files))]
    assert [file["sha256"] for file in record["files"]] == [each.hexdigest() for each in hashes]
    splits = check(tmp_path / name)["splits"]
    assert splits["train"]["posts"]
    posts = {p.id: p for s in splits for p in open_data(tmp_path / name).read(s)}
    if name.startswith("twitter"):
        one, two = posts["train_1"], posts["train_2"]
        assert (one.caption, one.relation, two.relation) == ("a man : a dog", 0, 1)
        rows = (tmp_path / name / "knowledge.tsv").read_text().splitlines()
        assert rows[:2] == ["train_1\tNamed Ada", "train_2\tof train"]
        assert len(rows) == 6
    if images:
        assert [path.name for path in (tmp_path / name / "images").iterdir()] == ["train_1.jpg"]
        assert splits["train"]["images"]["present"] == 1
    if name in ("wnut17", "btc"):
        assert [posts["test_1"].words, posts["test_2"].words] == [("Ada", "in"), ("at",)]
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_what_breaks_off_goes_on_where_it_ended(server: Server, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    source = Source(server.address("/a", content), "a", len(content), "")
    server.cut = 2
    assert download(source, tmp_path / "part") == hashlib.sha256(content).hexdigest()
    assert [asked for _, asked in server.asked] == [None, "bytes=128000-", "bytes=192000-"]
    assert (tmp_path / "part").read_bytes() == content
    download(source, tmp_path / "part")  # is there
    assert (tmp_path / "part").read_bytes() == content
    server.cut = module.TRIES
    with pytest.raises(InputError, match="goes on from there"):
        download(source, tmp_path / "other")
    assert len(server.asked) == 4 + module.TRIES
    assert download(source, tmp_path / "other") == hashlib.sha256(content).hexdigest()


def conll(server: Server, **changes: Any) -> DataSet:
    content = POSTS.format("train").encode()
    digest = hashlib.sha256(content).hexdigest()
    source = Source(server.address("/train", content), "train.txt", len(content), digest)
    return DataSet("made", "", "", "", "", (replace(source, **changes),))


def test_what_an_address_gives_is_held_to_what_is_known(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    output = tmp_path / "made"
    nowhere = f"http://127.0.0.1:{server.server_port}/nowhere"
    for changes, found in (
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"bytes": 10}, "more than 10 bytes"),
        ({"url": nowhere}, "404"),
        ({"url": "http://127.0.0.1:1/closed"}, "an answer"),
    ):
        with pytest.raises(InputError, match=found) as refused:
            get(conll(server, **changes), output)
        assert "http://127.0.0.1" in str(refused.value)
        assert not output.exists()
    server.wait = 0.6
    monkeypatch.setattr(module, "TRIES", 1)
    with pytest.raises(InputError, match="timed out"):
        get(conll(server), output)
    server.wait = 0
    get(conll(server), output)
    with pytest.raises(InputError, match="a new folder"):
        get(conll(server), output)


@pytest.mark.parametrize(
    "members",
    [
        {"../images/train_1.jpg": b"x"},
        {"/etc/train_1.jpg": b"x"},
        {"C:\\train_1.jpg": b"x"},
        {"a/train_1.jpg": b"x" * 101},
        {"a/other.jpg": b"x"},
        None,
    ],
)
def test_an_archive_writes_nothing_but_what_is_asked_of_it(
    server: Server, tmp_path: Path, members: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BYTE_LIMIT", 100)
    content = zipped(members) if members else b"PK no archive"
    url = server.address("/zip", content)
    images = Source(url, "images", len(content), layout="images")
    data = conll(server)
    with pytest.raises(InputError, match=r"member|no image"):
        get(replace(data, files=(*data.files, images)), tmp_path / "made", images=True)
    assert {path.name for path in tmp_path.iterdir()} == {".made.parts"}


def test_the_command_shows_terms_and_asks(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = served(data_set("wnut17"), server)
    monkeypatch.setitem(SOURCES, "wnut17", data)
    given = ["data", "get", "wnut17", "--output", tmp_path / "posts"]
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, _, err = command(capsys, *given)
    assert (code, server.asked) == (130, [])
    assert data.licence in err
    assert all(source.url in err for source in data.files)
    code, out, _ = command(capsys, *given, "--yes", "--json")
    assert (code, json.loads(out)["licence"]) == (0, data.licence)
    assert command(capsys, "data", "get", "wnut")[0] == 2
    assert command(capsys, "data", "get", "wnut17", "--images")[0] == 2
    assert len(json.loads(command(capsys, "data", "list", "--json")[1])) == len(SOURCES)


@pytest.mark.parametrize("name", ["twitter2015", "twitter2017"])
def test_the_checksums_are_those_of_the_published_files(name: str, shared: Path) -> None:
    for source in data_set(name).files[:3]:
        content = (shared / name / source.to).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (source.bytes, source.sha256)
