"""The registry: every system by name, with the paper it is from and the row it fills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rpbert.config.reading import parse
from rpbert.errors import InputError, did_you_mean
from rpbert.evidence import KINDS
from rpbert.models.adaptive_coattention import AdaptiveCoAttention
from rpbert.models.bilstm_crf import BertTagger, BiLstmCrfTagger
from rpbert.models.build import Builder
from rpbert.models.gated_fusion import GatedFusion
from rpbert.models.image_at_t0 import ImageAtT0
from rpbert.models.lxmert import LxmertEncoder
from rpbert.models.modality_attention import ModalityAttention
from rpbert.models.rpbert import RpBert
from rpbert.models.tagger import System, SystemSettings
from rpbert.models.umt import Umt
from rpbert.models.uniter import UnicoderVlEncoder, UniterEncoder
from rpbert.models.vilbert import VilbertEncoder
from rpbert.models.vision_language import VisionLanguageTagger
from rpbert.models.visual_attention import LstmCnn, VisualAttention
from rpbert.models.visualbert import VisualBertEncoder
from rpbert.models.vl_bert import VlBertEncoder

ANY = tuple(KINDS)
TEXTS = tuple(name for name, kind in KINDS.items() if kind.is_text)
REGIONS = ("regions", "blocks", "global", *TEXTS)
POOLED = ("global", "blocks", "regions", *TEXTS)
_of = VisionLanguageTagger.of


@dataclass(frozen=True, slots=True)
class Registered:
    """A system and where it comes from."""

    system: type[System]
    paper: str
    row: str  # that it fills in the RpBERT paper's tables
    evidence: tuple[str, ...] = ()  # the kinds it takes, its paper's own first
    combines: bool = False  # whether it takes several kinds at once, or a second sentence


SYSTEMS: dict[str, Registered] = {
    "bilstm_crf": Registered(BiLstmCrfTagger, "Lample et al. 2016", "Table 4: biLSTM-CRF"),
    "image_at_t0": Registered(
        ImageAtT0, "Vinyals et al. 2015", "Table 4: biLSTM-CRF w/ image at t = 0", POOLED
    ),
    "modality_attention": Registered(
        ModalityAttention, "Moon et al. 2018", "none, as Table 4: at the input", POOLED
    ),
    "visual_attention": Registered(
        VisualAttention, "Lu et al. 2018", "Table 4: Lu et al. (2018)", ANY
    ),
    "adaptive_coattention": Registered(
        AdaptiveCoAttention, "Zhang et al. 2018", "Table 4: Zhang et al. (2018)", ANY
    ),
    "gated_fusion": Registered(
        GatedFusion, "Arshad et al. 2019", "Table 5: Arshad et al. (2019)", ANY
    ),
    "bert": Registered(BertTagger, "Devlin et al. 2019", "Table 4: biLSTM-CRF + BERT"),
    "umt": Registered(Umt, "Yu et al. 2020", "Table 5: Yu et al. (2020)", ANY),
    "visualbert": Registered(
        _of(VisualBertEncoder), "Li L. et al. 2019", "none, as Table 5: one stream", REGIONS
    ),
    "unicoder_vl": Registered(
        _of(UnicoderVlEncoder), "Li G. et al. 2020", "none, as Table 5: one stream", REGIONS
    ),
    "uniter": Registered(
        _of(UniterEncoder), "Chen et al. 2020", "Table 5: biLSTM-CRF + UNITER", REGIONS
    ),
    "vl_bert": Registered(
        _of(VlBertEncoder), "Su et al. 2020", "Table 5: biLSTM-CRF + VL-BERT", REGIONS
    ),
    "vilbert": Registered(
        _of(VilbertEncoder), "Lu J. et al. 2019", "Table 5: biLSTM-CRF + ViLBERT", REGIONS
    ),
    "lxmert": Registered(
        _of(LxmertEncoder), "Tan and Bansal 2019", "none, as Table 5: two streams", REGIONS
    ),
    "rpbert": Registered(RpBert, "Sun et al. 2021", "Tables 3-6: biLSTM-CRF + RpBERT", ANY, True),
    "lstm_cnn": Registered(
        LstmCnn, "Lu et al. 2018", "Table 3: Lu et al. (2018), relation only", POOLED
    ),
}


def registered(name: object, where: object = "model.system") -> Registered:
    """The entry of a system. Raises InputError: no system of that name."""
    if not isinstance(name, str) or name not in SYSTEMS:
        hint = did_you_mean(name, SYSTEMS)
        raise InputError(where, f"system {name}", f"one of {', '.join(SYSTEMS)}", hint)
    return SYSTEMS[name]


def parse_options(given: dict[str, Any], where: object = "model") -> SystemSettings:
    """Validate the ``model`` block of a run by the settings its system reads.
    Raises InputError: an unknown system, a key the system does not read, a value not accepted, or a
    kind of evidence that the system does not take."""
    entry = registered(given.get("system"), where)
    options = parse(entry.system.Options, given, where)
    kinds = list(options.evidence.kinds) if options.evidence else []
    found = f"{' and '.join(kinds)} as evidence for {options.system}"
    if not set(kinds) <= set(entry.evidence):
        raise InputError(where, found, " or ".join(entry.evidence))
    combining = " or ".join(name for name, other in SYSTEMS.items() if other.combines)
    if len(kinds) > 1 and not entry.combines:
        raise InputError(where, found, "one kind", f"{combining} combines several")
    behind = options.evidence and any(k.behind_text for k in options.evidence.kinds.values())
    if behind and not entry.combines:
        hint = f"{combining} reads a second sentence"
        raise InputError(where, f"a second sentence for {options.system}", "visual_tokens", hint)
    return options


def parse_saved(given: dict[str, Any], where: object = "model") -> SystemSettings:
    """`parse_options` of what a model or a run was saved with: a key that came later has the value
    by which the version before it worked."""
    own = given.get("propagation", {})
    if given.get("system") == "rpbert" and isinstance(own, dict):
        given = {**given, "propagation": {"acts": "before_norm", **own}}
    return parse_options(given, where)


def build(options: SystemSettings, builder: Builder) -> System:
    """Make the system that `options` describe."""
    kind: Any = registered(options.system).system
    system: System = kind(options, builder)
    return system
