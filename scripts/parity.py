"""This project beside its authors' own code, with the same random weights.

    python -W ignore scripts/parity.py GITDIR ...

GITDIR is a clone or bare repository of Multimodal-NER/RpBERT or jefferyYu/UMT; its modules are read
from git into memory and run. One post with an image goes through tiny models of both. Printed are
the largest differences, "equal" after what docs/readings.md names is made equal in their model.
"""

import importlib.machinery
import os
import re
import subprocess
import sys
import types
from typing import Any
from unittest.mock import MagicMock

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import BertModel

from rpbert.evidence.networks import ResNetBlocks
from rpbert.integrations.convert import translate_resnet
from rpbert.models import parse_options
from rpbert.models.saved import TaggingModel
from rpbert.types import Batch, Post, VisualTokens

WORDS = ("ada", "lovelace", "sees", "lake", "como", "and", "acme", "ulysses", "!")
TAGS = ("B-PER", "I-PER", "O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-MISC", "I-MISC")
WIDTH = 32
SHAPE = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"intermediate_size": 48, "max_position_embeddings": 96}
RESNET = {"hidden_sizes": [256, 512, 1024, 2048], "depths": [1] * 4, "layer_type": "bottleneck"}
VL_BERT = {"visual_ln": True, "visual_scale_text_init": 0.0, "visual_scale_object_init": 0.0}
VL_BERT |= {"position_padding_idx": -1, "obj_pos_id_relative": True, "with_pooler": False}
VL_BERT |= {"word_embedding_frozen": False, "type_vocab_size": 3, "visual_size": WIDTH}  # of cfgs/
ABSENT = ["flair", "torchvision", "torchcrf", "pytorch_pretrained_bert", "boto3", "botocore"]


class Commit:
    """The modules of a commit, each read when it is imported; an absent package is a mock."""

    def __init__(self, folder: str, commit: str) -> None:
        self.git, self.commit, self.top = ["git", "-C", folder], commit, f"authors_{commit}"
        files = self.read("ls-tree", "-r", "--name-only", commit).splitlines()
        self.files = {f"{self.top}/{name}".removesuffix(".py").replace("/", ".") for name in files}
        own = {name.split(".")[1] for name in self.files}
        self.names = "|".join([*filter(str.isidentifier, own), *ABSENT])
        sys.meta_path.insert(0, self)

    def read(self, *command: str) -> str:
        return subprocess.check_output([*self.git, *command], text=True)

    def __call__(self, name: str) -> Any:
        return importlib.import_module(f"{self.top}.{name}")

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        found = importlib.machinery.ModuleSpec(name, self, is_package=name not in self.files)
        return found if name.partition(".")[0] == self.top else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        return None if spec.name in self.files else MagicMock()

    def exec_module(self, module: Any) -> None:
        name = module.__name__
        path = f"{self.commit}:{name.partition('.')[2].replace('.', '/')}.py"
        source = self.read("show", path) if name in self.files else ""
        source = re.sub(rf"(?m)^(\s*from )({self.names})\b", rf"\1{self.top}.\2", source)
        source = re.sub(rf"(?m)^(\s*import )({self.names})$", rf"\1{self.top}.\2 as \2", source)
        module.print = lambda *_: None
        exec(compile(source, path, "exec"), module.__dict__)


class Sentence(list[Any]):
    """A sentence of flair's, as far as the programs use it."""

    tokens = property(lambda self: self, list.extend)
    to_tokenized_string = property(lambda self: lambda: " ".join(WORDS))


class Token:
    """A token of flair's with its vectors: e_k, then what the program adds."""

    def __init__(self, number: int, e_k: Tensor) -> None:
        self.text, self.idx, self.embedding, seen = WORDS[number], number, e_k[number], []
        self.set_embedding = lambda _, vector: seen.append(vector)
        self.get_each_embedding = lambda: [self.embedding, *seen]


def model_of(**settings: Any) -> tuple[Any, Batch]:
    """A tiny model of this project and the post, with weights at which nothing is near zero."""
    torch.manual_seed(0)
    picture = Image.fromarray(torch.randint(256, (224, 224, 3), dtype=torch.uint8).numpy())
    post = Post.from_words("1", WORDS, tags=TAGS, image=picture)
    encoder, evidence = {"shape": SHAPE, "vocabulary": 200}, {"blocks": {"shape": RESNET}}
    options = parse_options({"encoder": encoder, "evidence": evidence, **settings})
    model = TaggingModel.create(options, [post, post])
    for name, parameter in model.system.eval().named_parameters():
        if not name.startswith("evidence"):
            nn.init.normal_(parameter, float("orm.weight" in name), 0.2)
    return model, model.collator()([post])


def give(there: nn.Module, here: nn.Module) -> None:
    """The weights of a module here; what it lacks, such as a bias of W^v, is 0."""
    for parameter in there.parameters():
        parameter.data.zero_()
    there.load_state_dict(here.state_dict(), strict=False)


def watched(module: nn.Module, taken: bool = False) -> list[Tensor]:
    """What each call of a module gives, or takes as its first argument."""
    seen: list[Tensor] = []
    module.register_forward_hook(lambda _, at, to: seen.append((at[0] if taken else to).clone()))
    return seen


def ours(commit: Commit, model: Any, batch: Batch) -> tuple[Any, Tensor, dict[str, Tensor]]:
    """The authors' ResNet, whose weights the model gets, its pixels, and what RpBERT computes."""
    code, system = commit("rpbert.resnet_model"), model.system
    resnet = code.ResNet(code.Bottleneck, RESNET["depths"]).eval()
    (network,) = (m for m in system.evidence.modules() if isinstance(m, ResNetBlocks))
    network.resnet.load_state_dict(translate_resnet(resnet.state_dict(), "theirs")[0].tensors)
    pixels, found = watched(network, taken=True), {}
    text, image = system.encoder.embed(batch.subwords), system.blocks(batch)
    score = system.relation_score(batch, text, image)

    def encode(text: Tensor, mask: Tensor, rows: VisualTokens | None) -> Tensor:
        found["masked input of layer 1"] = system.encoder.embedded(text, mask, rows).hidden
        found["states of the text"] = system.encoder(text, mask, rows)
        return found["states of the text"]

    emissions = system.read(batch, text, image, score, encode).emissions
    found = {"blocks": image.values[:, 0], "r": score, **found, "emissions": emissions}
    return resnet, pixels[0], found


def report(name: str, mine: dict[str, Tensor], *theirs: Tensor) -> None:
    for (what, value), other in zip(mine.items(), theirs, strict=True):
        far = float((value - other[:, : value.shape[1]]).abs().max())
        print(f"{name:<23}{what:<25}{far:.1e}  of values up to {float(value.abs().max()):.1f}")


def program_2021(code: Commit) -> None:
    tagger, acts = {"lstm_hidden": 256, "lstm_layers": 3}, {"acts": "input"}
    model, batch = model_of(system="rpbert", tagger=tagger, propagation=acts)
    system, bert = model.system, model.system.encoder.bert
    resnet, pixels, mine = ours(code, model, batch)
    reader, mner = code("rpbert.resnet_vlbert"), code("mner")
    config = types.SimpleNamespace(**bert.config.to_dict() | VL_BERT)
    theirs = reader.VisualLinguisticBert(config)
    seen, whole = nn.Module(), nn.Module()  # without their constructors, which read files
    seen.__class__, whole.__class__, whole.name = reader.ResNetVLBERT, mner.MNER, "bert"
    seen.config = types.SimpleNamespace(NETWORK=types.SimpleNamespace(VLBERT=config))
    seen.pre_resnet, seen.vlbert, whole.pooling_operation = resnet, theirs, "first"
    seen.object_visual_embeddings = nn.Linear(2048, WIDTH)
    seen.object_linguistic_embeddings = nn.Embedding(1, WIDTH)
    reads, relation = system.tagger.lstm.input_size, code("rpbert.bert_rel").BertRel(None, seen)
    relation.pair_preject = classifier = nn.Linear(WIDTH, 2)
    whole.pretrain_model, whole.embeddings = relation, types.SimpleNamespace(embed=len)
    whole.projection, mner.flair.device = system.tagger.to_tags, "cpu"
    whole.lstm, whole.dropout = nn.LSTM(reads, 256, 3, bidirectional=True), nn.Identity()
    whole.tokenizer, whole.input_embeddding_size = model.tokenizer, reads
    give(theirs.encoder, bert.encoder)
    give(seen.object_visual_embeddings, system.projection)
    give(whole.lstm, system.tagger.lstm)
    # Made equal: random tables, segments, gain 0, the vector beside each block, the first class.
    give(theirs.word_embeddings, bert.embeddings.word_embeddings)
    give(theirs.position_embeddings, bert.embeddings.position_embeddings)
    give(theirs.embedding_LayerNorm, bert.embeddings.LayerNorm)
    theirs.token_type_embeddings.weight[1:] = bert.embeddings.token_type_embeddings.weight
    theirs.visual_ln_object = nn.Identity()
    seen.object_linguistic_embeddings.weight.zero_()
    for there, here in zip(classifier.parameters(), system.classifier.parameters(), strict=True):
        there.copy_(here.flip(0))
    blocks, first = watched(seen.object_visual_embeddings), watched(theirs.encoder.layer[0], True)
    last, e_k = watched(theirs.encoder.layer[-1].output), system.embeddings(batch)[0]
    post = [Sentence(Token(n, e_k) for n in range(9))], pixels, torch.tensor([9]), None
    score = whole.eval()(None, *post).softmax(-1)
    emissions = whole(None, *post, score)[0].transpose(0, 1)
    report("RpBERT 2021, equal", mine, blocks[0], score[:, 0], first[1], last[1], emissions)


def program_2022(before: Commit, code: Commit, equal: bool) -> None:
    settings = {"tagger": {"lstm_hidden": 256}, "propagation": {"acts": "before_norm"}}
    model, batch = model_of(system="rpbert", **settings)
    system = model.system
    if equal:  # each block has a position of its own there
        places = system.encoder.bert.embeddings.position_embeddings.weight
        places[batch.subwords.shape[1] :] = places[-1].clone()
    resnet, pixels, mine = ours(before, model, batch)
    module, data, e_k = code("model.model"), code("data.dataset"), system.embeddings(batch)[0]
    module.FlairToken = lambda text: Token(WORDS.index(text), e_k)
    module.FlairSentence = lambda _: Sentence()
    bert = BertModel(system.encoder.bert.config).eval()
    words = types.SimpleNamespace(embed=len, embedding_length=e_k.shape[1])
    parts = model.tokenizer, bert, WIDTH, resnet, 2048, words, True, None, True
    theirs = module.MyModel(torch.device("cpu"), *parts).eval()
    give(bert, system.encoder.bert)
    give(theirs.proj, system.projection)
    give(theirs.aux_head, system.classifier)
    give(theirs.head, system.tagger.to_tags)
    give(theirs.rnn, system.tagger.lstm)
    for matrix in (theirs.rnn.weight_ih_l0, theirs.rnn.weight_ih_l0_reverse):
        matrix.copy_(matrix.roll(WIDTH, dims=1))  # BERT's vector comes first there
    blocks, logits, emissions = map(watched, (theirs.proj, theirs.aux_head, theirs.head))
    first, last = watched(bert.encoder.layer[0], taken=True), watched(bert.encoder.layer[-1].output)
    image, sentence = data.MyImage(""), data.MySentence([data.MyToken(w, 0) for w in WORDS])
    image.data = pixels[0]
    theirs.ner_forward([data.MyPair(sentence, image)])
    name, r = f"RpBERT 2022, {'equal' if equal else 'as it is'}", logits[0].softmax(-1)[:, 1:]
    report(name, mine, blocks[0], r, first[1], last[1], emissions[0])


def umt(code: Any) -> None:
    model, batch = model_of(system="umt")
    system, bert, mask = model.system, model.system.encoder.bert, batch.subword_mask
    config, tags = code.BertConfig(bert.config.vocab_size, **SHAPE), system.to_tags.out_features
    theirs = code.MTCCMBertForMMTokenClassificationCRF(config, num_labels=tags, auxnum_labels=3)
    layers = {"self_attention": "read_for_spans", "self_attention_v2": "read_for_tags"}
    layers |= {"img2txt_attention": "words_to_image", "txt2txt_attention": "image_to_words"}
    for there, here in {**layers, "txt2img_attention": "look"}.items():
        give(getattr(theirs, there).layer[0], getattr(system, here).layer)
    maps = theirs.bert, theirs.vismap2text, theirs.vismap2text_v2, theirs.gate
    for there, here in zip(maps, (bert, *system.projection, system.gate), strict=True):
        give(there, here)
    give(theirs.classifier, system.to_tags)
    give(theirs.aux_classifier, system.to_spans)
    theirs.crf.decode = lambda emissions, mask: emissions
    blocks, seen = torch.randn(1, 49, 2048), torch.ones(1, 49 + mask.shape[1]).long()
    hidden = system.encoder(system.encoder.embed(batch.subwords), mask, None)  # words there
    joined = system.join(hidden, mask, blocks, seen[:, :49].bool())
    spans = system.to_spans(system.read_for_spans(hidden, hidden, mask)) @ system.conversion
    mine = {"emissions": (system.to_tags(joined) + spans) / 2}  # λ = 0.5
    post = (batch.subwords, 0 * batch.subwords, mask.long(), seen, blocks.transpose(1, 2))
    report("UMT", mine, theirs.eval()(*post, system.conversion))


if __name__ == "__main__":
    if not sys.argv[1:] or not all(map(os.path.isdir, sys.argv[1:])):
        sys.exit("parity.py: expected clones of Multimodal-NER/RpBERT or jefferyYu/UMT")
    with torch.no_grad():
        for folder in sys.argv[1:]:
            head = Commit(folder, "HEAD")
            if f"{head.top}.my_bert.mner_modeling" in head.files:
                umt(head("my_bert.mner_modeling"))
            else:
                before, after = Commit(folder, "f18e8e1"), Commit(folder, "4849840")
                program_2021(before)
                for equal in (True, False):
                    program_2022(before, after, equal)
