"""The tokenizer of a run for programs that know transformers alone: `AutoTokenizer` gives a model's inputs."""

from __future__ import annotations

from typing import Any

from accl.data.tokenizer import FAST, SPM, Tokenizer

# The normalisation of a sentencepiece model by its rules; what transformers makes of one leaves these out.
_MANY_BLANKS = " {2,}"


def plain_tokenizer(tokenizer: Tokenizer, max_length: int) -> Any:
    """Return a transformers tokenizer that puts one or two texts between the special tokens as training does.

    It gives ``input_ids`` and ``attention_mask`` and no ``token_type_ids``, which training does not use.

    Args:
        max_length: of an input in tokens, for whoever asks it to truncate.
    """
    from tokenizers import Tokenizer as Fast
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    files = tokenizer.files
    fast = Fast.from_str(files[FAST].decode()) if FAST in files else _from_spm(files)
    fast.no_truncation()
    fast.no_padding()
    ids = {"cls_token": tokenizer.cls_id, "sep_token": tokenizer.sep_id, "pad_token": tokenizer.pad_id}
    names = {key: str(fast.id_to_token(token)) for key, token in ids.items()}
    first, last = names["cls_token"], names["sep_token"]
    fast.post_processor = TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:0 {last}:0",
        special_tokens=[(first, tokenizer.cls_id), (last, tokenizer.sep_id)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=max_length,
        **names,
    )


def _from_spm(files: dict[str, bytes]) -> Any:
    """Return the tokenizer of a sentencepiece model of the kind that DeBERTa-v2 and -v3 have (unigram)."""
    import json

    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Fast

    model = sentencepiece_model_pb2.ModelProto.FromString(files[SPM])
    fast = Fast(models.Unigram([(piece.piece, piece.score) for piece in model.pieces], model.trainer_spec.unk_id))
    rules: list[Any] = (
        [normalizers.Lowercase()] if json.loads(files["tokenizer_config.json"]).get("do_lower_case") else []
    )
    if model.normalizer_spec.precompiled_charsmap:
        rules.append(normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap))
    rules += [normalizers.Strip(), normalizers.Replace(Regex(_MANY_BLANKS), " ")]
    fast.normalizer = normalizers.Sequence(rules)
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    fast.decoder = decoders.Metaspace(prepend_scheme="always")
    return fast
