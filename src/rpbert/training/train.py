"""Training from settings: what is checked, read and built before the loop."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import ProjectConfiguration, set_seed
from torch.utils import deterministic

from rpbert.backends import resolved
from rpbert.config.reading import write_yaml
from rpbert.config.run import DataSettings, RunSettings, TrainingSettings, load_run
from rpbert.data.readers import WORD_LIMIT, open_data
from rpbert.data.reading import LeftOut
from rpbert.errors import InputError, counted, refuse
from rpbert.evaluation.calibration import fit_calibration
from rpbert.models import parse_options, parse_saved, registered
from rpbert.models.saved import TaggingModel
from rpbert.models.tagger import SystemSettings
from rpbert.stopping import StopSignals
from rpbert.storage.manifest import recover
from rpbert.storage.published import model_folder
from rpbert.storage.writing import LOCK, check_writable, held
from rpbert.training.card import card_writer
from rpbert.training.progress import Callback, TrainingResult, estimate
from rpbert.training.relation_sources import described, related, relation_posts, training_split
from rpbert.training.tasks import RelationTask, Schedule, TaggingTask, Task
from rpbert.training.trainer import Trainer
from rpbert.types import Post

MANY_TAGS = 1000
HELD_OUT = 10  # of relation labels without a development split, every tenth post is held out

# Settings of `training` that decide what is kept and shown, and nothing of the weights.
_MAY_CHANGE = {"keep_checkpoints", "checkpoint_minutes", "checkpoint_steps", "track", "patience"}


def train(
    settings: RunSettings, run: Path, *, resume: bool = False, callbacks: Sequence[Callback] = ()
) -> TrainingResult:
    """Train the system that `settings` describe and write RUN.
    SIGTERM and Ctrl-C save a checkpoint and raise `KeyboardInterrupt`."""
    with StopSignals() as stop, ExitStack() as holding:
        trainer, dev = prepared(settings, run, stop, holding, resume=resume)
        trainer.reporter.callbacks = callbacks
        with repeatable(trainer.accelerator.device):
            result = trainer.fit(dev)
            if trainer.accelerator.is_main_process:
                _calibrate(trainer, dev, result.model)
                for callback in callbacks:
                    callback.on_end(result)
            return result


def prepared(
    settings: RunSettings, run: Path, stop: StopSignals, holding: ExitStack, *, resume: bool
) -> tuple[Trainer, Sequence[Post]]:
    """A trainer at its start or resumed state, and the development posts; RUN is held meanwhile."""
    settings = of_start(settings)
    options, data, chosen = parse_options(settings.model), settings.data, settings.training
    accelerator = accelerator_for(chosen, run)
    complete = complete_settings(settings)
    if accelerator.is_main_process:
        _claim(run, complete, resume)
        run.mkdir(parents=True, exist_ok=True)
        holding.callback(lambda: None if any(run.iterdir()) else run.rmdir())  # if it cannot begin
        holding.enter_context(held(run / LOCK, run))
    model, posts, notes = new_model(settings, str(accelerator.device))
    if data.tag_column != -1:
        model.notes["tag_column"] = data.tag_column
    if options.encoder is not None:
        notes.append(f"initial weights of the encoder: {model.system.initial_weights}")
    if memory := expected_memory(model, posts["train"], chosen.batch_size):
        notes.append(f"warning: {memory}")
    tasks = _tasks(settings, posts["train"], model, notes)
    collator, interleaved = model.collator(), chosen.schedule == "interleaved"
    notes += collator.evidence.notes(posts["train"])
    schedule = Schedule(tasks, chosen.batch_size, chosen.seed, collator.lengths, interleaved)
    card = card_writer(complete, {split: len(of_split) for split, of_split in posts.items()})
    trainer = Trainer(accelerator, model, schedule, chosen, run, stop, card)
    for note in (*notes, *(f"Task {task.name}: {counted(len(task), 'post')}" for task in tasks)):
        trainer.reporter.note(note)
    if accelerator.is_main_process:
        write_yaml(complete, run / "config.yaml")
    accelerator.wait_for_everyone()
    torch.cuda.manual_seed(chosen.seed + accelerator.process_index)  # not the same dropout in all
    name = run.resolve().name
    accelerator.init_trackers("rpbert", init_kwargs={"wandb": {"name": name, "dir": str(run)}})
    for tracker in accelerator.trackers:
        holding.callback(tracker.finish)
    if resume:
        trainer.resume()
    return trainer, posts["dev"]


def new_model(
    settings: RunSettings, device: str = "cpu"
) -> tuple[TaggingModel, dict[str, list[Post]], list[str]]:
    """The model before its first step, the posts by split, and notes on their choice."""
    options, data = parse_options(settings.model), settings.data
    set_seed(settings.training.seed)
    posts, notes = run_posts(data, registered(options.system).system.tags_words)
    if settings.start is None:
        model = TaggingModel.create(options, posts["train"], [*posts["dev"], *posts["test"]])
    else:
        model = TaggingModel.load(model_folder(settings.start))
        known, model = model.vocabulary.tags, model.grown(posts["train"])
        added = [tag[2:] for tag in model.vocabulary.tags[len(known) :: 2]]
        types = ", ".join(added) or "none"
        notes.append(f"goes on from {settings.start}, with its `model`; new types: {types}")
        model.notes = {"initial_weights": settings.start}
        if model.system.encoder is not None:
            model.system.encoder.initial_weights = settings.start
    return model, posts, notes


def of_start(settings: RunSettings) -> RunSettings:
    """The settings with those of the model to go on from, if there is one, as `model`."""
    if settings.start is None:
        return settings
    options = TaggingModel.load(model_folder(settings.start)).options
    return settings.model_copy(update={"model": options.model_dump(mode="json")})


def expected_memory(model: TaggingModel, posts: Sequence[Post], batch_size: int) -> str:
    """A line on the memory that very long posts or very many tags take; empty for usual ones.
    A step holds weights, gradients and Adam's moments, scores of each pair of tags, messages of the
    CRF for each word, and about 34 numbers of each layer and hidden unit for each sub-word."""
    longest, tags = max(posts, key=lambda post: len(post.words)), len(model.vocabulary.tags)
    words = len(longest.words)
    if words <= WORD_LIMIT and tags <= MANY_TAGS:
        return ""
    config: Any = getattr(model.system.encoder, "config", None)
    unit = 34 * config.hidden_size * config.num_hidden_layers if config is not None else 0
    numbers = 4 * sum(p.numel() for p in model.system.parameters()) + 2 * tags**2 * batch_size
    numbers += 10 * words * tags + 2 * unit * model.collator().lengths([longest])[0]
    size = f"{words:,} words in {longest.origin or longest.id} and {tags:,} tags"
    return f"{size}: a step may take some {4 * numbers / 2**30:,.1f} GiB of memory"


def learning_groups(
    settings: RunSettings, say: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Each group of parameters: its rate in each task, how many numbers, and names. `say` takes
    the estimated time of the run."""
    settings = of_start(settings)
    model, posts, notes = new_model(settings)
    chosen, accelerator = settings.training, accelerator_for(settings.training, Path())
    tasks = _tasks(settings, posts["train"], model, notes)
    schedule = Schedule(tasks, chosen.batch_size, chosen.seed, model.collator().lengths)
    say(estimate(chosen.epochs, _epoch_seconds(accelerator, model, schedule)))
    rates = {task.name: task.rates for task in tasks}
    names = {parameter: name for name, parameter in model.system.named_parameters()}
    return [
        {
            "group": group,
            "rates": {task: of_task[group] for task, of_task in rates.items() if group in of_task},
            "numbers": sum(parameter.numel() for parameter in parameters),
            "parameters": [names[p] for p in parameters if p.requires_grad],
            "frozen": [names[p] for p in parameters if not p.requires_grad],
        }
        for group, parameters in model.system.parameter_groups().items()
    ]


def _epoch_seconds(accelerator: Accelerator, model: TaggingModel, schedule: Schedule) -> float:
    """How long the steps of an epoch take, about: by the losses and gradients of a few of them."""
    system, collator, seconds = model.system.to(accelerator.device), model.collator(), 0.0
    for task in schedule.tasks:
        few, started = schedule.batches(task, 1)[:4], time.monotonic()
        for posts in few:
            with accelerator.autocast():
                losses = task.losses(system, collator.with_gold(posts).to(accelerator.device))
            accelerator.backward(losses.sum())
        seconds += (time.monotonic() - started) / len(few) * schedule.steps(task)
    return seconds


def accelerator_for(settings: TrainingSettings, run: Path) -> Accelerator:
    """Device, precision, processes and trackers of a run."""
    for tracker in sorted({*settings.track} - {*map(str, get_available_trackers())}):
        package = "'rpbert[track]'" if tracker == "tensorboard" else tracker
        raise InputError("training.track", f"no {tracker}", "it", f"pip install {package}")
    # Accelerate keeps one state a process: a second run may want another precision or device.
    AcceleratorState._reset_state(reset_partial_state=True)
    gpu = settings.device == "auto" and torch.cuda.is_available()
    precision = resolved(settings.precision, "cuda" if gpu else "cpu")
    accelerator = Accelerator(
        mixed_precision="bf16" if precision == "bf16" else "no",
        cpu=settings.device == "cpu",
        log_with=settings.track or None,
        project_config=ProjectConfiguration(str(run), str(run / "tensorboard")),
    )
    if accelerator.num_processes > 1:
        # Threads of the process group that outlive the interpreter can abort it.
        atexit.register(accelerator.end_training)
    return accelerator


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Same seed, machine and number of threads: the same weights, bit for bit, on a CPU.
    The gradient of indexing is otherwise added up by whichever thread comes first. On a GPU the
    fixed order is slow and not available for every operation."""
    memory: Any = deterministic
    before, fill = torch.get_deterministic_debug_mode(), memory.fill_uninitialized_memory
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        memory.fill_uninitialized_memory = False  # which takes time, and none is read unwritten
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        memory.fill_uninitialized_memory = fill


def run_posts(data: DataSettings, tags_words: bool) -> tuple[dict[str, list[Post]], list[str]]:
    """The posts of a run by split, and notes on their choice.
    A system that tags words takes those of `data.path`. One that only scores the relation takes the
    posts with a relation, of `data.relations` or else of `data.path`; labels without a development
    split, such as TRC's, hold out a tenth of the training posts for it. Of the test split the words
    alone are looked at, to find their vectors in a vector file."""
    where = data.path if tags_words else data.relations or data.path
    left_out, notes = LeftOut(), []
    faults = left_out if data.lenient else refuse
    source = open_data(where, None, faults, scheme=data.scheme, tag_column=data.tag_column)
    name = "train" if tags_words else training_split(source)

    def read(split: str) -> list[Post]:
        posts = islice(source.read(split), data.posts)
        return list(posts) if tags_words else related(posts)

    posts = {"train": read(name)}
    if not tags_words:
        unread = "; data.path is not read" if data.relations else ""
        notes.append(f"no tags are learnt in this system: Task#2 is skipped{unread}")
    if tags_words or "dev" in source.splits:
        posts["dev"] = read("dev")
    else:
        posts["dev"] = posts["train"][HELD_OUT - 1 :: HELD_OUT]
        posts["train"] = [p for n, p in enumerate(posts["train"], 1) if n % HELD_OUT]
        held_out = counted(len(posts["dev"]), "post")
        notes.append(f"{where} has no development split: {held_out} are held out for it")
    for split, of_split in posts.items():
        if not of_split:
            found = "no post" if tags_words else "no post with a relation"
            raise InputError(f"{where}, {split}", found, "tags" if tags_words else "relations")
        bare = next((p for p in of_split if tags_words and p.tags is None), None)
        if bare is not None:
            raise InputError(bare.origin or bare.id, "no tags", "tags or entities for training")
    posts["test"] = list(source.read("test")) if "test" in source.splits else []
    return posts, [*notes, *described(left_out)]


def _tasks(
    settings: RunSettings, posts: Sequence[Post], model: TaggingModel, notes: list[str]
) -> list[Task]:
    """Task#1 and Task#2, as far as the system and the data have them; notes say what is not."""
    training, data, system = settings.training, settings.data, model.system
    tagging = TaggingTask(posts, training.tagging, training.agreement, training.evidence_dropout)
    for key in ("agreement", "evidence_dropout"):
        if getattr(training, key) and (system.evidence is None or not system.tags_words):
            found = f"a system that {'reads text alone' if system.tags_words else 'tags no words'}"
            raise InputError(f"training.{key}", found, "one that tags words by text and evidence")
    if system.reads_relation and all(post.relation is None for post in posts):
        # It would show every image whole: an open gate by another name.
        found, hint = "oracle, and no training post with a relation", "or give another gate"
        raise InputError("model.gate", found, "relation labels in data.path", hint)
    if not system.has_relation:
        given = [key for key in ("relations", "relation_source") if getattr(data, key)]
        unread = "".join(f"; data.{key} is not read" for key in given)
        notes.append(f"no relation classifier in this system: Task#1 is skipped{unread}")
        return [tagging]
    if not system.tags_words:  # then `posts` are those of data.relations
        data = data.model_copy(update={"relations": None})
    marks, evidence = model.vocabulary.marks, model.collator().evidence
    supply = relation_posts(data, posts, marks, evidence, training.seed)
    model.notes |= {"relation_source": supply.description, "relation_is_learnt": bool(supply)}
    if not supply:
        if not system.tags_words:
            where = settings.data.relations or settings.data.path
            raise InputError(where, supply.description, "posts with evidence and a relation")
        consequence = "Task#1 is skipped, and the gate learns from Task#2's gradient"
        notes.append(f"{supply.description}: {consequence} through BERT alone")
        return [tagging]
    notes.append(supply.description)
    relation = RelationTask(supply.known, training.relation, supply.pairs, training.relation_weight)
    return [relation, tagging] if system.tags_words else [relation]


def _calibrate(trainer: Trainer, dev: Sequence[Post], folder: Path) -> None:
    """Fit the temperatures of the best model and save it with them."""
    best = TaggingModel.load(folder)
    found = fit_calibration(best, dev, str(trainer.accelerator.device))
    replace(best, calibration=found).save(folder)
    spans = f"{found.spans:.2f} for the scores of spans" if best.system.tags_words else ""
    learnt = best.system.has_relation and best.relation_is_learnt
    r = f"{found.relation:.2f} for r" if learnt else ""
    fitted = ", ".join(filter(None, (spans, r)))
    trainer.reporter.note(f"temperatures fitted on the development split: {fitted}")


def check_settings(settings: RunSettings, path: Path) -> None:
    """Check that a run is resumed with the settings (complete) of its RUN/config.yaml, `path`."""
    begun = complete_settings(load_run(path), parse_saved).model_dump(mode="json")
    for block, given in settings.model_dump(mode="json").items():
        now, then = (b if isinstance(b, dict) else {block: b} for b in (given, begun[block]))
        every = sorted({*now, *then} - _MAY_CHANGE)
        changed = [key for key in every if now.get(key) != then.get(key)]
        if changed:
            was = (f"{key} ({then.get(key)!a:.80}, now {now.get(key)!a:.80})" for key in changed)
            found = f"other settings of {block}: {', '.join(was)}"
            hint = "resume with the same settings, or train into another --output"
            raise InputError(path, found, "those the run began with", hint)


def complete_settings(
    settings: RunSettings, parse: Callable[[dict[str, Any]], SystemSettings] = parse_options
) -> RunSettings:
    """The settings with every default of the system spelt out, as RUN/config.yaml has them."""
    options = parse(settings.model)
    return settings.model_copy(update={"model": options.model_dump(mode="json")})


def _claim(run: Path, settings: RunSettings, resume: bool) -> None:
    """Check that RUN can be written and is no other run."""
    config = run / "config.yaml"
    begun = config.exists() or (run / "metrics.jsonl").exists()
    if begun and not resume:
        hint = "give --resume to go on or another --output"
        raise InputError(run, "an earlier run", "a new folder", hint)
    if resume and not begun:
        raise InputError(run, "no run", "the folder of a run to resume", "leave out --resume")
    check_writable(run, "RUN")
    if config.exists():
        check_settings(settings, config)
    if resume:
        recover(run / "model")
