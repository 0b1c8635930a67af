"""The tests: unit, contract, integration and acceptance, and the servers they run on."""
