"""The mask X-ray: the tokens of a conversation by role, label and loss, for any chat template."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from sftlab.chat import Messages, Template, TemplateError, find_template, frozen_clock
from sftlab.chat import labels as make_labels
from sftlab.measure import token_losses
from sftlab.show.mask_tokens import check_labels, flat, regions_of, tokens_of, tokens_of_ids
from sftlab.show.xray import Xray

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sftlab.train import Run

__all__ = ["Xray", "show_mask"]


def show_mask(
    messages: Messages | None = None,
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    template: "str | Template | None" = None,
    tools: Sequence[Any] | None = None,
    turns: Literal["all", "last", "everything"] = "all",
    start: Literal["content", "generation"] = "content",
    end_of_turn: bool = True,
    append_eos: bool = False,
    max_length: int | None = None,
    ids: Sequence[int] | None = None,
    labels: Sequence[int] | None = None,
    model: "PreTrainedModel | Run | None" = None,
    after: "PreTrainedModel | Run | None" = None,
) -> Xray:
    """Paint which tokens of a conversation a model learns, and how well it knows them.

        show_mask(messages, tokenizer=tokenizer, template="llama-3")     the lab's mask
        show_mask(messages, tokenizer=tokenizer, labels=mine)            a mask made by hand
        show_mask(ids=ids, labels=mine, tokenizer=tokenizer)             of bare tokens
        show_mask(messages, tokenizer=tokenizer, model=base, after=run)  losses before and after

    Args:
        messages: the conversation; or else `ids`.
        tokenizer: a fast one; by default that of the run.
        template: whatever `find_template` knows; None is the tokenizer's own, or ChatML where it
            has none (as in `finetune`).
        tools: as for `Template.render`.
        turns: every answer is supervised, the last one, or each token, the questions' too.
        start: as for `assistant_spans`, and so `end_of_turn` and `append_eos`.
        max_length: tokens to keep, from the beginning.
        ids: tokens of one conversation.
        labels: one for each token, unshifted, -100 where nothing is learned; by default the
            template tells.
        model: a model or run whose loss of each token is shown.
        after: another, such as the same one after training; the first is then called before.

    Raises:
        ValueError: arguments that don't fit together; TemplateError, a subclass, when the template
            refuses the conversation.
    """
    if (messages is None) == (ids is None):
        raise ValueError("give the messages of a conversation, or its ids: one of the two")
    if after is not None and model is None:
        raise ValueError("after is compared with model: give both, or only model")
    given = [one for one in (model, after) if one is not None]
    runs = [one for one in given if hasattr(one, "tokenizer")]  # a plain model has none
    if tokenizer is None and runs:
        tokenizer = runs[-1].tokenizer
    if tokenizer is None:
        raise ValueError("whose tokens? give the tokenizer")
    mine = None if labels is None else flat(labels, "labels")
    if ids is not None:
        xray = _of_ids(flat(ids, "ids"), mine, tokenizer)
    else:
        if turns == "everything" and mine is not None:
            raise ValueError("turns='everything' makes the labels itself: leave labels out")
        options = {"tools": tools, "start": start, "end_of_turn": end_of_turn,
                   "append_eos": append_eos, "max_length": max_length}  # fmt: skip
        options["turns"] = "all" if turns == "everything" else turns
        xray = _of_messages(messages, mine, tokenizer, template, options)
        if turns == "everything":
            xray = replace(xray, tokens=tuple(replace(t, label=t.id) for t in xray.tokens))
    return _with_losses(xray, [one.model if one in runs else one for one in given])


def _of_ids(ids: list[int], labels: list[int] | None, tokenizer: "PreTrainedTokenizerBase") -> Xray:
    warnings = () if labels is None else tuple(check_labels(ids, labels))
    tokens = tuple(tokens_of_ids(ids, labels, tokenizer))
    return Xray(tokens=tokens, text="".join(token.text for token in tokens), warnings=warnings)


def _of_messages(
    messages: Sequence[Mapping[str, Any]],
    labels: list[int] | None,
    tokenizer: "PreTrainedTokenizerBase",
    template: "str | Template | None",
    options: dict[str, Any],
) -> Xray:
    if template is None and not tokenizer.chat_template:
        template = "chatml"
    found = find_template(template, tokenizer=tokenizer)
    with frozen_clock():  # the render is the same each time
        try:
            made = make_labels(
                tokenizer, messages, template=found, on_empty="keep", on_full="keep", **options
            )
        except TemplateError as error:  # there are no rows here
            raise TemplateError(str(error).removeprefix("row 0: ")) from error
        regions, end, warnings = regions_of(found, messages, tools=options["tools"])
    regions += [(span.start, span.end, "assistant") for span in made.spans]
    warnings = [*made.warnings, *warnings]
    if made.removed:
        warnings.append(f"the cut to {options['max_length']} tokens lost {made.removed} supervised")
    if made.straddling:
        warnings.append(
            f"{len(made.straddling)} tokens hold a piece of an answer and a piece of what is not, "
            "and are not supervised"
        )
    if labels is not None:
        warnings += check_labels(made.ids, labels)
        made = replace(made, labels=labels)
    elif not made.supervised:
        warnings.append("nothing is supervised, so a model would learn nothing from this row")
    return Xray(
        tokens=tuple(tokens_of(made, tokenizer, regions)),
        template=found.name if template else "the tokenizer's own",  # not a machine's path
        text=made.text,
        spans=made.spans,
        end_of_turn=end,
        warnings=tuple(warnings),
    )


def _with_losses(xray: Xray, models: "Sequence[PreTrainedModel]") -> Xray:
    if not models:
        return xray
    ids = [token.id for token in xray.tokens]
    wanted = [t.label if t.supervised else t.id for t in xray.tokens]
    columns = [token_losses(model, ids, targets=wanted) for model in models]
    tokens = tuple(
        replace(token, losses=losses)
        for token, losses in zip(xray.tokens, zip(*columns, strict=True), strict=True)
    )
    names = ("loss",) if len(models) == 1 else ("before", "after")
    return replace(xray, tokens=tokens, losses=names)
