"""How many small faults the tests notice: mutants of the core modules, one fault each.

    python scripts/mutants.py --count 300 --seed 0

Each mutant changes one operator, comparison, constant or return value of a module; it is killed
if the module's tests fail or run out of time. Survivors are printed with the line they change.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.machinery
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers  # noqa: F401 - loaded once, before the forks

ROOT = Path(__file__).parents[1]
TARGETS: dict[str, tuple[str, ...]] = {
    "modules/crf": ("modules/test_crf",),
    "modules/gates": ("modules/test_gates", "models/test_where_r_acts"),
    "models/rpbert": ("models/test_rpbert", "models/test_where_r_acts", "models/test_sources"),
    "models/tagger": ("models/test_parameter_groups", "models/test_rpbert", "models/test_fusion"),
    "data/collate": ("data/test_collate", "test_text"),
    "data/labels": ("data/test_labels", "evaluation/test_scoring"),
    "evaluation/scoring": ("evaluation/test_scoring", "evaluation/test_evaluation"),
    "batch/plan": ("batch/test_plan",),
}
"""Modules of the package with tests that hold them: the quick ones alone, so that the share is a
lower bound of what the suite kills."""
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


def mutants(source: str) -> Iterator[tuple[int, str]]:
    """Line and whole text of every mutant of a module; annotations and messages stay."""
    tree = ast.parse(source)
    left_out: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "strict":  # of zip: an assertion
            left_out.add(node.value)
        for name in ("annotation", "returns"):
            if isinstance(value := getattr(node, name, None), ast.AST):
                left_out.update(ast.walk(value))
    places = [node for node in ast.walk(tree) if node not in left_out]
    for node in places:
        for change in changes(node):
            before = copy.copy(node.__dict__)
            node.__dict__.update(change)
            with contextlib.suppress(Exception):
                yield getattr(node, "lineno", 0), ast.unparse(ast.fix_missing_locations(tree))
            node.__dict__.clear()
            node.__dict__.update(before)


def changes(node: ast.AST) -> Iterator[dict[str, object]]:
    """The faults that one node can have, as the fields that change."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPS:
        yield {"op": SWAPS[type(node.op)]()}
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield {"ops": [SWAPS[type(node.ops[0])](), *node.ops[1:]]}
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield {"value": not node.value}
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield {"value": node.value + 1}
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield (
            {"op": ast.UAdd()}
            if isinstance(node.op, ast.USub)
            else {"operand": negated(node.operand)}
        )
    elif isinstance(node, ast.If | ast.IfExp):
        yield {"test": negated(node.test)}
    elif isinstance(node, ast.Return) and node.value is not None:
        yield {"value": ast.Constant(None)}


def negated(node: ast.expr) -> ast.expr:
    """The opposite condition."""
    return ast.UnaryOp(ast.Not(), copy.copy(node))


def path_of(target: str) -> Path:
    """The file of a module."""
    return ROOT / "src" / "rpbert" / f"{target}.py"


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports one module from changed text."""

    def __init__(self, name: str, path: Path, text: str) -> None:
        self.name, self.path, self.text = name, path, text

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin=str(self.path))

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_data(self, path: str | bytes) -> bytes:
        return self.text.encode() if str(path) == str(self.path) else b""

    def path_stats(self, path: str) -> dict[str, float]:
        raise OSError("never cached")


def survives(target: str, text: str, limit: float) -> bool:
    """Whether the tests pass in a process of its own that imports the changed module."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        torch.set_num_threads(1)
        name = f"rpbert.{target.replace('/', '.')}"
        sys.meta_path.insert(0, Mutated(name, path_of(target), text))
        found = (ROOT / "tests" / name for name in TARGETS[target])
        tests = [str(path if path.is_dir() else path.with_suffix(".py")) for path in found]
        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])) != 0)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.05)
    os.killpg(child, 9)
    os.waitpid(child, 0)
    return False


def main() -> None:
    """Make the mutants, run them, print survivors and the share that was killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[*TARGETS], help="these modules")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds a mutant")
    given = parser.parse_args()
    os.chdir(ROOT)
    every = [
        (target, line, text)
        for target in TARGETS
        for line, text in mutants(path_of(target).read_text("utf-8"))
    ]
    chosen = random.Random(given.seed).sample(every, min(given.count, len(every)))
    chosen = [each for each in chosen if each[0] in given.only]
    killed: dict[str, list[bool]] = {}
    for number, (target, line, text) in enumerate(sorted(chosen), start=1):
        alive = survives(target, text, given.limit)
        killed.setdefault(target, []).append(not alive)
        if alive:
            old = ast.unparse(ast.parse(path_of(target).read_text("utf-8"))).split("\n")
            pairs = zip(old, text.split("\n"), strict=False)
            before, after = next(((a.strip(), b.strip()) for a, b in pairs if a != b), ("", ""))
            print(f"{target}:{line}: {before}  ->  {after}", flush=True)
        print(f"{number}/{len(chosen)}", end="\r", file=sys.stderr)
    for target, each in killed.items():
        print(f"{target}: {sum(each)} of {len(each)}")
    total = [k for each in killed.values() for k in each]
    print(f"killed {sum(total)} of {len(total)} ({100 * sum(total) / len(total):.1f} %)")


if __name__ == "__main__":
    main()
