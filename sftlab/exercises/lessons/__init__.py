"""The exercises of each lesson, `lesson_NN.py`: course text, written as Python that tests run."""
