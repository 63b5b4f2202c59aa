"""Imported before the libraries by a process that nobody watches: what they say then is silenced.

It holds no state, since the server of sweeps (`sftlab.sweeps.forking`) keeps it while the
rest of the lab's code may change.
"""

from sftlab.quiet import silence_known_lines

silence_known_lines()
