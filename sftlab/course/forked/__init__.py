"""Processes that have imported the libraries before they begin: forks of one server.

    sftlab run --all  --- starts --->  the server: torch, transformers, PEFT, TRL, Jupyter
                                          |-- fork: the worker of a lesson
                                          |-- fork: its kernel
                                          `-- fork: the server of its sweeps' processes

Whoever wants such a process starts `launch.py` in its place, which passes on what it was given and
ends as the fork does. Where the server is gone, `launch.py` becomes the process itself. On Linux
without a card, as `sweeps/forking.py` says; on other systems Python itself is started.
"""
