"""Coverage-guided fuzzing (atheris): inputs that reach new code are kept and changed further.

::

    targets.py    what is fuzzed: a name, seeds, a function of octets that must not raise
    parsers.py    the parsers, each alone; what was read must survive writing and reading again
    texts.py      texts and files, in the same way
    sessions.py   whole endpoints: strangers at one, and two whose network the octets govern
    worker.py     one target under atheris, in a process of its own
    __main__.py   all of them, one after the other, and a table of what was tried

``make fuzz`` runs it; ``tests/fuzz/test_fuzz_guided.py`` runs every target for a moment without
atheris, so that none rots. docs/security.md records the long runs.
"""
