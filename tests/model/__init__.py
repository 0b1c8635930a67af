"""The whole system on fakes under a fault between any two effects, driven by Hypothesis.

    machine.py    the rules: what may happen, in any order
    world.py      the system: one broker, one store, processes that come, die and return, one clock
    processes.py  one process of each role: the product's own loop, handler, function or coordinator
    fate.py       what befalls a process at one of its effects, and the fakes that count the effects
    speech.py     recordings of a few seconds, and a planner and an engine that need microseconds for them
    oracle.py     what must hold after every step, told from the broker's log and the store alone
    verdict.py    what must hold in the end, once everything is healed and quiet

Everything runs in one thread on a clock of its own. Whatever happens while a process works (others go on, its own loop
polls, its partitions go) is done inside one of its effects, so a sequence is a function of its steps.
"""
