"""Thousands of spoiled recordings and job events through the whole system, watched from the kernel.

    __main__ ── run ──┬─ strace ── worker: world (every role, on the fakes; decoders real and confined)
                      │               └── decoder server, keepers, decoders
                      └─ watch: what the trace says that any of them has opened

A case is made from a seed and its number, so a finding is found again by both. `make fuzz` runs ten thousand of each
kind; `test_short_form` some of them in every test run, and builds that are wrong on purpose, which must be found out.
"""
