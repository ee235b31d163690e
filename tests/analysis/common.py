"""What the tests of the analysis share: posts in a file, two models, and what came of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.conftest import made_posts, picture, tiny

HOSTILE = "<script>document.title='owned'</script>"
NASTY = f'RT @ user1 {HOSTILE} </script><!-- & "quotes" 👩‍👩‍👧 again !'


def finder(path: Path, **options: Any) -> Path:
    """A saved model that calls most words part of a name, and looks at some blocks only."""
    model = tiny("rpbert", **options)
    with torch.no_grad():
        for layer in model.system.get_submodule("encoder.bert.encoder.layer").children():
            for part in ("query", "key"):
                layer.get_parameter(f"attention.self.{part}.weight").mul_(20)
        for tag, row in model.vocabulary.tag_rows.items():
            bias = model.system.get_parameter("tagger.to_tags.bias")
            bias[row] = {"O": -1.0, "B": 0.0, "I": 0.6}[tag[0]]
    model.save(path)
    return path


def posts_file(folder: Path, count: int = 12) -> Path:
    """Made posts as JSON lines, with images, one without, one broken, and one that attacks."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for post in made_posts(count):
        picture(int(post.id), 40 + 9 * int(post.id)).crop((0, 0, 40, 30)).save(
            folder / f"{post.id}.png"
        )
        rows.append(
            {
                "id": post.id,
                "tokens": list(post.words),
                "tags": list(post.tags or ()),
                "image": f"{post.id}.png",
                "relation": post.relation,
            }
        )
    del rows[3]["image"]
    (folder / "4.png").write_bytes(b"no picture")
    words = NASTY.split()
    nasty = {"tokens": words, "tags": ["O"] * len(words), "image": "5.png", "relation": 1}
    rows.append({"id": f"nasty{HOSTILE}", **nasty})
    path = folder / "posts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
