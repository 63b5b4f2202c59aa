"""Judges that need no person: one that knows the truth, and one that is a language model.

KnownTruthJudge        told the right answers: what people would say who looked them up
LikelihoodJudge        any profile's model: the answer that it finds likelier is the better one
EndpointJudge          a model behind an address of yours: `sftlab.measure.endpoint_judge`
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sftlab.measure.likelihood import log_likelihoods
from sftlab.measure.pairwise import Pair
from sftlab.measure.probes import is_right

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OFFERED = "Possible answers: {first}, {second}.\n\nQ: {question}\nA:"
"""What the likelihood judge reads: both answers, as all judges do, then the question."""
ALONE = "Q: {question}\nA:"
"""Without the other answer in sight: then no order can matter."""


class JudgeError(ValueError):
    """A judge that can't be made, or whose answer can't be read."""


class KnownTruthJudge:
    """The right answer wins; two that are right, or two that are wrong, are a tie."""

    name = "known truth"

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        """Verdicts by the pairs' references; JudgeError where a pair has none."""
        found = []
        for number, pair in enumerate(pairs):
            if not pair.references:
                raise JudgeError(
                    f"pair {number} ({pair.question!r}) has no references: this judge must be told "
                    "the right answers"
                )
            one, two = (is_right(text, pair.references) for text in (pair.first, pair.second))
            found.append(0.5 + (one - two) / 2)
        return found


class LikelihoodJudge:
    """The answer that a model finds likelier behind the question is the better one.

    Args:
        model: in evaluation mode; a base model will do.
        tokenizer: of the model.
        form: what stands before an answer, with `{question}`, and `{first}` and `{second}` where
            the judge shall see both.
        each_token: compare the mean of the tokens instead of their sum. A sum always prefers the
            shorter of two answers that say the same.
        margin: nats below which it is a tie.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        form: str = OFFERED,
        each_token: bool = True,
        margin: float = 0.0,
    ) -> None:
        if "{question}" not in form:
            raise JudgeError(
                f"form {form!r} has no {{question}}: the judge must read what was asked"
            )
        if not margin >= 0:
            raise JudgeError(f"margin is {margin}; give nats, 0 or more")
        self.model, self.tokenizer = model, tokenizer
        self.form, self.each_token, self.margin = form, each_token, margin
        self.name = "likelihood"

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        """Verdicts by likelihood; an empty answer loses against any other."""
        asked = []
        for pair in pairs:
            before = self.form.format(question=pair.question, first=pair.first, second=pair.second)
            asked += [(before, f" {text}") for text in (pair.first, pair.second)]
        scores = [
            one.mean if self.each_token else one.nats
            for one in log_likelihoods(self.model, self.tokenizer, asked)
        ]
        found = []
        for pair, one, two in zip(pairs, scores[::2], scores[1::2], strict=True):
            if pair.first == pair.second or abs(one - two) < self.margin:
                found.append(0.5)
            elif not pair.first or not pair.second:
                found.append(float(bool(pair.first)))
            else:
                found.append(0.5 if one == two else float(one > two))
        return found
