"""Texts beside posts, made once and before tagging: captions, text in images, and knowledge of an
endpoint that speaks OpenAI's chat protocol. Each answer is kept in a file as it comes, by what was
asked, so that a run that was stopped goes on and nothing that was answered is asked again."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rpbert.data.images import jpeg
from rpbert.data.readers import open_data
from rpbert.data.reading import lines_of
from rpbert.data.tables import json_object
from rpbert.errors import InputError, reason_of
from rpbert.stopping import StopSignals
from rpbert.storage.writing import written_whole
from rpbert.types import TEXTS, Post, PostImage

if TYPE_CHECKING:
    import httpx

PROMPT = Path(__file__).with_name("prompt.txt")
TRIES, LONGEST_PAUSE = 6, 60.0  # of a question; seconds
GIVE_UP = 10  # questions in a row without an answer end the run
ANSWER, SECONDS, IMAGE = 200, 2.0, 800  # usual tokens and seconds of an answer; tokens of an image
SIDE = 768  # pixels of the longer side of an image that is asked about
Question: TypeAlias = tuple[str, bytes | None]
"""Words, and an image as JPEG."""


@dataclass(kw_only=True)
class Maker:
    """Makes a text of the image alone, such as a caption, by `describe`."""

    makes: str  # an attribute of `PostImage`
    name: str  # of what makes it: another name gives other answers
    at_once: int = 1
    describe: Callable[[Sequence[bytes]], list[str]] = lambda images: [""] * len(images)

    def question(self, post: Post, image: PostImage) -> Question | None:
        """What to ask of an image of a post; None for nothing."""
        shown = jpeg(image.image, SIDE)
        return ("", shown) if shown else None

    def ask(self, question: Question, stopped: threading.Event) -> str:
        """The answer in one line. Raises InputError: there is none."""
        return " ".join(self.describe([question[1] or b""])[0].split())


@dataclass(kw_only=True)
class Endpoint(Maker):
    """A language model behind ``address/chat/completions``, with the key in ``OPENAI_API_KEY``. In
    the prompt ``{text}`` and ``{caption}`` stand for those of a post."""

    address: str
    prompt: str
    sees_images: bool = False
    timeout: float = 60.0  # seconds
    pause: float = 1.0  # seconds after the first failure; then twice as long each time
    makes: str = "knowledge"
    at_once: int = 8

    def question(self, post: Post, image: PostImage) -> Question | None:
        """The prompt, once a post, with its first image where the model sees images."""
        if image is not post.images[0]:
            return None
        given, words = {"{text}": post.text, "{caption}": image.caption or "unknown"}, self.prompt
        words = re.sub("{text}|{caption}", lambda name: given[name[0]], words)
        return words, jpeg(image.image, SIDE) if self.sees_images else None

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        key = os.environ.get("OPENAI_API_KEY")
        head = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(headers=head, timeout=self.timeout)

    def ask(self, question: Question, stopped: threading.Event) -> str:
        """The answer, after `TRIES` tries where the fault may pass."""
        import httpx

        url, (words, image) = f"{self.address.rstrip('/')}/chat/completions", question
        content: list[dict[str, Any]] = [{"type": "text", "text": words}]
        if image is not None:
            data = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
            content.append({"type": "image_url", "image_url": {"url": data}})
        chat = [{"role": "user", "content": content if image else words}]
        body = {"model": self.name, "messages": chat}
        for number in range(TRIES):
            pause = self.pause * 2**number * random.uniform(0.5, 1)
            try:
                found = self._client.post(url, json=body)
                if found.is_success:
                    return " ".join(found.json()["choices"][0]["message"]["content"].split())
                fault = f"{found.status_code} {found.text[:200]}"
                after = found.headers.get("Retry-After", "")
                pause = float(after) if after.isdigit() else pause
                if found.status_code != 429 and found.status_code < 500:
                    break
            except httpx.HTTPError as error:
                fault = f"{type(error).__name__} {reason_of(error)}"
            except (LookupError, TypeError, AttributeError, ValueError) as error:
                fault = f"no answer of a chat ({reason_of(error)})"
            if number + 1 == TRIES or stopped.wait(min(pause, LONGEST_PAUSE)):
                break
        hint = "see address, model and OPENAI_API_KEY; the same command goes on"
        raise InputError(url, fault, "an answer", hint)


class Answers:
    """What is known; the file `kept` holds it, a line an answer."""

    def __init__(self, kept: Path) -> None:
        self.kept, self.texts = kept, dict[str, str]()
        whole, end, begun = (kept.read_bytes() if kept.exists() else b"").rpartition(b"\n")
        if begun:  # a line of a run that was killed
            os.truncate(kept, len(whole + end))
        for number, line in enumerate(whole.splitlines(), start=1):
            answer = json_object(line.decode(), f"{kept}:{number}")
            self.texts[str(answer.get("key"))] = str(answer.get("text"))

    def asked(self, maker: Maker, post: Post) -> list[tuple[str, Question | None]]:
        """What to ask of each image that lacks the text, with its key."""
        asked = [None if getattr(i, maker.makes) else maker.question(post, i) for i in post.images]
        return [(_key(maker, question) if question else "", question) for question in asked]

    def completed(self, post: Post, makers: Sequence[Maker]) -> Post:
        """The post with what it lacks and is known."""
        for maker in makers:
            texts = [self.texts.get(key) for key, _ in self.asked(maker, post)]
            alone = zip(post.split_by_image(), texts, strict=True)
            known = [one.with_(**{maker.makes: text}) if text else one for one, text in alone]
            post = post.with_(images=tuple(one.images[0] for one in known))
        return post

    def ask(self, maker: Maker, posts: Iterator[Post], stop: StopSignals) -> list[str]:
        """Ask what is not known, and return why some has no answer. After a signal, and after
        `GIVE_UP` faults in a row (InputError), what was asked comes to its end and nothing more
        is."""
        faults, in_a_row, stopped = list[str](), 0, threading.Event()
        waiting: dict[Future[str], str] = {}
        unknown = (one for post in posts for one in self.asked(maker, post) if one[1])
        pool, log = ThreadPoolExecutor(maker.at_once), self.kept.open("a", encoding="utf-8")
        with pool, log:
            while True:
                if stop.should_stop or in_a_row >= GIVE_UP:
                    stopped.set()
                while not stopped.is_set() and len(waiting) < maker.at_once:
                    key, question = next(unknown, ("", None))
                    if question is None:
                        break
                    if key not in self.texts and key not in waiting.values():
                        waiting[pool.submit(maker.ask, question, stopped)] = key
                if not waiting:
                    break
                for done in wait(waiting, 0.2, FIRST_COMPLETED).done:
                    key, in_a_row = waiting.pop(done), in_a_row + 1
                    try:
                        self.texts[key], in_a_row = done.result(), 0
                    except InputError as fault:
                        faults.append(str(fault))
                        continue
                    line = {"key": key, "makes": maker.makes, "text": self.texts[key]}
                    print(json.dumps(line), file=log, flush=True)
        if in_a_row >= GIVE_UP and not stop.should_stop:
            found = f"{in_a_row} questions in a row without an answer"
            raise InputError(maker.makes, found, "answers", f"the last: {faults[-1]}")
        return faults


def describe(
    path: Path,
    output: Path,
    makers: Sequence[Maker],
    stop: StopSignals,
    say: Callable[[str], object],
    dry_run: bool = False,
) -> list[str]:
    """Write the posts of `path` as rows with their texts to `output`: a folder for a folder, else a
    ``.jsonl`` file. Returns why some texts are not there; a dry run only says what would be asked.
    Raises InputError: posts cannot be read or written; KeyboardInterrupt: a signal came."""
    source, home = open_data(path), output if path.is_dir() else output.parent
    root, faults = path if path.is_dir() else path.parent, list[str]()
    if not dry_run:
        home.mkdir(parents=True, exist_ok=True)
    answers = Answers(home / f"{output.name}.answers.jsonl")

    def posts(done: int) -> Iterator[Post]:
        every = (post for split in source.splits for post in source.read(split))
        return (answers.completed(post, makers[:done]) for post in every)

    for done, maker in enumerate(makers):
        every = (one for post in posts(done) for one in answers.asked(maker, post))
        sizes = {key: len(q[0]) // 4 + IMAGE * bool(q[1]) for key, q in every if q}
        left = [size for key, size in sizes.items() if key not in answers.texts]
        minutes, written = SECONDS * len(left) / maker.at_once / 60, ANSWER * len(left)
        say(f"{maker.makes} of {maker.name}: {len(left):,} to ask of {len(sizes):,}")
        say(f"  about {minutes:.1f} min, {sum(left):,} tokens and {written:,} of answers")
        if left and not dry_run:
            if isinstance(maker, Endpoint):
                with written_whole(home / f"{output.name}.prompt.txt") as template:
                    template.write(maker.prompt)
            faults += answers.ask(maker, posts(done), stop)
            if stop.should_stop:
                raise KeyboardInterrupt
    for split, file in () if dry_run else source.files.items():
        with written_whole(home / f"{split}.jsonl" if path.is_dir() else output) as lines:
            found = (answers.completed(post, makers) for post in source.read(split))
            for row in _rows(file, found, root, home):
                print(json.dumps(row, ensure_ascii=False), file=lines)
    return faults


def _rows(file: Path, posts: Iterable[Post], root: Path, home: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file with what is known of their images, copied from below `root` to `home`."""
    if file.suffix in (".parquet", ".json", ".csv"):
        raise InputError(file, f"a file that ends in {file.suffix}", ".jsonl or CoNLL")
    lines = (json.loads(line) for _, line in lines_of(file) if line.strip())
    for post in posts:
        given: dict[str, Any] = {"id": post.id, "tokens": post.words, "tags": post.tags}
        row = next(lines) if file.suffix == ".jsonl" else given
        for key in ("image", "relation", *TEXTS):
            values = [getattr(image, key) for image in post.images]
            for number, image in enumerate(values):
                if isinstance(image, Path):
                    new = home / (name := image.relative_to(root))
                    values[number] = str(name)
                    if image.is_file() and not new.exists():
                        new.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy2(image, new)
            if any(value is not None for value in values):
                row[key] = values if len(values) > 1 else values[0]
        yield row


def _key(maker: Maker, question: Question) -> str:
    """The content of what is asked, of whom, and for what."""
    asked = json.dumps([maker.makes, maker.name, question[0]]).encode() + (question[1] or b"")
    return hashlib.sha256(asked).hexdigest()
