"""Texts beside posts: captioners against transformers' own generation, and knowledge of a stub of
an endpoint with faults, in runs that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image, ImageDraw, ImageFont
from tokenizers import Tokenizer, models, pre_tokenizers

from rpbert.data.describe import Endpoint, Maker, describe
from rpbert.data.readers import open_data
from rpbert.errors import InputError
from rpbert.evidence.texts import Captioner, TextFinder
from rpbert.stopping import StopSignals
from tests.conftest import EVIDENCE, SEEING, made_posts, picture, tiny
from tests.data.files import folder_of, jsonl

WORDS = ["[PAD]", "[BOS]", "[EOS]", "[UNK]", *(f"w{i}" for i in range(40))]
TEXT = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "sep_token_id": 2,
}  # fmt: skip


def blip() -> Any:
    config = transformers.BlipConfig(
        text_config={**TEXT, "encoder_hidden_size": 16}, vision_config=SEEING, projection_dim=8
    )
    return transformers.BlipForConditionalGeneration(config)


def git() -> Any:
    return transformers.GitForCausalLM(transformers.GitConfig(vision_config=SEEING, **TEXT))


def saved(network: Any, folder: Path) -> Path:
    network.save_pretrained(folder)
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", bos_token="[BOS]", eos_token="[EOS]"
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"size": {"height": 32, "width": 32}}')
    return folder


@pytest.mark.parametrize("make", [blip, git])
def test_a_caption_is_what_the_network_generates(make: Any, tmp_path: Path) -> None:
    network = make().eval()
    captioner = Captioner.from_pretrained(saved(network, tmp_path))
    images = [picture(i) for i in range(3)]
    found = captioner([*images, b"no image", None])
    assert found[3:] == ["", ""]
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    for image, caption in zip(images, found, strict=False):
        small = torch.tensor(list(image.resize((32, 32), Image.Resampling.BICUBIC).getdata()))
        pixels = ((small / 255 - mean) / std).view(32, 32, 3).permute(2, 0, 1)
        (ids,) = network.generate(
            pixel_values=pixels[None], max_new_tokens=40, do_sample=False, num_beams=1
        ).tolist()
        assert caption == " ".join(WORDS[i] for i in ids if i > 2)
    assert any(found)


def test_what_is_no_captioner_is_refused(tmp_path: Path) -> None:
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="model_type vit; expected one of blip, git"):
        Captioner.from_pretrained(tmp_path)


def test_text_in_an_image_is_found() -> None:
    pytest.importorskip("rapidocr", reason="the extra ocr is not installed")
    sign = Image.new("RGB", (420, 120), "white")
    ImageDraw.Draw(sign).text((20, 30), "LAKE COMO", "black", ImageFont.load_default(56))
    found = TextFinder()([sign, Image.new("RGB", (60, 60)), b"no image"])
    assert found[0].replace(" ", "").upper() == "LAKECOMO"
    assert found[1:] == ["", ""]


def test_without_the_extra_the_message_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(InputError, match=r"pip install 'rpbert\[ocr\]'"):
        TextFinder()


def test_image_texts_are_read_as_captions_are() -> None:
    posts, written = made_posts(), tiny("rpbert", evidence=EVIDENCE["ocr"])
    captions = tiny("rpbert", evidence=EVIDENCE["captions"])
    captions.tokenizer = written.tokenizer
    same = [post.with_(image_text=post.caption, caption=None) for post in posts]
    found, expected = written.collator()(same), captions.collator()(posts)
    assert torch.equal(found.evidence[0].values, expected.evidence[0].values)


class Stub(ThreadingHTTPServer):
    """Answers a chat with what it was asked, after some faults: each question first meets one."""

    def __init__(self, faults: tuple[str, ...] = (), slow: float = 0.0) -> None:
        self.faults, self.slow, self.lock = faults, slow, threading.Lock()
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = body["messages"][0]["content"]
        words = words if isinstance(words, str) else words[0]["text"]
        with self.server.lock:
            self.server.bodies.append({**body, "key": self.headers.get("Authorization")})
            number = self.server.asked[words]
            self.server.asked[words] += 1
        fault = self.server.faults[number] if number < len(self.server.faults) else ""
        time.sleep(2 if fault == "slow" else self.server.slow)
        content = json.dumps({"choices": [{"message": {"content": f"of\n {words}"}}]}).encode()
        if fault.isdigit():
            self.send_response(int(fault))
            self.send_header("Retry-After", "0")
            content = b"no"
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "cut":
            content = content[: len(content) // 2]
        if fault == "no JSON":
            content = b"x" * len(content)
        with suppress(OSError):  # who asked waits no more
            self.wfile.write(content)
        with self.server.lock:
            self.server.answered[words] += not fault

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def asking(stub: Stub, **given: Any) -> Endpoint:
    prompt = "{text} / {caption}"
    return Endpoint(
        **{"name": "m", "address": stub.address, "prompt": prompt, "pause": 0.01, **given}
    )


def run(path: Path, output: Path, *makers: Maker, **given: Any) -> tuple[list[str], list[str]]:
    said: list[str] = []
    with StopSignals() as stop:
        return describe(path, output, makers, stop, said.append, **given), said


POSTS = "IMGID:a\nAnna\tB-PER\n\nIMGID:b\nRome\tB-LOC\n\nIMGID:c\n\tO\n\n"


def test_a_folder_gets_every_text_once_and_keeps_what_it_had(stub: Stub, tmp_path: Path) -> None:
    """Images are described before knowledge, whose prompt has the caption; gold and images stay."""
    beside = {"captions.tsv": "a\tgiven\n", "relations.tsv": "b\t1\n"}
    folder = folder_of(tmp_path / "in", {"train.txt": POSTS, "dev.txt": POSTS, **beside})
    (folder / "images").mkdir()
    picture(1).save(folder / "images" / "b.png")
    seen: list[int] = []

    def look(images: Any) -> list[str]:
        seen.append(len(images))
        return ["a  red\ntower"]

    captions = Maker(makes="caption", name="c", describe=look)
    for _ in range(2):
        faults, _ = run(folder, tmp_path / "out", captions, asking(stub, sees_images=True))
    assert (faults, seen) == ([], [1])
    asked = ["Anna / given", "Rome / a red tower", " / unknown"]
    assert stub.answered == dict.fromkeys(asked, 1)
    before, after = (list(open_data(path).read("train")) for path in (folder, tmp_path / "out"))
    assert [p.tags for p in after] == [p.tags for p in before]
    assert [p.words for p in after] == [p.words for p in before]
    assert [p.caption for p in after] == ["given", "a red tower", None]
    assert [p.relation for p in after] == [None, 1.0, None]
    assert after[1].image == tmp_path / "out" / "images" / "b.png"
    known = [p.images[0].knowledge for p in after]
    assert known == ["of Anna / given", "of Rome / a red tower", "of / unknown"]
    kinds = [[part["type"] for part in body["messages"][0]["content"]] for body in stub.bodies
             if not isinstance(body["messages"][0]["content"], str)]  # fmt: skip
    assert kinds == [["text", "image_url"]]  # the one post that has an image
    assert (tmp_path / "out" / "out.prompt.txt").read_text() == "{text} / {caption}"


def test_rows_keep_their_keys_and_a_dry_run_asks_nothing(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    rows: list[dict[str, Any]] = [
        {"id": "1", "text": "Hi {caption} &amp; you", "own": 5},
        {"id": "2", "text": "x", "knowledge": "known"},
    ]
    path = jsonl(tmp_path / "posts.jsonl", rows)
    _, said = run(path, tmp_path / "new.jsonl", asking(stub), dry_run=True)
    assert not stub.bodies
    assert not (tmp_path / "new.jsonl").exists()
    assert "1 to ask of 1" in said[0]
    assert "8 tokens" in said[1]  # of 34 characters, 4 a token
    run(path, tmp_path / "new.jsonl", asking(stub))
    found = [json.loads(line) for line in (tmp_path / "new.jsonl").read_text().splitlines()]
    assert found == [{**rows[0], "knowledge": "of Hi {caption} &amp; you / unknown"}, rows[1]]
    assert stub.bodies[0]["key"] == "Bearer secret"
    assert "secret" not in "".join(p.read_text() for p in tmp_path.glob("new*"))


@pytest.mark.parametrize("fault", ["429", "500", "cut", "no JSON", "slow"])
def test_a_fault_that_passes_is_tried_again(stub: Stub, fault: str, tmp_path: Path) -> None:
    stub.faults = (fault,) * 3
    path = jsonl(tmp_path / "posts.jsonl", [{"id": "1", "text": "x"}])
    assert run(path, tmp_path / "new.jsonl", asking(stub, timeout=1.0))[0] == []
    assert stub.asked == {"x / unknown": 4}


def test_what_stays_without_an_answer_is_listed_and_many_in_a_row_end_the_run(
    stub: Stub, tmp_path: Path
) -> None:
    stub.faults = ("400",)
    few = jsonl(tmp_path / "few.jsonl", [{"id": "1", "text": "x"}])
    ((fault,), _) = run(few, tmp_path / "new.jsonl", asking(stub))
    assert "400 no" in fault
    assert "knowledge" not in json.loads((tmp_path / "new.jsonl").read_text())
    assert run(few, tmp_path / "new.jsonl", asking(stub))[0] == []
    stub.faults = ("401",) * 99
    many = jsonl(tmp_path / "many.jsonl", [{"id": str(i), "text": str(i)} for i in range(40)])
    with pytest.raises(InputError, match=r"in a row without an answer.*401"):
        run(many, tmp_path / "other.jsonl", asking(stub))
    assert len(stub.bodies) < 40
    assert not (tmp_path / "other.jsonl").exists()


def test_killed_five_times_no_post_is_lost_doubled_or_asked_twice(
    stub: Stub, tmp_path: Path
) -> None:
    """SIGTERM lets what was asked end. SIGKILL cannot: what was on its way is asked again."""
    stub.slow, at_once, environment = 0.004, 4, {**os.environ, "NO_PROXY": "*"}
    rows = [{"id": str(i), "text": f"post {i}"} for i in range(1000)]
    path, output = jsonl(tmp_path / "posts.jsonl", rows), tmp_path / "new.jsonl"
    options = {"--output": output, "--knowledge": stub.address, "--at-once": at_once}
    given = [str(word) for option in options.items() for word in option]
    command = [sys.executable, "-m", "rpbert", "data", "describe", str(path), *given]
    hard = 0
    soft, kill = signal.SIGTERM, signal.SIGKILL
    for number, sent in enumerate((soft, kill, soft, kill, soft), start=1):
        process = subprocess.Popen(command, env=environment)
        while sum(stub.answered.values()) < 150 * number and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(sent)
        assert process.wait() != 0
        hard += sent == signal.SIGKILL
        assert not (tmp_path / "new.jsonl").exists()
    done = subprocess.run(command, env=environment, check=False)
    assert done.returncode == 0
    found = [json.loads(line) for line in (tmp_path / "new.jsonl").read_text().splitlines()]
    assert [row["id"] for row in found] == [str(i) for i in range(1000)]
    for row in found:
        assert row["knowledge"].startswith("of ")
        assert f"{row['text']} " in f"{row['knowledge']} "
    again = sum(count - 1 for count in stub.asked.values())
    assert again <= hard * at_once
    kept = output.with_name("new.jsonl.answers.jsonl").read_text().splitlines()
    assert len({json.loads(line)["key"] for line in kept}) == len(kept) == 1000
