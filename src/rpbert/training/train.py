"""Training from settings: what is checked, read and built before the loop."""

from __future__ import annotations

import atexit
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from rpbert.backends import resolved
from rpbert.config.run import RunSettings, TrainingSettings, write_yaml
from rpbert.config.yaml_file import read_yaml
from rpbert.errors import InputError, counted
from rpbert.evaluation.calibration import fit_calibration
from rpbert.evidence.describers import describers
from rpbert.models import parse_options, registered
from rpbert.storage.manifest import recover
from rpbert.storage.model_folder import TaggingModel
from rpbert.storage.writing import check_writable
from rpbert.training.card import card_writer
from rpbert.training.progress import Reporter
from rpbert.training.repeatable import repeatable, seed_everything
from rpbert.training.stopping import StopSignals
from rpbert.training.task_posts import RunPosts, related_posts, relation_posts, tagged_posts
from rpbert.training.tasks import SCHEDULES, RelationTask, Schedule, TaggingTask, Task
from rpbert.training.trainer import Trainer, TrainingResult

# Settings of `training` that decide what is kept and shown, and nothing of the weights.
_MAY_CHANGE = {"keep_checkpoints", "checkpoint_minutes", "checkpoint_steps", "tensorboard"}


def train(settings: RunSettings, run: Path, *, resume: bool = False) -> TrainingResult:
    """Train the system that `settings` describe and write RUN.

    SIGTERM and Ctrl-C save a checkpoint and raise `KeyboardInterrupt`.

    Raises:
        InputError: settings, data or RUN cannot be used, or the disk is full.
    """
    with StopSignals() as stop:
        return _train(settings, run, resume, stop)


def _train(settings: RunSettings, run: Path, resume: bool, stop: StopSignals) -> TrainingResult:
    options = parse_options(settings.model)
    accelerator = accelerator_for(settings.training)
    complete = complete_settings(settings)
    if accelerator.is_main_process:
        _claim(run, resume)
    seed_everything(settings.training.seed)
    tags_words = registered(options.system).system.tags_words
    posts = tagged_posts(settings.data) if tags_words else related_posts(settings.data)
    reporter = Reporter(run, settings.training, shown=accelerator.is_main_process)
    model = TaggingModel.create(options, posts.train, [*posts.dev, *posts.test])
    data, device = settings.data, str(accelerator.device)
    model.describers = describers(options, data.captioner, data.ocr, device)
    if model.describers:
        model.notes["described_by"] = {"captioner": data.captioner, "ocr": data.ocr}
    if options.encoder is not None:
        reporter.note(f"initial weights of the encoder: {model.system.initial_weights}")
    schedule = _schedule(settings, posts, model, reporter)
    counts = {"training": len(posts.train), "development": len(posts.dev), "test": len(posts.test)}
    card = card_writer(complete, counts)
    trainer = Trainer(accelerator, model, schedule, settings.training, run, stop, card)
    if accelerator.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        if (run / "config.yaml").exists():
            check_settings(complete, run / "config.yaml")
        write_yaml(complete, run / "config.yaml")
    accelerator.wait_for_everyone()
    if resume:
        trainer.resume(reporter)
    with reporter, repeatable(accelerator.device):
        result = trainer.fit(posts.dev, reporter)
        if accelerator.is_main_process:
            # What made captions in training makes them here too: it is not saved.
            best = replace(TaggingModel.load(result.model), describers=model.describers)
            found = fit_calibration(best, posts.dev, str(accelerator.device))
            replace(best, calibration=found).save(result.model)
            scores = {"the scores of spans": found.spans} if best.system.tags_words else {}
            relation = {"r": found.relation} if best.system.has_relation else {}
            fitted = ", ".join(f"{t:.2f} for {name}" for name, t in {**scores, **relation}.items())
            reporter.note(f"temperatures fitted on the development split: {fitted}")
        return result


def _schedule(
    settings: RunSettings, posts: RunPosts, model: TaggingModel, reporter: Reporter
) -> Schedule:
    """The tasks that system and data allow, and why one is left out."""
    tasks, notes = _tasks(settings, posts, model)
    for note in (*posts.notes, *notes):
        reporter.note(note)
    for task in tasks:
        reporter.note(f"Task {task.name}: {counted(len(task), 'post')}")
    chosen = SCHEDULES[settings.training.schedule]
    batch_size, seed = settings.training.batch_size, settings.training.seed
    return chosen(tasks, batch_size, seed, model.collator().lengths)


def accelerator_for(settings: TrainingSettings) -> Accelerator:
    """Device, precision and processes of a run."""
    # Accelerate keeps one state a process, and a second run in it may want another precision.
    AcceleratorState._reset_state()
    gpu = settings.device == "auto" and torch.cuda.is_available()
    precision = resolved(settings.precision, "cuda" if gpu else "cpu")
    accelerator = Accelerator(
        mixed_precision="bf16" if precision == "bf16" else "no",
        cpu=settings.device == "cpu",
    )
    if accelerator.num_processes > 1:
        # Threads of the process group that outlive the interpreter can abort it.
        atexit.register(accelerator.state.destroy_process_group)
    return accelerator


def _tasks(
    settings: RunSettings, posts: RunPosts, model: TaggingModel
) -> tuple[list[Task], list[str]]:
    """Task#1 and Task#2, as far as the system and the data have them, and what is left out."""
    training, evidence = settings.training, model.collator().evidence
    tagging = TaggingTask(posts.train, training.tagging)
    if model.system.reads_relation and all(p.relation is None for p in posts.train):
        # It would show every image whole, and be an open gate by another name.
        found, hint = "oracle, and no training post with a relation", "or give another gate"
        raise InputError("model.gate", found, "relation labels in data.path", hint)
    if not model.system.has_relation:
        given = [key for key in ("relations", "relation_source") if getattr(settings.data, key)]
        unread = "".join(f"; data.{key} is not read" for key in given)
        return [tagging], [f"no relation classifier in this system: Task#1 is skipped{unread}"]
    marks, data = model.vocabulary.marks, settings.data
    if not model.system.tags_words:  # then these are the training posts
        data = data.model_copy(update={"relations": None})
    supply = relation_posts(data, posts.train, marks, evidence, training.seed)
    model.notes["relation_source"] = supply.told
    if not supply and not model.system.tags_words:
        where = settings.data.relations or settings.data.path
        raise InputError(where, supply.told, "posts with evidence and a relation")
    if not supply:
        consequence = "Task#1 is skipped, and the gate learns from Task#2's gradient"
        return [tagging], [f"{supply.told}: {consequence} through BERT alone"]
    relation = RelationTask(supply.known, training.relation, supply.pairs, training.relation_weight)
    return [relation, *([tagging] if model.system.tags_words else [])], [supply.told]


def check_settings(settings: RunSettings, path: Path) -> None:
    """See that a run that goes on has the settings it began with.

    Args:
        settings: complete, as RUN/config.yaml has them.
        path: that file.

    Raises:
        InputError: others.
    """
    begun = read_yaml(path)
    for block, keys in settings.model_dump(mode="json").items():
        before = begun.get(block)
        if isinstance(keys, dict) and isinstance(before, dict):
            every = sorted({*keys, *before} - _MAY_CHANGE)
            changed = [key for key in every if before.get(key) != keys.get(key)]
        else:
            changed = [block] if before != keys else []
        if changed:
            raise InputError(
                path,
                f"other settings of {block}: {', '.join(changed)}",
                "those the run began with",
                "resume with the same settings, or train into another --output",
            )


def complete_settings(settings: RunSettings) -> RunSettings:
    """The settings with every default of the system spelt out, as RUN/config.yaml has them."""
    options = parse_options(settings.model)
    return settings.model_copy(update={"model": options.model_dump(mode="json")})


def _claim(run: Path, resume: bool) -> None:
    """See that RUN can be written and is no other run; it is made once the run can begin."""
    begun = (run / "metrics.jsonl").exists() or (run / "config.yaml").exists()
    if begun and not resume:
        raise InputError(
            run, "an earlier run", "a new folder", "give --resume to go on or another --output"
        )
    if resume and not begun:
        raise InputError(run, "no run", "the folder of a run to resume", "leave out --resume")
    if resume:
        recover(run / "model")
    check_writable(run, "RUN")
