from itertools import product

import pytest

from sftlab.world import QUESTIONS, RELATIONS, grammar


@pytest.fixture(scope="session")
def every_question():
    """All questions about some countries, in every wording."""
    return lambda about: {
        grammar.question(one, relation, wording=wording, form=form)
        for one, relation in product(about, RELATIONS)
        for wording, forms in QUESTIONS[relation].items()
        for form in range(len(forms))
    }
