"""Exercises that know the mistake, quizzes, and what a learner's attempts add up to."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "progress": ["class_report", "record_attempt"],
        "quizzes": ["QuizError", "quiz", "read_quiz"],
    },
)
