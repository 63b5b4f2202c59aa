"""Learning by doing: exercises that know the mistake, quizzes, and broken runs to diagnose."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "definitions": ["Exercise", "ExerciseError", "exercise", "exercises"],
        "progress": ["class_report", "record_attempt"],
        "quizzes": ["QuizError", "quiz", "quiz_questions", "read_quiz"],
        "zoo": ["Zoo", "ZooError"],
    },
)
